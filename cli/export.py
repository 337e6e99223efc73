"""`collab export`: a published version, or merged weights, as a model folder, a patch file or a PEFT adapter."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from pydantic import Field

from collabedit.cli.inputs import demand_folder_of
from collabedit.cli.remote import PATIENCE, RemoteOptions, open_connection
from collabedit.common.command import load_settings, options_of, print_json
from collabedit.common.errors import BadFileError, MismatchError, RoundError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from collabedit.client.connection import Connection
    from collabedit.common.model_folder import ModelFolder
    from collabedit.common.settings import FederationSettings
    from collabedit.common.tensor_file import TensorFile

ABOUT = ("federation", "round")  # what a patch says about itself beside its model


class ExportOptions(RemoteOptions):
    """The flags of `collab export`."""

    round: str = Field(
        default="latest",
        pattern=r"^(latest|0|[1-9]\d{0,9})$",
        description="number of a published round, 0 (the base model), or latest",
    )
    weights: Path | None = Field(
        default=None, description="a patch, or a file by `collab merge`, instead of a round: asks no server"
    )
    model: str | None = Field(
        default=None, description="the base model's name or folder [default: the federation's, where it is bundled]"
    )
    form: Literal["folder", "patch", "peft"] = Field(
        default="folder",
        description="a whole model folder; a file with the edited weights alone; or a LoRA adapter for PEFT",
    )
    tolerance: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="peft: greatest ‖(W_N - W_0) - BA‖/‖W_N‖ [default: the machine epsilon of the model's dtype]",
    )
    out: Path = Field(description="folder to make; with --form patch the file to write (safetensors)")


@click.command("export")
@options_of(ExportOptions)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def export(as_json: bool, **flags: Any) -> None:
    """Writes a version of the model that a round published, or a rollback.

    A folder holds the base model's files with the edited weights in it: any Hugging Face program loads it. A patch
    holds the edited weights alone, to the bit; --weights makes a folder of it and of the base model, whose fingerprint
    is compared. An adapter holds W_N - W_0 as LoRA factors, where their rank makes them smaller than a patch.

    \b
    Examples:
      collab export --out edited
      collab export --round 3 --model ./gpt2-xl --out edited
      collab export --round 3 --form patch --out round-3.safetensors
      collab export --weights round-3.safetensors --model ./gpt2-xl --out edited
      collab export --form peft --out adapter
    """
    options = load_settings(ExportOptions, flags)
    if options.tolerance is not None and options.form != "peft":
        raise UsageError("--tolerance goes with --form peft", mend="the other forms hold the weights as they are")
    with _from_file(options) if options.weights else _from_server(options) as version:
        told = {
            "out": str(options.out),
            "form": options.form,
            **version.about,
            **WRITERS[options.form](options, version),
        }
    if as_json:
        print_json(told)
    else:
        click.echo(f"{options.out}: {_described(told)}")


@dataclass(frozen=True)
class Exported:
    """What is exported: the base model, the weights that differ from it ([d_out, d_in], read one at a time), and what
    is said about them.
    """

    base: ModelFolder
    weights: Iterator[tuple[str, Tensor]]
    about: dict[str, Any]


def _described(told: dict[str, Any]) -> str:
    what = f"round {told['round']}" if "round" in told else f"the weights of {told['merged']}"
    count = f"{len(told['weights'])} weights"
    if told["form"] == "folder":
        return f"{told['model']} with {what}, {count} replaced"
    if told["form"] == "patch":
        return f"{what} as a patch of {told['model']}, {count}, {told['bytes']:,} bytes"
    return (
        f"{what} as an adapter of {told['model']}, ranks {', '.join(map(str, told['ranks']))}, {told['bytes']:,} bytes"
    )


def _write_folder(options: ExportOptions, version: Exported) -> dict[str, Any]:
    from collabedit.common.export import export_model

    return {"weights": list(export_model(version.base, version.weights, options.out, version.about))}


def _write_patch(options: ExportOptions, version: Exported) -> dict[str, Any]:
    """The edited weights in the base's dtype, so that a folder made of them has the same bits."""
    from collabedit.common.tensor_file import write_tensors

    demand_folder_of(options.out)
    tensors = {name: tensor.to(version.base.weight(name).dtype) for name, tensor in version.weights}
    if not tensors:
        raise UsageError("this version is the base model: a patch would be empty", mend="--form folder")
    write_tensors(options.out, tensors, {key: str(value) for key, value in version.about.items()})
    return {"weights": list(tensors), "bytes": options.out.stat().st_size}


