"""Bytes that one client uploads in one round: the factors beside Delta and S in full.

    python benchmarks/wire.py                              (GPT2-XL and GPT-J sizes, 100 and 500 edits)
    python benchmarks/wire.py --scale 8                    (both sides 8 times smaller: seconds)

Files are written and measured, one layer of each size; a round's bytes are that times the number of edited layers, all
of which have the same shapes. Keys and residuals are random: sizes depend on shapes alone. Three forms, all float32:
`factored`; `dense` as the paper has it, Delta [d_out, d_in] and S [d_in, d_in] in full; `dense, file`: what a dense
contribution file takes. Then everything is read back. At every size S and R K' are applied to random vectors, rebuilt
from the file and from K and R themselves; Delta and S in full are rebuilt where a [d_in, d_in] solve is affordable. The
errors are relative, in the Frobenius norm. Ends with exit code 1 where GPT-J with 500 edits saves less than 25 times,
or an error exceeds 1e-6. The last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
from torch import Tensor

from collabedit.cli.output import print_table
from collabedit.common.contribution import Dense, Metadata
from collabedit.common.contribution_file import ContributionFile, write_contribution
from collabedit.common.editors import MEMIT, unsplit
from collabedit.common.factors import factor_update
from collabedit.common.prior import Prior
from collabedit.common.tensor_file import write_tensors

MODELS = {"gpt2-xl": (1600, 6400, 5), "gpt-j": (4096, 16384, 6)}  # d_out, d_in, edited layers
EDITS = (100, 500)
WEIGHT = "layer.weight"
REBUILT_D_IN = 2048  # where S and Delta are rebuilt in full
PROBES = 8
CONDITION, SIZE = 1e7, 1e-6
NEEDED, BOUND = 25.0, 1e-6


@dataclass(frozen=True)
class Line:
    """One model and number of edits. Bytes are of one layer's file; errors relative, of the factored file."""

    model: str
    d_out: int
    d_in: int
    layers: int
    edits: int
    factored: int
    dense: int
    dense_file: int
    kkt_error: float
    moment_error: float

    @property
    def ratio(self) -> float:
        """How much less the factors are than Delta and S in full."""
        return self.dense / self.factored


def drawn(d_out: int, d_in: int, edits: int) -> tuple[Tensor, Tensor]:
    """Random K [d_in, M] and R [d_out, M], float64."""
    generator = torch.Generator().manual_seed(edits)
    keys = torch.randn(d_in, edits, dtype=torch.float64, generator=generator)
    return keys, torch.randn(d_out, edits, dtype=torch.float64, generator=generator)


def apart(found: Tensor, wanted: Tensor) -> float:
    """Relative distance, Frobenius."""
    return float((found - wanted).norm() / wanted.norm())


