"""What a client does where the server's disk has lost something, or keeps it no longer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from collabedit.client.decide import Act, Action
from collabedit.client.editing_steps import EditingSteps
from collabedit.client.equipment import Course, WorldMovedError
from collabedit.client.snapshot import LayerVersion, Membership, Phase, Snapshot, Version
from collabedit.common.errors import BadFileError


def test_a_contribution_that_the_server_lost_is_sent_again(host, tools, model: Path, tmp_path: Path) -> None:
    """Nobody has to do anything: the client uploads the same file once more, and its edits are merged."""
    server, address = host.server("--entry-window", "0")
    file = tools.write_edits(tmp_path / "ada.jsonl", tools.facts(0, 8))
    with tools.observing(address, tmp_path, "slow") as slow:
        slow.federation.join(*tools.handshake(model))
        slow.federation.enter(1, 0, 8)  # who holds the merge up
        ada = tools.in_process(host, "ada", address, file)
        server.wait_for("what=Contribute")
        for blob in (tmp_path / "ada" / "outbox").iterdir():
            with next((tmp_path / "server" / "blobs" / "whole").rglob(blob.name)).open("r+b") as handle:
                handle.write(b"\xff")
        slow.federation.leave(1, "no time")
    assert ada.end()["merged"] == 8
    server.wait_for("contributions are asked for again")
    assert ada.said.count("layer 1 of 3 sent") == 2
    assert ada.said.count("layer 2 of 3 sent") == 1


LAYER = LayerVersion("a", "d", (), False)
SEEN = Snapshot(1, Phase.COLLECTING, 5, 3, Membership.ENTERED, 0, 1, (LAYER,))


@pytest.mark.parametrize(
    ("action", "later", "overtaken"),
    [
        (Action(Act.CATCH_UP, 3), {}, False),
        (Action(Act.CATCH_UP, 3), {"round": 2, "base_version": 4}, True),
        (Action(Act.APPLY, 0), {}, False),
        (Action(Act.APPLY, 0), {"attempt": 1, "merged": ()}, True),
    ],
)
def test_what_is_kept_no_longer_is_given_up_where_the_round_has_gone_on(action, later, overtaken) -> None:
    """A version may be pruned while a slow client reads it: it goes on with the newer one. Else it is a fault."""
    from dataclasses import replace

    def gone(_):
        raise BadFileError("no blob d")

    known = [SEEN]
    tools = SimpleNamespace(
        news=SimpleNamespace(latest=lambda: known[-1], give=known.append),
        federation=SimpleNamespace(version=Version, now=lambda: replace(SEEN, revision=6, **later)),
        model=SimpleNamespace(base=Version(0), catch_up=gone, apply=gone),
        state=SimpleNamespace(round=1),
    )
    steps = EditingSteps(tools, Course(), withdraw=gone)
    doing = {Act.CATCH_UP: steps.catch_up, Act.APPLY: steps.apply}[action.act]
    with pytest.raises(WorldMovedError if overtaken else BadFileError):
        doing(action.subject)
