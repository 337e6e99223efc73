"""Claims, verdicts and reports of many clients: what each step of a round takes, after no history and after a long one.

    python benchmarks/claims.py                                 (64 clients with 5,000 claims each, 100 rounds before)
    python benchmarks/claims.py --database postgresql://user@host/database    (an empty one, which it fills)

The server's state machine and store, without network and model. Twice in one run: as the federation's first round, and
after `--history` published rounds of the same clients with `--history-claims` claims each. Of every second client's
claims one in five says what the client before it says, and one in ten contradicts that; of everybody's one in twenty
takes the place of a claim of the round before. Rounds of the history are judged, and written as rows past the store.
Seconds of the processor with SQLite, which works inside the process, and by the wall's clock with PostgreSQL: mean and
longest. Memory is the process's own, its peak in the first round less that before. The last line is one JSON object.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import click
from sqlalchemy import insert

from collabedit.common.blinding import Claim
from collabedit.server import tables
from collabedit.server.claims import OUT, Party, Rule, Verdict, judge
from collabedit.server.database import migrate, open_engine, sqlite_url, writer_of
from collabedit.server.events import Complete, Contribute, Enter, Event, LastLayerMerged, Report, Settle
from collabedit.server.rounds import LayerWeights, Round
from collabedit.server.services import round_state
from collabedit.server.sql_store import SqlStore
from collabedit.server.transitions import advance
from collabedit.server.views import View

SHARED, CONTRADICTED, TAKEN = 0.20, 0.10, 0.05  # of a client's claims
WEIGHT = LayerWeights("w", "d")
Times = dict[str, list[float]]


def new_claims(number: int) -> list[Claim]:
    """Claims that nobody else has."""
    drawn = os.urandom(64 * number)
    return [Claim(drawn[at : at + 32], drawn[at + 32 : at + 64]) for at in range(0, len(drawn), 64)]


def batches(clients: int, size: int, history: list[Claim]) -> list[list[Claim]]:
    """Each client's claims: some of the next client's, some that contradict it, some that contradict the history."""
    own = [new_claims(size) for _ in range(clients)]
    shared, contradicted, taken = (int(size * each) for each in (SHARED, CONTRADICTED, TAKEN))
    for number in range(1, clients, 2):
        other = own[number - 1]
        facts = iter(new_claims(contradicted))
        own[number][:shared] = other[:shared]
        own[number][shared : shared + contradicted] = [
            Claim(each.slot, next(facts).fact) for each in other[shared : shared + contradicted]
        ]
    known = iter(history)
    for claims in own:
        for at in range(size - taken, size):
            there = next(known, None)
            claims[at] = Claim(there.slot, claims[at].fact) if there else claims[at]
    return own


class Bench:
    """A store, and the times that were measured on it."""

    def __init__(self, url: str, clients: int) -> None:
        self.engine = open_engine(url)
        migrate(self.engine)
        self.store = SqlStore(self.engine)
        self.names = [f"party-{number:03}" for number in range(clients)]
        self.clock = time.process_time if self.engine.dialect.name == "sqlite" else time.perf_counter
        self.times: Times = {}
        self.seen = 0  # the newest verdict's number before the round that is measured
        self._numbers = count(1)

    def timed(self, what: str, work: Callable[[], Any]) -> Any:
        """What `work` returns; the seconds that it took are noted."""
        began = self.clock()
        found = work()
        self.times.setdefault(what, []).append(self.clock() - began)
        return found

    def fill(self, rounds: int, claims: int) -> list[Claim]:
        """Published rounds of all clients as rows, their claims judged; those of the last one that were merged."""
        merged: list[Claim] = []
        writer = writer_of(self.engine)
        for number in range(1, rounds + 1):
            parties = [
                Party(name, tuple(own))
                for name, own in zip(self.names, batches(len(self.names), claims, merged), strict=True)
            ]
            verdicts = judge(parties, Rule())
            out = {(each.client, each.claim) for each in verdicts if each.kind in OUT}
            with writer.begin() as connection:
                for table, rows in self._rows(number, parties, verdicts, out):
                    connection.execute(insert(table), rows)
            merged = [each for party in parties for each in party.claims if (party.client, each) not in out]
        if self.engine.dialect.name != "sqlite":  # as PostgreSQL does by itself, sooner or later
            with writer.begin() as connection:
                connection.exec_driver_sql("ANALYZE")
        writer.dispose()
        return merged

    def _rows(
        self, number: int, parties: list[Party], verdicts: tuple[Verdict, ...], out: set[tuple[str, Claim]]
    ) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
        here = {"round": number}
        text = {"exchanges": '[["w"]]', "quorum": 1, "phase": "published", "reason": "", "expected": "[]"}
        numbers = {"base_version": number - 1, "attempt": 0, "layer": 0, "opened": 1.0, "ended": 2.0}
        yield tables.ROUNDS, [{"number": number, "revision": number, **text, **numbers}]
        stands = {"status": "contributed", "reason": "", "judged": 1}
        yield (
            tables.MEMBERS,
            [
                {**here, **stands, "client": each.client, "edits": len(each.claims), "place": place}
                for place, each in enumerate(parties, 1)
            ],
        )
        layer = {"weight": "w", "digest": "d", "kkt_released": "[]", "kkt_withheld": "[]", "kkt_party": ""}
        yield tables.LAYER_WEIGHTS, [{**here, **layer, "attempt": 0, "position": 0}]
        yield tables.CLAIMS, [
            {**here, "client": party.client, "source": "entered", "position": at, "place": place, "slot": each.slot,
             "fact": each.fact, "judged_out": int((party.client, each) in out)}
            for place, party in enumerate(parties, 1)
            for at, each in enumerate(party.claims)
        ]  # fmt: skip
        yield tables.VERDICTS, [
            {**here, "number": next(self._numbers), "client": each.client, "slot": each.claim.slot,
             "fact": each.claim.fact, "kind": each.kind.value, "policy": each.policy}
            for each in verdicts
        ]  # fmt: skip
        yield (
            tables.REPORTS,
            [
                {**here, "client": name, "position": at, "version": number - 1, "at": 1.0, "tested": 200, "held": 190}
                for at, name in enumerate(self.names)
            ],
        )

    def play(self, number: int, own: list[list[Claim]]) -> None:
        """One round, entered by all with their claims, settled, contributed to, reported to and published."""
        round_ = Round(number, number - 1, (("w",),), len(self.names), opened=1.0)
        self.store.record(round_)
        for name, claims in zip(self.names, own, strict=True):
            enter = Enter(at=2.0, client=name, edits=len(claims), claims=tuple(claims))
            round_ = self.timed("enter", lambda now=round_, event=enter: self._happens(now, event))
        round_ = self._settled(round_)
        for name in self.names:
            report = Report(at=3.0, client=name, tested=200, held=190)
            round_ = self.timed("report", lambda now=round_, event=report: self._happens(now, event))
            self.timed("retention watched", lambda: self.store.retention(12))
        for name in self.names:
            give = Contribute(at=4.0, client=name, attempt=0, layer=0, digest=f"{number}-{name}")
            round_ = self.timed("contribute", lambda now=round_, event=give: self._happens(now, event))
        self._reads(round_)
        round_ = self._happens(round_, Complete(at=5.0, late={}))
        last = LastLayerMerged(at=5.0, merged=(WEIGHT,))
        self.timed("publish, with what it overwrites", lambda: self._happens(round_, last))

    def _settled(self, round_: Round) -> Round:
        settle = Settle(at=3.0, rule=Rule())
        judged = self.timed("settle: judged", lambda: advance(round_, settle))
        self.timed("settle: recorded", lambda: self.store.record(judged))
        return judged

    def _reads(self, round_: Round) -> None:
        """What clients, operators and a restart ask for while the round is under way."""
        newest = self.timed("newest verdicts", self.store.newest_verdicts)
        view = View(round_, 1, round_.base_version, None, None, newest)
        self.timed("state for every client", lambda: [round_state(view, name) for name in self.names])
        for name in self.names:
            self.timed("verdicts of the round", lambda who=name: self.store.verdicts(who, self.seen, 20_000))
        self.timed("conflicts, 20", lambda: self.store.conflicts(limit=20))
        self.timed("conflicts, 1000", lambda: self.store.conflicts(limit=1000))
        self.timed("conflicts that wait", lambda: self.store.conflicts(undecided=True, limit=1000))
        self.timed("retention, 20 versions", lambda: self.store.retention(20))
        self.timed("list of 20 rounds", lambda: self.store.rounds(20))
        self.timed("read at a restart", self.store.latest_round)

    def _happens(self, round_: Round, event: Event) -> Round:
        changed = advance(round_, event)
        self.store.record(changed)
        return changed


def peak() -> float:
    """The process's greatest memory so far, MiB."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024


