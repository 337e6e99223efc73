"""What a change of a round says in the audit log. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from collabedit.server.audit import SERVER, Entry, entry
from collabedit.server.claims import Kind, Verdict
from collabedit.server.rounds import Phase, Round, Status, told_and_gone

ENDS = {Phase.PUBLISHED: "publish", Phase.NO_QUORUM: "no quorum", Phase.ABORTED: "abort"}


def entries_of(
    before: Phase | None, counted: Mapping[str, str], now: Round, at: float, verdicts: Sequence[Verdict] = ()
) -> list[Entry]:
    """Contributions that count from now on, verdicts that are new, and the round's end.

    before: the phase that was recorded, None for a new round. counted: digests that counted already for the attempt and
    layer under way, by client. at: Unix seconds.
    """
    where = f"round {now.number} attempt {now.attempt} layer {now.layer}"
    new = [each for each in now.members if each.digest and counted.get(each.client) != each.digest]
    entries = [entry(at, each.client, "client", "contribute", f"{where} {each.digest}") for each in new]
    entries += settled(now, at, verdicts)
    if now.phase in ENDS and before is not now.phase:
        entries.append(entry(at, SERVER, SERVER, "roll back" if _restores(now) else ENDS[now.phase], _end(now)))
    return entries


def settled(now: Round, at: float, verdicts: Sequence[Verdict]) -> list[Entry]:
    """Verdicts that were given in a round, counted; nothing where there are none."""
    return [entry(at, SERVER, SERVER, "settle", f"round {now.number}: {_counts(verdicts)}")] if verdicts else []


def gone(was: Mapping[str, Status], now: Round, at: float) -> list[Entry]:
    """Members that are out since, were told what others edit and contributed nothing. was: statuses before."""
    said = f"round {now.number}: contributed nothing, was told of others' edits by verdicts on"
    return [
        entry(at, client, "client", "told and gone", f"{said} {verdicts} of its claims")
        for client, verdicts in told_and_gone(was, now).items()
    ]


def _counts(verdicts: Sequence[Verdict]) -> str:
    """How many edits of each kind; which facts they are the log need not tell."""
    kinds = Counter(each.kind for each in verdicts)
    said = (f"{kinds[each]} {each.value}" for each in Kind if kinds[each])
    return ", ".join(said) + f" by {', '.join(sorted({each.policy for each in verdicts}))}"


def _restores(now: Round) -> bool:
    return now.phase is Phase.PUBLISHED and now.restores is not None


def _end(now: Round) -> str:
    version = f" version {now.version}" if now.version is not None else ""
    restored = f" restores {now.restores}" if _restores(now) else ""
    members = ", ".join(each.client for each in now.contributed) if now.phase is Phase.PUBLISHED else ""
    return f"round {now.number}{version}{restored}" + (f": {now.reason or members}" if now.reason or members else "")