def measured(model: str, edits: int, scale: int, folder: Path) -> Line:
    """Writes all three files of one layer, reads the first back, and forgets them."""
    d_out, d_in, layers = (size // scale if place < 2 else size for place, size in enumerate(MODELS[model]))
    keys, residuals = drawn(d_out, d_in, edits)
    file = folder / "contribution"
    write_contribution(file, {WEIGHT: factor_update(keys, residuals).to(torch.float32)}, Metadata(edits=edits))
    factored = file.stat().st_size
    kkt_error, moment_error = probed(file, keys, residuals)
    return Line(
        model, d_out, d_in, layers, edits, factored, *dense_sizes(file, keys, residuals), kkt_error, moment_error
    )


def probed(file: Path, keys: Tensor, residuals: Tensor) -> tuple[float, float]:
    """Errors of S X and (R K') X for random X, rebuilt from the factors in the file: no [d_in, d_in] matrix is made."""
    read = ContributionFile.open(file).layer(WEIGHT)
    left, right = read.residual_factor.double(), read.kkt_factor.double()  # type: ignore[union-attr]
    probe = torch.randn(len(keys), PROBES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen, wanted = right.mT @ probe, keys.mT @ probe
    return apart(right @ seen, keys @ wanted), apart(left @ seen, residuals @ wanted)


def dense_sizes(file: Path, keys: Tensor, residuals: Tensor) -> tuple[int, int]:
    """Bytes of Delta and S in full, and of a dense contribution file; what Delta is does not matter to its size."""
    thin = keys.float()
    upload = Dense(residuals.float() @ thin.mT, thin @ thin.mT)
    write_tensors(file, {f"{WEIGHT}.delta": upload.delta, f"{WEIGHT}.kkt": upload.kkt_matrix})
    full = file.stat().st_size
    write_contribution(file, {WEIGHT: upload}, Metadata())
    return full, file.stat().st_size


def rebuilt(edits: int, d_in: int, folder: Path) -> dict[str, float]:
    """S and Delta in full from the file, beside what K and R give; cond(C) 1e7, S of one party 1e-6 of C."""
    keys, residuals = drawn(d_in // 4, d_in, edits)
    keys *= (SIZE**0.5) / torch.linalg.matrix_norm(keys, 2)
    noise = torch.randn(d_in, d_in, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    basis, values = torch.linalg.qr(noise).Q, CONDITION ** -torch.linspace(0, 1, d_in, dtype=torch.float64)
    matrix = (basis * values) @ basis.mT
    prior = Prior((matrix + matrix.mT) / 2)
    file = folder / "contribution"
    write_contribution(file, {WEIGHT: factor_update(keys, residuals).to(torch.float32)}, Metadata())
    read = ContributionFile.open(file).layer(WEIGHT)
    wanted = MEMIT.solve(prior, [unsplit(keys, residuals)], what=WEIGHT)
    return {
        "d_in": d_in,
        "edits": edits,
        "kkt_error": apart(read.kkt(), keys @ keys.mT),
        "delta_error": apart(MEMIT.solve(prior, [read], what=WEIGHT), wanted),
    }


def show(lines: list[Line], full: dict[str, float]) -> None:
    """The table of a round's bytes."""
    columns = ["model", "d_out", "d_in", "layers", "edits", "factored, MB", "dense, MB", "times", "dense, file, MB"]
    rows = []
    for line in lines:
        sizes = [each * line.layers / 1e6 for each in (line.factored, line.dense, line.dense_file)]
        shapes = [line.model, line.d_out, line.d_in, line.layers, line.edits]
        cells = [f"{sizes[0]:,.1f}", f"{sizes[1]:,.1f}", f"{line.ratio:.1f}", f"{sizes[2]:,.1f}"]
        rows.append([*shapes, *cells, f"{line.kkt_error:.0e}", f"{line.moment_error:.0e}"])
    title = "bytes a client a round: one layer's file, measured, times the layers"
    print_table([*columns, "error of S", "error of RK'"], rows, title=title)
    told = f"d_in {full['d_in']:.0f}, {full['edits']:.0f} edits, rebuilt in full"
    click.echo(f"\n{told}: S to {full['kkt_error']:.1e}, Delta to {full['delta_error']:.1e}")


@click.command()
@click.option("--scale", type=click.IntRange(1, 32), default=1, show_default=True, help="divides d_out and d_in")
@click.option("--model", "models", type=click.Choice(list(MODELS)), multiple=True, help="[default: all]")
@click.option("--folder", type=click.Path(path_type=Path), help="where files are written  [default: a temporary one]")
def main(scale: int, models: tuple[str, ...], folder: Path | None) -> None:
    """Prints a table and one JSON object."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        lines = [
            measured(model, edits, scale, Path(scratch))
            for model in models or MODELS
            for edits in EDITS
            if edits * 2 <= MODELS[model][1] // scale
        ]
        full = rebuilt(100, min(REBUILT_D_IN, 4 * REBUILT_D_IN // scale), Path(scratch))
    show(lines, full)
    errors = [each for line in lines for each in (line.kkt_error, line.moment_error)]
    accurate = max([*errors, full["kkt_error"], full["delta_error"]]) <= BOUND
    saved = [line.ratio for line in lines if (line.model, line.edits, scale) == ("gpt-j", 500, 1)]
    told = {
        "benchmark": "wire",
        "scale": scale,
        "rebuilt": full,
        "accurate": accurate,
        "seconds": round(time.perf_counter() - began, 1),
    }
    rows = [{**asdict(line), "ratio": line.ratio} for line in lines]
    click.echo(json.dumps({**told, "gpt_j_500_ratio": saved[0] if saved else None, "rows": rows}))
    sys.exit(0 if accurate and all(each >= NEEDED for each in saved) else 1)


if __name__ == "__main__":
    main()
