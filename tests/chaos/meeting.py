"""Sides on which edits meet: claims, reports, an admin's decisions; who is killed is the server, or a real client."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final

from federation import KEY, MODEL, PATIENCE, Light, Server, copied, sent_bytes
from ground import FLAGS, LIGHTS, LIMIT, REAL, Ground, HungError, Layers, Outcome, collab, killed, told, until

from collabedit.client.connection import connect
from collabedit.client.federation import Federation
from collabedit.client.federation_key import HeldKey, save
from collabedit.client.ledger_view import ledger_object
from collabedit.client.snapshot import Membership, Phase
from collabedit.client.snapshot import Outcome as Ended
from collabedit.client.state import ClientState
from collabedit.client.state_folder import StateFolder
from collabedit.common.blinding import Claim
from collabedit.common.edits import Edit, Parsed
from collabedit.common.model_folder import find_model
from collabedit.experiments.bundled import party_edits

BEFORE: Final = ("--detection", "pre-merge")
AFTER: Final = ("--detection", "on-failure")
KINDS: Final = {
    "claims": BEFORE,
    "reports": AFTER,
    "decisions": (*BEFORE, "--conflict-policy", "manual", "--schedule", "one-shot"),
    "claims-client": (*BEFORE, "--quorum", "3"),
    "reports-client": (*AFTER, "--quorum", "3"),
}
SLOT: Final = b"s" * 32
MEETING: Final = {
    "arosa": (Claim(SLOT, b"x" * 32), Claim(b"t" * 32, b"z" * 32)),
    "bern": (Claim(SLOT, b"y" * 32), Claim(b"t" * 32, b"z" * 32)),
}
EDITS: Final = 10  # of the real client; and a fact that the model knows
FEW: Final = 60  # edits of a light party: its uploads are no concern here
TRIES: Final = 10  # of an admin, whose command gives a server half a minute to come back


def another(edit: Edit) -> Claim:
    """The claim of a party that says otherwise."""
    return KEY.claim(edit.model_copy(update={"target_new": f"not {edit.target_new}"}))


def ledger_of(state: Path) -> Layers:
    """What a client's ledger says, but for when anything was, as something to compare."""
    said = ledger_object(StateFolder(state).ledger)
    with ClientState(StateFolder(state).ledger) as held:
        place = [held.heeded, held.reported, *held.residual_history()]
    lines: list[tuple[str, str]] = [("place", json.dumps([said["round"], *place]))]
    for edit in said.pop("edits"):
        for event in edit["life"]:
            del event["at"]
        lines.append((f"edit {edit['line']}", json.dumps(edit)))
    lines += [(name, json.dumps(said[name])) for name in ("counts", "rounds", "retention")]
    return [("ledger", name, (text,)) for name, text in lines]