def summary(times: Times) -> dict[str, dict[str, float]]:
    """Mean and longest seconds of each step."""
    return {what: {"mean": statistics.mean(each), "longest": max(each)} for what, each in times.items()}


def show(without: dict[str, dict[str, float]], after: dict[str, dict[str, float]]) -> None:
    """Milliseconds of both sides, and their ratio, a line a step."""
    for what, first in without.items():
        then = after[what]
        both = f"{1000 * first['mean']:10.1f} {1000 * then['mean']:10.1f}  (longest {1000 * then['longest']:.1f})"
        click.echo(f"{what:34} {both}  ratio {then['mean'] / first['mean']:.2f}", err=True)


@click.command()
@click.option("--clients", default=64, show_default=True, type=click.IntRange(min=2))
@click.option("--claims", default=5000, show_default=True, type=click.IntRange(min=20), help="Of a client, measured.")
@click.option("--history", default=100, show_default=True, type=click.IntRange(min=1), help="Published rounds before.")
@click.option("--history-claims", default=200, show_default=True, help="Of a client in each of those rounds.")
@click.option("--database", help="URL of an empty PostgreSQL database; default: SQLite in a temporary folder.")
def main(clients: int, claims: int, history: int, history_claims: int, database: str | None) -> None:
    """Measures one round at the federation's beginning, and one after the history."""
    found: dict[str, Any] = {"clients": clients, "claims": claims, "history": history, "history_claims": history_claims}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(database or sqlite_url(Path(folder) / "db.sqlite"), clients)
        start = peak()
        bench.play(1, batches(clients, claims, []))
        without, bench.times = summary(bench.times), {}
        found["memory_mib"] = peak() - start
        bench.store.close()
        (Path(folder) / "db.sqlite").unlink(missing_ok=True)
        bench = _emptied(database, Path(folder), clients)
        began = time.perf_counter()
        last = bench.fill(history, history_claims)
        click.echo(f"history written in {time.perf_counter() - began:.0f} s", err=True)
        bench.seen = max(bench.store.newest_verdicts().values())
        bench.play(history + 1, batches(clients, claims, last))
        after = summary(bench.times)
        bench.store.close()
        found["database_mib"] = sum(each.stat().st_size for each in Path(folder).glob("db*")) / (1 << 20)
    click.echo(f"{'milliseconds':34} {'no history':>10} {'after':>10}", err=True)
    show(without, after)
    click.echo(json.dumps({**found, "first": without, "after": after}))


def _emptied(database: str | None, folder: Path, clients: int) -> Bench:
    """A store without rows again."""
    bench = Bench(database or sqlite_url(folder / "db-after.sqlite"), clients)
    if database:
        writer = writer_of(bench.engine)
        with writer.begin() as connection:
            filled = [each.name for each in tables.METADATA.sorted_tables if each is not tables.REVISION]
            connection.exec_driver_sql(f"TRUNCATE {', '.join(filled)}")
        writer.dispose()
    return bench


if __name__ == "__main__":
    main()
