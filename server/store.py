"""What the server remembers, as a contract that any engine can implement.

One suite of tests holds every implementation to it. Every method is one transaction: it has happened, durably, when
the method returns, or it has not happened at all; and done twice it has one effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from collabedit.server.audit import Entry, Head, Row
from collabedit.server.claims import Decision, Kind, Verdict
from collabedit.server.rounds import LayerWeights, Round


@dataclass(frozen=True)
class Client:
    """An enrolled party: its certificate's role and serial number (decimal), and when it was revoked, if it was.

    previous: the certificate that the last renewal took the place of; "": none.
    """

    id: str
    role: str
    serial: str
    enrolled: float
    revoked_at: float | None = None
    previous: str = ""

    @property
    def revoked(self) -> bool:
        """Its certificate counts no more."""
        return self.revoked_at is not None


@dataclass(frozen=True)
class Recorded:
    """A round as it was recorded, with the revision that recording it made."""

    round: Round
    revision: int


@dataclass(frozen=True)
class Given:
    """A verdict as it was recorded. number: grows with every verdict of the federation."""

    number: int
    round: int
    verdict: Verdict


@dataclass(frozen=True)
class Claimant:
    """A party to a conflict. kind: the last verdict on its claim; None: it goes on as it was."""

    client: str
    fact: bytes
    kind: Kind | None


@dataclass(frozen=True)
class Conflict:
    """A slot for which parties claimed different facts. round: in which it was found.

    claimants: in receipt order. kept: whose fact is, who may be away; "": undecided. policy: the one that decided last.
    """

    slot: bytes
    round: int
    claimants: tuple[Claimant, ...]
    kept: str
    policy: str

    @property
    def undecided(self) -> bool:
        """An admin has yet to decide."""
        return any(each.kind is Kind.UNDECIDED for each in self.claimants)


@dataclass(frozen=True)
class Retention:
    """The clients' last reports on one version, added up: edits scored, and those of them that hold."""

    version: int
    clients: int
    tested: int
    held: int


