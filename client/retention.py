"""Merged edits while the model is edited on: which of them are looked at again, and which are forgotten. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Retention:
    """How merged edits do on one version. held: their figures by key, of those that hold; forgotten: the others'."""

    held: Mapping[str, Mapping[str, Any]]
    forgotten: Mapping[str, Mapping[str, Any]]

    @property
    def tested(self) -> int:
        """How many were looked at."""
        return len(self.held) + len(self.forgotten)


def sample(keys: Iterable[str], version: int, most: int) -> frozenset[str]:
    """At most `most` of the keys: the same ones for the same version, whatever their order, and others for the next.

    Each key has the same chance, so the sample's rate is an unbiased estimate of all edits' rate.
    """

    def rank(key: str) -> bytes:
        return hashlib.sha256(f"{version}:{key}".encode()).digest()

    return frozenset(sorted(keys, key=rank)[:most])


def judged(figures: Mapping[str, Mapping[str, Any]]) -> Retention:
    """The edits of a sample by whether they still took; figures: `client.report.verdict` of each, by key."""
    held = {key: each for key, each in figures.items() if each["took"]}
    return Retention(held, {key: each for key, each in figures.items() if key not in held})
