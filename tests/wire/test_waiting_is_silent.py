"""A command that waits for its server: what it prints is the answer alone."""

from __future__ import annotations

import pytest

from collabedit.client.connection import connect
from collabedit.common.errors import UnreachableError


def test_a_call_that_is_repeated_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Neither among the JSON on standard output nor beside it: who waits is told by the caller, in a line of ours."""
    tries = iter((UnreachableError("away"), None))

    def act() -> str:
        if error := next(tries):
            raise error
        return "answer"

    with connect("localhost:1", None, client_id="ada") as connection:
        assert connection.patiently(act, patience=5) == "answer"
    assert capfd.readouterr() == ("", "")
