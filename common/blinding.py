"""Blinded names of edits: equal for equal facts under one key, and nothing else can be told from them. Pure.

The clients share the key and the server never has it (algorithm.md section 7: HMAC-SHA-256 over the canonical subject
and relation, and a second one over subject, relation and object).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import unicodedata
from dataclasses import dataclass, field
from typing import Final

from collabedit.common.edits import Edit
from collabedit.common.errors import IdentityError

KEY_BYTES: Final = 32
CHECK_BYTES: Final = 16


@dataclass(frozen=True, order=True)
class Claim:
    """What one edit is about, blinded: `slot` of subject and relation, `fact` of the object too. 32 bytes each."""

    slot: bytes
    fact: bytes


@dataclass(frozen=True)
class FederationKey:
    """What the clients blind their claims under. epoch: grows with each rotation, from 1. secret: 32 bytes."""

    epoch: int
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if self.epoch < 1 or len(self.secret) != KEY_BYTES:
            raise IdentityError("not a federation key", mend="ask another party for it: collab pki federation-key seal")

    @property
    def check(self) -> str:
        """`epoch:…`, by which the server tells that all parties have the same key; the key cannot be told from it."""
        return f"{self.epoch}:{self._digest('check', str(self.epoch))[:CHECK_BYTES].hex()}"

    def claim(self, edit: Edit) -> Claim:
        """The blinded names of an edit."""
        about = (canonical(edit.subject), relation_of(edit))
        return Claim(self._digest("slot", *about), self._digest("fact", *about, canonical(edit.target_new)))

    def _digest(self, kind: str, *said: str) -> bytes:
        """No two lists of texts have the same bytes as JSON, so none can pass for another."""
        return hmac.new(self.secret, json.dumps([kind, *said]).encode(), hashlib.sha256).digest()


def canonical(text: str) -> str:
    """The same for texts that differ in case, in the form of their Unicode or in white space alone."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())  # folding takes ΐ apart, and leaves Ϊ́ as it is


def relation_of(edit: Edit) -> str:
    """The edit's relation: its `relation_id`, or else its prompt, by which parties meet where they word it alike."""
    return canonical(edit.relation_id) if edit.relation_id else canonical(edit.prompt)
