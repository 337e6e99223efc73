"""Flags that are made from a settings model."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from collabedit.common.command import load_settings, options_of


class Settings(BaseModel):
    """One setting that is on unless said otherwise, and one that is off."""

    careful: bool = True
    quick: bool = False


@pytest.mark.parametrize(
    ("arguments", "toml", "careful"),
    [
        ([], "", True),
        (["--no-careful"], "", False),
        (["--careful"], "careful = false", True),
        ([], "careful = 0", False),
    ],
)
def test_what_is_on_can_be_turned_off(tmp_path, arguments: list[str], toml: str, careful: bool) -> None:
    """What is true unless said otherwise has a flag `--no-…`; the file's word counts where neither flag is given."""
    (tmp_path / "settings.toml").write_text(toml)
    found: list[Settings] = []

    @click.command()
    @options_of(Settings)
    def command(**flags: object) -> None:
        found.append(load_settings(Settings, flags, toml=tmp_path / "settings.toml"))

    assert CliRunner().invoke(command, arguments).exit_code == 0
    assert found == [Settings(careful=careful)]
    assert "--no-quick" not in CliRunner().invoke(command, ["--help"]).output


def test_a_setting_of_several_values_is_a_list_with_commas_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable holds one text: `--priority` and `--advertise` could not be said by one."""

    class Several(BaseModel):
        priority: tuple[str, ...] = ()
        policy: str = ""

    monkeypatch.setenv("SOME_PRIORITY", "alice, bob")
    monkeypatch.setenv("SOME_POLICY", "a, b")
    assert load_settings(Several, {}, environment="SOME_") == Several(priority=("alice", "bob"), policy="a, b")
