"""Claims and verdicts between messages and values, and whose federation key they are blinded under."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Final

from collabedit.common.blinding import Claim
from collabedit.common.settings import Detection
from collabedit.server.claims import MOST_CLAIMS, Kind
from collabedit.server.refusals import BadRequestRefusal, FederationKeyRefusal
from collabedit.server.store import Given, Store
from collabedit.v1 import federation_pb2 as pb

NAME_BYTES: Final = 32
VERDICTS_AT_ONCE: Final = 20_000
CHECK: Final = re.compile(r"[1-9][0-9]{0,8}:[0-9a-f]{32}")
KINDS: Final = {kind: f"VERDICT_KIND_{kind.name}" for kind in Kind}
OPEN: Final = "open what another party has sealed for you (collab pki federation-key open), and start the client again"


def claims_of(claims: Sequence[pb.Claim], at_most: int) -> tuple[Claim, ...]:
    """The claims of a message. Raises BadRequestRefusal for more than `at_most`, or names of other than 32 bytes."""
    most = min(at_most, MOST_CLAIMS)
    if len(claims) > most:
        raise BadRequestRefusal(f"{len(claims)} claims where there can be {most}", mend="one for each edit")
    found = tuple(Claim(each.slot, each.fact) for each in claims)
    if any(len(each.slot) != NAME_BYTES or len(each.fact) != NAME_BYTES for each in found):
        raise BadRequestRefusal(f"a claim's names have {NAME_BYTES} bytes each")
    return found


def claim_message(claim: Claim) -> pb.Claim:
    """A claim as a message."""
    return pb.Claim(slot=claim.slot, fact=claim.fact)


def verdict_message(given: Given) -> pb.Verdict:
    """A verdict as its client is told: without the other party."""
    said = given.verdict
    claim = claim_message(said.claim)
    return pb.Verdict(
        number=given.number, round=given.round, claim=claim, kind=KINDS[said.kind], policy=said.policy
    )  # fmt: skip


def check_key_check(check: str) -> str:
    """Returns it; raises BadRequestRefusal for what is no federation key's check."""
    if not CHECK.fullmatch(check):
        raise BadRequestRefusal(
            f'"{check[:64]}" is no check of a federation key',
            mend="take what `collab pki federation-key show` prints at a party",
        )
    return check


class KeyChecks:
    """Compares which federation key clients blind their claims under: the first that tells fixes it."""

    def __init__(self, detection: Detection, store: Store) -> None:
        self._needed = detection != "off"
        self._store = store

    async def compare(self, client: str, check: str, *, told: bool) -> None:
        """told: whether it has to be. Raises FederationKeyRefusal, BadRequestRefusal."""
        if not self._needed or not (told or check):
            return
        if not check:
            raise FederationKeyRefusal(f"{client} has no federation key, and this federation needs one", mend=OPEN)
        check_key_check(check)
        pinned = await asyncio.to_thread(self._store.key_check)
        pinned = pinned or await asyncio.to_thread(self._store.pin_key_check, check)
        if check != pinned:
            what = f"{client} has federation key {check}, the others have {pinned}"
            mend = f"{OPEN}; if {check} is the right one, an admin runs collab pki federation-key announce {check}"
            raise FederationKeyRefusal(what, mend=mend)
