"""Which kills there are, in which order, and what is said of them."""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click
import torch
from ground import WHEN, Counts, Ground, Kill
from meeting import KINDS, Meeting

SIDES: Final = ("server", *KINDS, "bulk", "found", "client", "enrol", "enrol-server")
SEVERAL: Final = "several"
Point = tuple[str, str, str]  # side, transition as NAME:N, before or after


def point(text: str) -> Point:
    """SIDE:NAME:N:before|after, read. With a comma, further ones may follow for the lives of a server after that."""
    side, _, rest = text.partition(":")
    at, _, when = rest.rpartition(":")
    if side not in SIDES or when not in WHEN or ":" not in at:
        raise click.BadParameter(f"{text}: not SIDE:NAME:N:before|after, as a run prints them")
    return side, at, when


def kind(at: str) -> str:
    """What a transition is, whichever of its name, whichever party's doing."""
    return SEVERAL if "," in at else "/".join(at.rpartition(":")[0].split("/")[:3])


def planned(ground: Ground, most: dict[str, int], seed: int) -> list[Point]:
    """Every transition before and after, in an order drawn by the seed, but one of each kind first; and of each side no
    more than `most` allows.
    """
    source = random.Random(seed)
    plan = [(side, at, when) for side in ground.trace for at in ground.walked(side) for when in WHEN]
    source.shuffle(plan)
    of_kind: Counter[Point] = Counter()
    rank = {}
    for side, at, when in plan:
        rank[side, at, when] = of_kind[side, kind(at), when]
        of_kind[side, kind(at), when] += 1
    of_side: dict[str, list[Point]] = defaultdict(list)
    for each in sorted(plan, key=rank.__getitem__):
        of_side[each[0]].append(each)
    taken = [each for side, those in of_side.items() for each in those[: most[side]]]
    return sorted(taken, key=rank.__getitem__)


def table(kills: Sequence[Kill]) -> str:
    """Markdown: a row for each kind of transition of each side."""
    rows: dict[tuple[str, str, str], list[Kill]] = defaultdict(list)
    for each in kills:
        if each.happened:
            rows[each.side, kind(each.at), each.when].append(each)
    lines = [
        "| side | transition | killed | kills | same bits | most sent again |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (side, what, when), those in sorted(rows.items()):
        well, again = sum(not each.wrong for each in those), max(each.again for each in those)
        lines.append(f"| {side} | {what} | {when} | {len(those)} | {well} | {again / 2**20:.2f} MiB |")
    return "\n".join(lines)


@click.command()
@click.option("--seed", default=1, show_default=True, help="Draws which transitions, and their order.")
@click.option("--server", default=10_000, show_default=True, help="Most kills of the server in a round.")
@click.option("--meeting", default=10_000, show_default=True, help="Most kills of each side on which edits meet.")
@click.option("--bulk", default=30, show_default=True, help="Most kills of the server in a round of large uploads.")
@click.option("--found", default=10_000, show_default=True, help="Most kills of a server that founds a federation.")
@click.option("--client", default=10_000, show_default=True, help="Most kills of a client in a round.")
@click.option("--enrol", default=12, show_default=True, help="Most kills of each side in an enrolment.")
@click.option("--side", "chosen", multiple=True, type=click.Choice(SIDES), help="These sides alone.")
@click.option("--only", multiple=True, help="This kill alone: SIDE:NAME:N:before|after, as a run prints it.")
@click.option("--minutes", default=55.0, show_default=True, help="No kill begins later than this; the report says so.")
@click.option("--workers", default=2, show_default=True, help="Federations side by side.")
@click.option("--report", type=click.Path(path_type=Path), help="Folder for report.md and report.json.")
def main(
    seed: int,
    server: int,
    meeting: int,
    bulk: int,
    found: int,
    client: int,
    enrol: int,
    chosen: Sequence[str],
    only: Sequence[str],
    minutes: float,
    workers: int,
    report: Path | None,
) -> None:
    """Kills, and prints what came of it. Exit code 1 where anything is wrong."""
    torch.set_num_threads(1)
    most = {
        "server": server, "bulk": bulk, "found": found, "client": client, "enrol": enrol, "enrol-server": enrol,
        **dict.fromkeys(KINDS, meeting),
    }  # fmt: skip
    plan = [point(each) for each in only]
    sides = [*dict.fromkeys(side for side, _, _ in plan)] or [side for side in chosen or SIDES if most[side]]
    start, kills = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        ground = Meeting(Path(scratch), Counts())
        ground.make(sides)
        ground.trace_all(sides)
        for side in sides:
            click.echo(f"{side}: {len(ground.trace[side])} transitions: {dict(Counter(map(kind, ground.trace[side])))}")
        plan = plan or planned(ground, most, seed)
        last = start + minutes * 60
        with ThreadPoolExecutor(workers) as pool:
            for future in as_completed([pool.submit(ground.kill, *each, last) for each in plan]):
                if each := future.result():
                    kills.append(each)
                    said = each.wrong or ("same bits" if each.happened else "not reached")
                    click.echo(f"{len(kills):4}/{len(plan)} {each.seconds:3.0f} s  {each.point}: {said}")
    kills.sort(key=lambda each: each.point)
    finish(kills, len(plan), seed, time.monotonic() - start, report)


def finish(kills: Sequence[Kill], planned_: int, seed: int, seconds: float, report: Path | None) -> None:
    """The table, the report, and the exit code."""
    happened, bad = [each for each in kills if each.happened], [each for each in kills if each.wrong]
    summary = (
        f"{len(happened)} kills by seed {seed} in {seconds:.0f} s: {len(happened) - sum(each.happened for each in bad)}"
        f" rounds and enrolments complete with the same bits, {len(bad)} wrong,"
        f" {len(kills) - len(happened)} not reached, {planned_ - len(kills)} left out for want of time"
    )
    text = f"{table(kills)}\n\n{summary}\n" + "".join(f"\n{each.point}: {each.wrong}" for each in bad)
    click.echo(f"\n{text}")
    said = {"seed": seed, "seconds": seconds, "kills": [{**asdict(each), "point": each.point} for each in kills]}
    if report:
        report.mkdir(parents=True, exist_ok=True)
        (report / "report.md").write_text(f"# Kills\n\n{text}\n")
        (report / "report.json").write_text(json.dumps(said, indent=1))
    sys.exit(1 if bad else 0)