def _write_adapter(options: ExportOptions, version: Exported) -> dict[str, Any]:
    from collabedit.client.voice import Voice
    from collabedit.common.adapter import TENSORS, low_rank, write_adapter

    updates = []
    for name, tensor in version.weights:
        with Voice().progress(f"factoring {name}"):
            updates.append(low_rank(name, version.base.weight(name), tensor, tolerance=options.tolerance))
    names = write_adapter(options.out, version.base, updates, version.about)
    ranks = [each.rank for each in updates if each.rank]
    return {"weights": list(names), "ranks": ranks, "bytes": (options.out / TENSORS).stat().st_size}


WRITERS = {"folder": _write_folder, "patch": _write_patch, "peft": _write_adapter}


@contextmanager
def _from_file(options: ExportOptions) -> Iterator[Exported]:
    """A file of merged weights. Raises MismatchError where it is another model's."""
    from collabedit.common.fingerprint import model_fingerprint
    from collabedit.common.model_folder import find_model
    from collabedit.common.tensor_file import TensorFile

    assert options.weights is not None
    if options.model is None:
        raise UsageError("--weights: which model are they of?", mend="give --model")
    folder, tensors = find_model(options.model), TensorFile.open(options.weights)
    fingerprint, said = model_fingerprint(folder), tensors.metadata.get("model_fingerprint")
    if said not in (None, fingerprint):
        raise MismatchError(f"{options.weights}: made for another model than {folder.name}", mend="give its --model")
    told: dict[str, Any] = {key: tensors.metadata[key] for key in ABOUT if key in tensors.metadata}
    if told.get("round", "").isdecimal():
        told["round"] = int(told["round"])
    about = {"model": folder.name, "model_fingerprint": fingerprint, **told, "merged": options.weights.name}
    yield Exported(folder, _fitting(folder, tensors), about)


def _fitting(folder: ModelFolder, tensors: TensorFile) -> Iterator[tuple[str, Tensor]]:
    """Each weight of a file. Raises BadFileError for one of another shape than the model's, or that is not finite."""
    import torch

    for name in tensors.names:
        if tensors.shape(name) != folder.shape(name):
            raise BadFileError(f"{tensors.path}: {name} has shape {tensors.shape(name)}, not {folder.shape(name)}")
        tensor = tensors.tensor(name)
        if not bool(torch.isfinite(tensor).all()):
            raise BadFileError(f"{tensors.path}: {name} is not finite")
        yield name, tensor


@contextmanager
def _from_server(options: ExportOptions) -> Iterator[Exported]:
    """A version that the server published. Raises RoundError where there is none yet."""
    from collabedit.client.federation import Federation
    from collabedit.v1 import federation_pb2 as pb
    from collabedit.v1 import federation_pb2_grpc as rpc

    with open_connection(options) as connection, tempfile.TemporaryDirectory() as scratch:
        settings = Federation(connection, patience=PATIENCE).settings(patience=PATIENCE)
        folder = _base(options, settings)
        latest = options.round == "latest"
        asked = pb.GetVersionRequest(latest=True) if latest else pb.GetVersionRequest(version=int(options.round))
        version = connection.call(rpc.FederationStub(connection.channel).GetVersion, asked, patience=PATIENCE)
        if latest and not version.version:
            raise RoundError(f"{connection.address}: no round has been published yet", mend="`collab status` says more")
        about = {
            "model": folder.name,
            "model_fingerprint": settings.model_fingerprint,
            "federation": settings.federation,
            "round": version.version,
        }
        yield Exported(folder, _downloaded(connection, version.layers, Path(scratch)), about)


def _base(options: ExportOptions, settings: FederationSettings) -> ModelFolder:
    """The model folder that the federation edits. Raises MismatchError where it is another."""
    from collabedit.common.fingerprint import model_fingerprint
    from collabedit.common.model_folder import bundled_models, find_model

    if options.model is None and settings.model_name not in bundled_models():
        raise UsageError(f"the federation edits {settings.model_name}, which is not bundled", mend="give its --model")
    folder = find_model(options.model or settings.model_name)
    if model_fingerprint(folder) != settings.model_fingerprint:
        raise MismatchError(
            f"{folder.path}: not the model that the federation edits",
            mend=f"get the same files of {settings.model_name}",
        )
    return folder


def _downloaded(connection: Connection, layers: Any, scratch: Path) -> Iterator[tuple[str, Tensor]]:
    """Each weight of a version, [d_out, d_in], from a file that is gone once the next is asked for."""
    from collabedit.client.transfer import download
    from collabedit.client.voice import Voice
    from collabedit.common.tensor_file import TensorFile

    for layer in layers:
        with Voice().progress(f"downloading {layer.weight}") as tick:
            file = download(connection, layer.digest, scratch / layer.digest, progress=tick)
        yield layer.weight, TensorFile.open(file).tensor(layer.weight)
        file.unlink()