class Store(Protocol):
    """The server's memory. Methods block: an event loop calls them in a thread."""

    def federation(self) -> tuple[str, str] | None:
        """The federation's settings and where its files are, both JSON as given; None before the first start."""
        ...

    def found(self, settings: str, sources: str) -> None:
        """Fixes the federation's settings, once; later calls change only where its files are."""
        ...

    def record(self, round_: Round) -> int:
        """Writes the round as it now is, with all that is in it; returns the new revision.

        Numbers verdicts that are new. Where the round publishes a version, those whose edits it overwrites get theirs.
        """
        ...

    def round(self, number: int) -> Round | None:
        """The round of that number, as `rounds` tells it; None where there is none."""
        ...

    def latest_round(self) -> Recorded | None:
        """The round of the highest number; under way, with all that parties claimed and told in it."""
        ...

    def rounds(self, limit: int = 0) -> Sequence[Recorded]:
        """Rounds, newest first, without claims, reports, verdicts and decisions, which can be many; 0: all."""
        ...

    def contribution(self, round_: int, attempt: int, layer: int, client: str) -> str | None:
        """The digest that counts as a client's contribution to a layer, merged or not."""
        ...

    def latest_version(self) -> int:
        """The last published version; 0: the base model."""
        ...

    def version(self, number: int) -> Sequence[LayerWeights] | None:
        """The layers of a published version, in order; none for version 0; None where there is none or it is pruned."""
        ...

    def prune(self, keep: int) -> None:
        """Gives up all published versions but the newest `keep`, at least 1: no blob is needed for them. Noted."""
        ...

    def pruned(self) -> frozenset[int]:
        """The versions that were published and given up since."""
        ...

    def needed(self) -> frozenset[str]:
        """Digests of all blobs that a version that is not pruned, or the round under way in any attempt, rests on."""
        ...

    def contributions(self, round_: int) -> frozenset[str]:
        """Digests of everything that was ever contributed to a round."""
        ...

    def may_read(self, client: str, digest: str) -> bool:
        """Whether a blob is a merged layer's, or the client's own contribution."""
        ...

    def verdicts(self, client: str, after: int, limit: int) -> Sequence[Given]:
        """What was decided about a client's claims, in order, from the verdict after number `after` on."""
        ...

    def newest_verdicts(self) -> Mapping[str, int]:
        """The number of the newest verdict of each client that has any."""
        ...

    def conflicts(self, *, undecided: bool = False, limit: int = 0) -> Sequence[Conflict]:
        """Contradictions that were found, newest first; undecided: those that wait for an admin; 0: all."""
        ...

    def conflict(self, slot: bytes) -> Conflict | None:
        """The newest contradiction about a slot."""
        ...

    def decisions(self) -> Mapping[bytes, Decision]:
        """What admins have decided last, by slot."""
        ...

    def reported(self, client: str, round_: int) -> bool:
        """Whether the client has reported to a round."""
        ...

    def retention(self, limit: int = 0) -> Sequence[Retention]:
        """How much of what was merged holds, oldest version first; limit: newest versions, 0: all."""
        ...

    def key_check(self) -> str:
        """Which federation key claims are blinded under; "": nobody has told yet."""
        ...

    def pin_key_check(self, check: str, *, replace: bool = False) -> str:
        """Remembers which key it is, where none is known yet or `replace` says so; returns the one that counts."""
        ...

    # `noted`: what to write into the audit log, in the same transaction, where something changes by the call.

    def add_token(self, hash_: str, role: str, uses: int, expires: float, noted: Entry | None = None) -> None:
        """Remembers an enrolment token by its hash."""
        ...

    def token_role(self, hash_: str, now: float) -> str | None:
        """The role that a token gives, if it can be used at `now`; uses nothing up."""
        ...

    def use_token(self, hash_: str, now: float, noted: Entry | None = None) -> str | None:
        """Takes one use of a token and returns its role; None where it is unknown, used up or expired."""
        ...

    def enrol_client(self, hash_: str, id_: str, serial: str, now: float, noted: Sequence[Entry] = ()) -> str | None:
        """Takes one use of a token and remembers the client that it lets in, both or neither; returns its role.

        None, and nothing has changed, where the token is unknown, used up or expired.
        """
        ...

    def add_client(self, id_: str, role: str, serial: str, now: float, noted: Entry | None = None) -> None:
        """Remembers an enrolled client; enrolling again replaces the certificate and lifts a revocation."""
        ...

    def renew_client(self, id_: str, serial: str, previous: str, noted: Entry | None = None) -> None:
        """A client has a new certificate of its old key; the one it asked with, `previous`, stays good beside it."""
        ...

    def client(self, id_: str) -> Client | None:
        """An enrolled client by its id."""
        ...

    def clients(self) -> Sequence[Client]:
        """Every enrolled client, by id."""
        ...

    def revoke(self, id_: str, now: float, noted: Entry | None = None) -> bool:
        """Revokes every certificate of a name, seen before or not; whether it was. The first time counts."""
        ...

    def revoke_serial(self, serial: str, now: float, noted: Entry | None = None) -> str | None:
        """Revokes one certificate, seen before or not; the client that has it, where that is known."""
        ...

    def serial_revoked(self, serial: str) -> bool:
        """Whether a certificate has been revoked by its number."""
        ...

    def note(self, entries: Sequence[Entry]) -> None:
        """Writes entries into the audit log. What `record` changes is noted there by itself."""
        ...

    def audit(self, after: int, limit: int) -> Sequence[Row]:
        """Rows of the audit log in order, from the one after number `after` on."""
        ...

    def audit_head(self) -> Head:
        """The end of the audit log."""
        ...

    def stamped(self, what: str, stamp: str) -> str | None:
        """What `stamp` found when something (`what`) had this stamp."""
        ...

    def stamp(self, what: str, stamp: str, value: str) -> None:
        """Remembers a value for something in the state that `stamp` tells."""
        ...

    def close(self) -> None:
        """Lets go of the database."""
        ...
