"""A client process that stands still in the middle of a round, as a laptop does whose lid is closed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # two entry windows, and the silence after which a party is lost


def test_a_stopped_client_is_left_behind_and_comes_back(host, tools, tmp_path: Path) -> None:
    """SIGSTOP between two layers: the others end the round without it. SIGCONT: it enters the next one by itself.

    The entry window is long enough for all three to enter under load; the first layer closes at its end.
    """
    server, address = host.server("--quorum", "2", "--entry-window", "5", "--liveness", "4")
    files = {
        name: tools.write_edits(tmp_path / f"{name}.jsonl", tools.facts(8 * number, 8))
        for number, name in enumerate(("ada", "bob", "cyd"))
    }
    ada = host.client("ada", address, files["ada"], *tools.ONE_AT_A_TIME)
    server.wait_for("what=Enter")
    others = [tools.in_process(host, name, address, files[name]) for name in ("bob", "cyd")]
    server.wait_for("layer=1")
    ada.popen.send_signal(signal.SIGSTOP)
    assert [each.end()["merged"] for each in others] == [8, 8]
    with tools.observing(address, tmp_path) as observer:
        first = observer.digests(1)
        ada.popen.send_signal(signal.SIGCONT)
        ada.wait_for("not heard of for 4 s")
        server.wait_for("number=2 phase=open what=Enter")
        dan = tools.in_process(host, "dan", address, tools.write_edits(tmp_path / "dan.jsonl", tools.facts(8, 8)))
        assert dan.end()["merged"] == 8
        ada.wait_for("round 2 published as version 2: 8 of 8 edits merged")
        assert observer.digests(2) != first
