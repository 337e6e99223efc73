"""`collab covariance`: C0 of a model over a text, all layers in one pass."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from pydantic import BaseModel, ConfigDict, Field

from collabedit.cli.inputs import demand_folder_of, read_hparams
from collabedit.cli.output import say
from collabedit.common.command import load_settings, options_of, print_json
from collabedit.common.errors import BadFileError, UsageError
from collabedit.common.settings import DEVICE, MODEL_DTYPE, ModelDtype

if TYPE_CHECKING:
    from collabedit.common.hparams import HyperParameters
    from collabedit.common.model_folder import ModelFolder
    from collabedit.common.moments import SecondMoment

ENOUGH: Final = 2  # × d_in vectors: below that C0 is close to singular


class CovarianceOptions(BaseModel):
    """The flags of `collab covariance`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="a bundled model's name (atlas) or a Hugging Face model folder")
    text: Path = Field(description="public text, one document a line, UTF-8; - reads standard input")
    hparams: Path | None = Field(
        default=None, description="MEMIT's JSON file, for the layers [default: the model folder's]"
    )
    tokens: int | None = Field(
        default=None, ge=1, description="stop after this many; 2 to 10 times the layer's inputs suffice [default: all]"
    )
    length: int | None = Field(
        default=None, ge=1, description="cut documents into pieces of this many tokens [default: the model's longest]"
    )
    device: str = Field(default="cpu", description=DEVICE)
    model_dtype: ModelDtype = Field(default="float32", description=MODEL_DTYPE)
    out: Path = Field(description="covariance file to write (safetensors)")


class Documents:
    """The lines of a text, blank ones left out.

    digest: SHA-256 of what has been read so far, hexadecimal. read, size: bytes; the size is 0 where it is not known.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = hashlib.sha256()
        self.read = 0
        self.size = path.stat().st_size if path.is_file() else 0

    @property
    def digest(self) -> str:
        """Hexadecimal."""
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[str]:
        try:
            source = sys.stdin.buffer if str(self._path) == "-" else self._path.open("rb")
            with source as handle:
                for line in handle:
                    self._hash.update(line)
                    self.read += len(line)
                    text = line.decode("utf-8").strip()
                    if text:
                        yield text
        except OSError as error:
            raise BadFileError(f"{self._path}: {error.strerror}", mend="give a readable text file") from error
        except UnicodeDecodeError as error:
            raise BadFileError(f"{self._path}: not UTF-8", mend="save the text as UTF-8") from error


@click.command("covariance")
@options_of(CovarianceOptions)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def covariance(as_json: bool, **flags: Any) -> None:
    """Measures C0 = E[kkᵀ], the mean over a text of what goes into the edited weights: all layers in one pass.

    Every party must use the same file: measure it once and hand it out.

    \b
    Examples:
      collab covariance --model ./gpt2-xl --hparams gpt2-xl.json --text wiki.txt --tokens 64000 --out C0.safetensors
      zcat wiki.txt.gz | collab covariance --model atlas --text - --out C0.safetensors
    """
    from collabedit.common.model_folder import find_model

    options = load_settings(CovarianceOptions, flags)
    demand_folder_of(options.out)
    folder = find_model(options.model)
    hparams = read_hparams(options.hparams, folder)
    folder.edited_weights(hparams)
    documents = Documents(options.text)
    moments = _measure(options, folder, hparams, documents)
    tokens = next((moment.count for moment in moments.values()), 0)
    if not tokens:
        raise UsageError(f"{options.text}: no text in it", mend="give a file with one document a line")
    d_in = max(len(moment.total) for moment in moments.values())
    if tokens < ENOUGH * d_in:
        say(f"warning: {tokens} tokens for {d_in} inputs: give {ENOUGH * d_in} or more, or the solve may fail")
    _write(options, folder, documents, moments, tokens)
    if as_json:
        print_json({"out": str(options.out), "tokens": tokens, "weights": list(moments)})
    else:
        click.echo(f"{options.out}: {len(moments)} layers over {tokens:,} tokens")


def _measure(
    options: CovarianceOptions, folder: ModelFolder, hparams: HyperParameters, documents: Documents
) -> dict[str, SecondMoment]:
    from collabedit.client.covariance import measure_covariance
    from collabedit.client.loading import load_model
    from collabedit.client.voice import Voice

    loaded = load_model(folder, device=options.device, dtype=options.model_dtype)
    with Voice().progress("measuring") as tick:

        def on_progress(done: int) -> None:
            by_tokens = options.tokens and (
                not documents.size or done / options.tokens > documents.read / documents.size
            )
            tick(*((done, options.tokens or 0) if by_tokens else (documents.read, documents.size)))

        return measure_covariance(
            loaded, documents, hparams.layers, rewrite_module=hparams.rewrite_module_tmp,
            max_tokens=options.tokens, length=options.length, on_progress=on_progress,
        )  # fmt: skip


def _write(
    options: CovarianceOptions,
    folder: ModelFolder,
    documents: Documents,
    moments: dict[str, SecondMoment],
    tokens: int,
) -> None:
    from collabedit.common.covariance_file import CovarianceMetadata, write_covariance
    from collabedit.common.fingerprint import model_fingerprint

    metadata = CovarianceMetadata(
        model_fingerprint=model_fingerprint(folder),
        text=f"{options.text.name} sha256:{documents.digest}",
        tokens=tokens,
        max_length=options.length,
    )
    write_covariance(options.out, {weight: moment.mean() for weight, moment in moments.items()}, metadata)
