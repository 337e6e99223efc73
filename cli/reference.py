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
    yield from _below("collab-client", client)


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
        "The server's TOML": (
            ServerConfig,
            "`collab-server --config server.toml`. A flag overrides the file, and so does a variable `COLLAB_SERVER_`"
            " with the setting's name in capitals, in which commas stand between several values.",
        ),
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


MODELS: Final = """\
A model is a Hugging Face folder with safetensors weights and a fast tokenizer. Its `model_type` in config.json decides
which family it is; how to add one: [CONTRIBUTING](../../CONTRIBUTING.md#adding-a-model-family). z, keys and Δ of each
agree with an implementation that edits one fact at a time by full passes: `pytest -k fidelity` prints how closely.

Gemma 2 and 3 and OPT 350m have a norm behind the MLP: what an edit adds there reaches the hidden state through that
norm, of which MEMIT's update knows nothing."""
PRESETS_SAID: Final = """\
Hyperparameters are taken from `--hparams`; else from the folder's `hparams.json`; else from this table, where a model
has the type, depth, width and vocabulary of one in it, whatever its folder is called; else they are derived and told on
standard error: layers at the same relative depth as those of the nearest of these models, its other values, the loss at
the last layer. `kl_factor` is 0.0625 for all. `collab layers` measures which layers of a model are best."""


def models_page() -> str:
    """docs/reference/models.md: the families and the presets."""
    from collabedit.common.architectures import ARCHITECTURES
    from collabedit.common.presets import PRESETS

    families = ["| family | `model_type` | edited weight |\n| --- | --- | --- |"]
    for adapter in ARCHITECTURES:
        types = ", ".join(f"`{each}`" for each in adapter.model_types)
        families.append(f"| {adapter.family} | {types} | `{adapter.rewrite_module.format('N')}.weight` |")
    presets = [
        "| model | type, depth, width, vocabulary | layers | steps / lr | wd | clamp | λ | loss layer |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |"
    ]
    for each in PRESETS:
        h, sizes = each.hparams, " or ".join(map(str, each.vocabularies))
        presets.append(
            f"| {each.name} | `{each.model_type}`, {each.depth}, {each.width}, {sizes} | {h.layers[0]}–{h.layers[-1]} "
            f"| {h.v_num_grad_steps} / {h.v_lr:g} | {h.v_weight_decay:g} | {h.clamp_norm_factor:g} "
            f"| {h.mom2_update_weight:,.0f} | {h.v_loss_layer} |"
        )
    parts = ["# Models", MADE, MODELS, "\n".join(families), "## Presets", PRESETS_SAID, "\n".join(presets)]
    return "\n\n".join(parts) + "\n"


PAGES: Final = {"commands.md": commands_page, "models.md": models_page, "settings.md": settings_page}


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
