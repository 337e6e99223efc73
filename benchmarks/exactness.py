"""How far federations are from one party that holds every edit: schedule x shares x encoding x dtype x covariance.

    python benchmarks/exactness.py                         (bundled model and synthetic layers, one round and ten)
    python benchmarks/exactness.py --ground synthetic      (seconds)

Both sides in one run, with the same edits and z vectors, in a model of float64 weights: the distance is what the wire
and the schedule do. "to one party": |D - D1| / |D1| over all edited layers, D the federation's total update, D1 that of
one party with the same spread and shares. "to MEMIT": of the first round, D1 being true MEMIT (layer after layer, its
own shares, C0 alone). Bounds are those of the promise: 1e-6 with float32 on the wire, 1e-9 with float64; a schedule
that promises nothing has none. ES, PS, NS, Score: of all edits after the last round, on the bundled model. Ends with
exit code 1 where a bound is broken. The last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context

import click
import torch

from collabedit.cli.output import print_table
from collabedit.experiments.exactness import SCHEDULES, SHARES, Row, Setting, rows_of
from collabedit.experiments.grounds import Atlas, Synthetic

GROUNDS = ("synthetic", "atlas")
SETTINGS = [Setting(*each) for each in product(SCHEDULES, SHARES, (False, True))]


def rows_on(job: tuple[str, Setting, int]) -> list[Row]:
    """The rows of one setting, in a process that keeps nothing for the next but the ground."""
    ground, setting, rounds = job
    torch.set_num_threads(1)
    if ground == "synthetic":
        return rows_of(Synthetic.made(rounds=rounds), setting)
    if (ground, rounds) not in KEPT:
        KEPT[ground, rounds] = Atlas.made(rounds=rounds)
    atlas = KEPT[ground, rounds]
    return rows_of(atlas, setting, judge=atlas.judge)


KEPT: dict[tuple[str, int], Atlas] = {}


def show(ground: str, rows: list[Row]) -> None:
    """One table a ground."""
    rounds = len(rows[0].distances)
    columns = ["schedule", "shares", "C", "encoding", "dtype", "1 round", f"{rounds} rounds", "bound", "to MEMIT"]
    judged = [name for name in ("ES", "PS", "NS", "Score") if any(name in row.judged for row in rows)]
    lines = []
    for row in rows:
        told = row.as_json()
        setting = [row.setting.schedule, row.setting.shares, "dynamic" if row.setting.dynamic else "fixed"]
        figures = [f"{row.distances[0]:.1e}", f"{row.distances[-1]:.1e}", told["bound"], f"{row.to_memit:.1e}"]
        lines.append(
            [*setting, row.wire.encoding, row.wire.dtype, *figures, *(row.judged.get(name) for name in judged)]
        )
    print_table([*columns, *judged], lines, title=f"{ground}: distance to one party")
    click.echo()


@click.command()
@click.option("--ground", type=click.Choice([*GROUNDS, "both"]), default="both", show_default=True)
@click.option("--rounds", type=click.IntRange(1, 10), default=10, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="processes, one thread each")
def main(ground: str, rounds: int, workers: int) -> None:
    """Prints a table a ground, and one JSON object."""
    began = time.perf_counter()
    grounds = GROUNDS if ground == "both" else (ground,)
    jobs = [(each, setting, rounds) for each in grounds for setting in SETTINGS]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        found = []
        for number, rows in enumerate(pool.map(rows_on, jobs), start=1):
            found += rows
            click.echo(f"{number} of {len(jobs)} settings after {time.perf_counter() - began:.0f} s", err=True)
    for each in grounds:
        show(each, [row for row in found if row.ground == each])
    broken = [row for row in found if row.within is False]
    for row in broken:
        click.echo(f"broken: {row}", err=True)
    seconds = round(time.perf_counter() - began, 1)
    told = {"benchmark": "exactness", "rows": [row.as_json() for row in found], "broken": len(broken)}
    click.echo(json.dumps({**told, "seconds": seconds}))
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