class Meeting(Ground):
    """The ground, with the sides on which edits meet. Only their commits are walked: nothing else of them lasts, and
    the files of a round are the other sides' concern.
    """

    begun: ClassVar[frozenset[str]] = Ground.begun | {"reports", "reports-client"}
    mine: tuple[Edit, ...]

    def make(self, sides: Sequence[str]) -> None:
        """Also federations of which parties' edits meet, each side's its own."""
        super().make(sides)
        first, second, *_ = party_edits(find_model(MODEL), 3)
        known = second[0].model_copy(update={"target_new": second[0].target_true, "target_true": None})
        self.mine = (*first[:EDITS], known)
        self._edits.write_text("".join(each.model_dump_json() + "\n" for each in self.mine))
        for kind in [each for each in KINDS if each in sides]:
            self._found(kind, MODEL, (*LIGHTS, REAL) if kind.endswith("client") else LIGHTS)
            if kind.endswith("client"):
                self._equip(kind)

    @property
    def _edits(self) -> Path:
        return self.template / "meeting.jsonl"

    def _equip(self, kind: str) -> None:
        """Gives the real client its key and, where the first round has been played under its name, the ledger that it
        would have: its edits are merged, and not scored yet. The weights hold none of them.
        """
        folder = StateFolder(self.template / kind / REAL)
        folder.make()
        save(folder.path, HeldKey(KEY, ""))
        if kind in self.begun:
            with ClientState(folder.ledger) as state:
                state.take_in(Parsed(self.mine[:EDITS], tuple(range(1, EDITS + 1)), ()))
                state.enter(1)
                state.settle(Ended(1, Phase.PUBLISHED, Membership.CONTRIBUTED, 1))

    def flags(self, kind: str) -> tuple[str, ...]:
        """A server's flags, in federations of a kind."""
        return (*FLAGS, *KINDS.get(kind, ()))

    def walked(self, side: str) -> list[str]:
        """Of a side on which edits meet, the commits."""
        every = super().walked(side)
        return [each for each in every if side not in KINDS or each.startswith("commit/")]

    def lights(self, folder: Path, kind: str, names: Sequence[str] = LIGHTS) -> list[Light]:
        """Light parties; where their edits meet those of others, with their claims, in the order in which they enter.

        Where a real client takes part later, one with its name plays the first round.
        """
        if kind not in KINDS:
            return super().lights(folder, kind, names)
        claims = self._contrary(kind) if kind.endswith("client") else MEETING
        parties = super().lights(folder, kind, [*claims])
        return [replace(each, edits=FEW, claims=claims[each.name], place=at) for at, each in enumerate(parties)]

    def _contrary(self, kind: str) -> dict[str, tuple[Claim, ...]]:
        """Claims that meet those of the real client, whose place is the second.

        It is to yield its first edit, and its second is a duplicate; others it keeps. The third one is needed by
        reports, where nothing is said of parties that agree.
        """
        mine = self.mine
        arosa = (another(mine[0]), KEY.claim(mine[1]))
        if kind == "claims-client":
            return {"arosa": arosa, "bern": (another(mine[2]),)}
        bern = (another(mine[1]), *map(another, mine[2:8]))
        return {"arosa": arosa, REAL: (KEY.claim(mine[0]),), "bern": bern}

    # ------------------------------------------------------------------------------------------------ the sides

    def claims(self, folder: Path, point: str) -> Outcome:
        """A round whose parties' claims meet before it merges, the server killed."""
        return self._round(folder, point, "claims", 1)

    def reports(self, folder: Path, point: str) -> Outcome:
        """The second round, to which the parties report that edits failed which meet, the server killed."""
        return self._round(folder, point, "reports", 2)

    def decisions(self, folder: Path, point: str) -> Outcome:
        """Three rounds, between which an admin decides a conflict, and then otherwise; the server killed."""
        server = self._again(folder, "decisions", "enrolled").start(point)

        def play() -> Layers:
            said = self._played(server, folder, 1, "decisions")
            for version, keep in ((2, "arosa"), (3, "bern")):
                decided(server, keep)
                said += self._played(server, folder, version, "decisions")
            return said

        said = self._surviving(server, play)
        return killed(server.trace, point), said, self.counts.of(folder), server.trace

    def claims_client(self, folder: Path, point: str) -> Outcome:
        """A round whose parties' claims meet before it merges, a real client killed."""
        return self._between(folder, point, "claims-client", 1)

    def reports_client(self, folder: Path, point: str) -> Outcome:
        """A real client scores what the first round merged, reports, and writes in the second what it keeps; killed."""
        return self._between(folder, point, "reports-client", 2)

    def _between(self, folder: Path, point: str, kind: str, version: int) -> Outcome:
        """A real client in the round of light parties, which it enters when the others are in that come before it."""
        state = copied(self.template / kind / REAL, folder / REAL)
        server = self._again(folder, kind, "played" if version > 1 else "enrolled")
        arosa, bern = (each for each in self.lights(folder, kind) if each.name != REAL)
        bern.place = 1 if version > 1 else 2
        with ThreadPoolExecutor(2) as pool, server.start():
            until(lambda: server.listens, "the server's start")
            playing = [pool.submit(each.play, server.address, version) for each in (arosa, bern)]
            with connect(server.address, state / "credentials") as connection:
                rounds = Federation(connection, patience=PATIENCE)
                until(lambda: rounds.now().members >= version, "the others' entering")
                died, ended, trace = self._real(folder, point, server, state, self._edits, playing)
                layers = playing[0].result(LIMIT)
                assert playing[1].result(LIMIT) == layers
                given = [(REAL, rounds.verdicts(0)), *((each.name, each.verdicts) for each in (arosa, bern))]
        said = [line for name, verdicts in given for line in told(name, verdicts)]
        return died, [*layers, *said, *ledger_of(state), ("end", str(ended), ())], sent_bytes(trace), trace


def decided(server: Server, keep: str) -> None:
    """An admin keeps one party's edit; where the server dies meanwhile, the same command once more."""
    where = ("--server", server.address, "--state", str(server.state))
    command = ("conflicts", "decide", SLOT.hex(), "--keep", keep, *where)
    for _ in range(TRIES):
        with suppress(subprocess.CalledProcessError):
            collab(*command)
            return
    raise HungError(f"an admin's decision was refused {TRIES} times")
