"""Every command has help, and getting it costs nothing."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from collabedit.cli.main import COMMANDS

READY = {name: row for name, row in COMMANDS.items() if find_spec(row[0])}
SPY = """
import sys
from collabedit.cli.main import main
sys.argv = ["collab", *{arguments!r}]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
heavy = {{"torch", "transformers", "sqlalchemy", "alembic", "matplotlib", "grpc"}} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.wheel
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in READY)], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """`collab … --help` loads neither torch nor transformers, nor anything else that takes seconds."""
    ran = subprocess.run(
        [sys.executable, "-c", SPY.format(arguments=arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


@pytest.mark.parametrize("name", READY)
def test_every_command_is_documented(name: str, collab) -> None:
    """Help says what the command does, has an example that starts with the command, and a line for each flag."""
    import click

    ran = collab(name, "--help")
    assert ran.code == 0
    assert f"collab {name}" in ran.out.partition("Options")[0].partition("\n")[2] or "Commands" in ran.out
    module, attribute, line = COMMANDS[name]
    assert line.endswith(".")
    command = getattr(__import__(module, fromlist=[attribute]), attribute)
    for each in command.params:
        assert not isinstance(each, click.Option) or each.help, f"{name}: {each.name} has no help"


def test_unknown_command_is_named(collab) -> None:
    """A command that is not there ends with exit code 2 and its name."""
    ran = collab("edti")
    assert ran.code == 2
    assert "edti" in ran.err
