"""What the server's log says of a change of the round, and of what was settled by it."""

from __future__ import annotations

from collections import Counter

import structlog

from collabedit.server.claims import Kind
from collabedit.server.events import Event
from collabedit.server.rounds import Round, told_and_gone

LOG = structlog.get_logger()


def log_change(event: Event, before: Round, changed: Round) -> None:
    """A line of the event; where it gave verdicts a second one, and a warning where an admin is to decide.

    Counts alone: whose edits meet is for `collab conflicts`. A warning, too, of who was told and is out with nothing
    contributed: one that guesses looks so.
    """
    LOG.info(
        "round",
        number=changed.number,
        what=type(event).__name__,
        phase=changed.phase.value,
        attempt=changed.attempt,
        layer=changed.layer,
    )
    for client, verdicts in told_and_gone({each.client: each.status for each in before.members}, changed).items():
        LOG.warning("told and gone", round=changed.number, client=client, verdicts=verdicts)
    given = changed.verdicts[len(before.verdicts) :]
    if not given:
        return
    counts = Counter(each.kind.value for each in given)
    LOG.info("settled", round=changed.number, policy=", ".join(sorted({each.policy for each in given})), **counts)
    undecided = {each.claim.slot for each in given if each.kind is Kind.UNDECIDED}
    if undecided:
        LOG.warning("conflicts undecided", round=changed.number, conflicts=len(undecided))
