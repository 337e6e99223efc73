"""The reference pages that are drawn from the code: `python -m collabedit.cli.reference FOLDER` writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import click
from pydantic import BaseModel

WIDTH: Final = 100
MADE: Final = "<!-- Drawn from the code: `make docs` writes this page. -->"


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by its full name, the umbrella's first, groups before what is in them."""
    from collabedit.cli.main import collab
    from collabedit.client.main import command as client
    from collabedit.server.main import server

    yield from _below("collab", collab)
    yield "collab-server", server
    yield "collab-client", client


def _below(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            yield from _below(f"{name} {each}", found)


def help_text(name: str, command: click.Command) -> str:
    """What `name --help` prints, 100 columns wide. Commands of the umbrella inherit its `-h`."""
    inherited = {"help_option_names": ["-h", "--help"]} if name.startswith("collab ") else {}
    settings = {**inherited, **command.context_settings, "max_content_width": WIDTH, "terminal_width": WIDTH}
    return command.get_help(click.Context(command, info_name=name, **settings)).rstrip()


def commands_page() -> str:
    """docs/reference/commands.md: every command's help."""
    parts = ["# Commands", MADE, "Exit codes are listed on [a page of their own](exit-codes.md)."]
    for name, command in commands():
        parts.append(f"## {name}\n\n```text\n{help_text(name, command)}\n```")
    return "\n\n".join(parts) + "\n"


def _rows(model: type[BaseModel]) -> Iterator[str]:
    yield "| setting | default | meaning |\n| --- | --- | --- |"
    for name, field in model.model_fields.items():
        default = (
            "required"
            if field.is_required()
            else f"`{field.get_default(call_default_factory=True, validated_data={})}`"
        )
        shown = default.replace(str(Path.home()), "~").replace("|", "\\|")
        yield f"| `{name}` | {shown} | {(field.description or '').replace('|', chr(92) + '|')} |"


def settings_page() -> str:
    """docs/reference/settings.md: what each TOML file, the federation and the hyperparameters may say."""
    from collabedit.client.config import ClientConfig
    from collabedit.common.hparams import HyperParameters
    from collabedit.common.settings import FederationSettings
    from collabedit.server.config import ServerConfig

    sections: Mapping[str, tuple[type[BaseModel], str]] = {
        "The server's TOML": (ServerConfig, "`collab-server --config server.toml`. A flag overrides the file."),
        "The client's TOML": (ClientConfig, "`collab-client --config client.toml`. A flag overrides the file."),
        "A federation": (
            FederationSettings,
            "Fixed when the federation is founded, and handed to every client that joins.",
        ),
        "Hyperparameters": (HyperParameters, "MEMIT's JSON files are read as they are; other keys are kept."),
    }
    parts = ["# Settings", MADE, "Unknown keys are errors, and every number has a range."]
    for title, (model, said) in sections.items():
        parts.append(f"## {title}\n\n{said}\n\n" + "\n".join(_rows(model)))
    return "\n\n".join(parts) + "\n"


PAGES: Final = {"commands.md": commands_page, "settings.md": settings_page}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def main(folder: Path) -> None:
    """Writes the reference pages into FOLDER.

    \b
    Example:
      python -m collabedit.cli.reference docs/reference
    """
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
