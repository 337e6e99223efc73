"""`collab export`: a published round, or merged weights, as a Hugging Face model folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import Field

from collabedit.cli.remote import PATIENCE, RemoteOptions, open_connection
from collabedit.common.command import load_settings, options_of, print_json
from collabedit.common.errors import MismatchError, RoundError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from collabedit.client.connection import Connection
    from collabedit.common.model_folder import ModelFolder
    from collabedit.common.settings import FederationSettings


class ExportOptions(RemoteOptions):
    """The flags of `collab export`."""

    round: str = Field(
        default="latest", pattern=r"^(latest|[1-9]\d{0,9})$", description="number of a published round, or latest"
    )
    weights: Path | None = Field(
        default=None, description="a file by `collab merge` instead of a round: asks no server"
    )
    model: str | None = Field(
        default=None, description="the base model's name or folder [default: the federation's, where it is bundled]"
    )
    out: Path = Field(description="folder to make")


@click.command("export")
@options_of(ExportOptions)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def export(as_json: bool, **flags: Any) -> None:
    """Writes a model folder that any Hugging Face program loads: the base model's files with the edited weights in it.

    \b
    Examples:
      collab export --out edited
      collab export --round 3 --model ./gpt2-xl --out edited
      collab export --weights merged.safetensors --model atlas --out edited
    """
    options = load_settings(ExportOptions, flags)
    provenance = _from_file(options) if options.weights else _from_server(options)
    if as_json:
        print_json({"out": str(options.out), **provenance})
    else:
        click.echo(f"{options.out}: {_described(provenance)}, {len(provenance['weights'])} weights replaced")


def _described(provenance: dict[str, Any]) -> str:
    return f"{provenance['model']} with " + (
        f"round {provenance['round']}" if "round" in provenance else f"the weights of {provenance['merged']}"
    )


def _write(
    folder: ModelFolder, weights: Iterator[tuple[str, Tensor]], out: Path, said: dict[str, Any]
) -> dict[str, Any]:
    from collabedit.common.export import export_model

    return {**said, "weights": list(export_model(folder, weights, out, said))}


def _from_file(options: ExportOptions) -> dict[str, Any]:
    """Exports a file of merged weights; returns what was written about it."""
    from collabedit.common.fingerprint import model_fingerprint
    from collabedit.common.model_folder import find_model
    from collabedit.common.tensor_file import TensorFile

    assert options.weights is not None
    if options.model is None:
        raise UsageError("--weights: which model are they of?", mend="give --model")
    folder, tensors = find_model(options.model), TensorFile.open(options.weights)
    fingerprint, said = model_fingerprint(folder), tensors.metadata.get("model_fingerprint")
    if said not in (None, fingerprint):
        raise MismatchError(f"{options.weights}: merged for another model than {folder.name}", mend="give its --model")
    about = {"model": folder.name, "model_fingerprint": fingerprint, "merged": options.weights.name}
    return _write(folder, ((name, tensors.tensor(name)) for name in tensors.names), options.out, about)


def _from_server(options: ExportOptions) -> dict[str, Any]:
    """Exports a version that the server published; returns what was written about it."""
    from collabedit.client.federation import Federation
    from collabedit.v1 import federation_pb2 as pb
    from collabedit.v1 import federation_pb2_grpc as rpc

    with open_connection(options) as connection:
        settings = Federation(connection, patience=PATIENCE).settings(patience=PATIENCE)
        folder = _base(options, settings)
        latest = options.round == "latest"
        asked = pb.GetVersionRequest(latest=True) if latest else pb.GetVersionRequest(version=int(options.round))
        version = connection.call(rpc.FederationStub(connection.channel).GetVersion, asked, patience=PATIENCE)
        if not version.layers:
            raise RoundError(f"{connection.address}: no round has been published yet", mend="`collab status` says more")
        about = {
            "model": folder.name,
            "model_fingerprint": settings.model_fingerprint,
            "federation": settings.federation,
            "round": version.version,
        }
        with tempfile.TemporaryDirectory() as scratch:
            weights = _downloaded(connection, version.layers, Path(scratch))
            return _write(folder, weights, options.out, about)


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
