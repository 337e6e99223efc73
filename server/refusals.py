"""What the server answers when it refuses a call: a gRPC status, a name for programs, a line for people.

`status` is the name of a `grpc.StatusCode`; `name` goes into the trailing metadata `collabedit-error` (empty: none).
The table of both is in federation.proto.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from collabedit.common.errors import CollabEditError, ContributionError, ExitCode


class Refusal(CollabEditError):  # noqa: N818 - it is an answer
    """A call that the server does not carry out; nothing has changed."""

    exit_code = ExitCode.ROUND_FAILED
    status: ClassVar[str] = "FAILED_PRECONDITION"
    name: ClassVar[str] = ""


class VersionRefusal(Refusal):
    """No protocol version in common."""

    name = "version"


class FingerprintRefusal(Refusal):
    """The model's or the covariance's fingerprint differs."""

    name = "fingerprint"


class FederationRefusal(Refusal):
    """The client's state belongs to another federation."""

    name = "federation"


class StaleRoundRefusal(Refusal):
    """The round, attempt or layer named is not the one under way."""

    name = "stale-round"


class StaleVersionRefusal(Refusal):
    """The client's weights are not the version that the round stands on."""

    name = "stale-version"


class CountedRefusal(Refusal):
    """Another contribution of the client counts already."""

    name = "counted"


class SupersededRefusal(Refusal):
    """Another process of the same client has joined since."""

    name = "superseded"


class FederationKeyRefusal(Refusal):
    """The client blinds its claims under another federation key than the others, or under none."""

    name = "federation-key"


class DamagedRefusal(Refusal):
    """What the call needs is damaged on the server's disk."""

    status = "DATA_LOSS"
    name = "damaged"


class StorageRefusal(Refusal):
    """The server's database takes or gives nothing at present: a full disk, a server of its own that is away."""

    status = "RESOURCE_EXHAUSTED"
    name = "storage"

    def __init__(self) -> None:
        super().__init__("the server cannot read or write its state at present; its log says why, and nothing is lost")


class StoppingRefusal(Refusal):
    """The server has been told to stop and takes no more calls; the same call is answered when it is back."""

    status = "UNAVAILABLE"
    name = "stopping"

    def __init__(self) -> None:
        super().__init__("the server is stopping; when it is started again the round goes on where it is")


class RoleRefusal(Refusal):
    """The caller's role does not allow the call."""

    status = "PERMISSION_DENIED"
    name = "role"


class BadRequestRefusal(Refusal):
    """A request that says nothing the server could do."""

    status = "INVALID_ARGUMENT"


class NotFoundRefusal(Refusal):
    """What the call names is not there."""

    status = "NOT_FOUND"


def check_whole(version: int, lacking: Sequence[str]) -> None:
    """Raises DamagedRefusal where weights of a version are `lacking`."""
    if lacking:
        what = f"version {version} is damaged on the server's disk: {', '.join(lacking)}"
        raise DamagedRefusal(what, mend="its operator runs `collab doctor`, and `collab restore` or `collab rollback`")


def status_of(error: Exception) -> tuple[str | None, str]:
    """The gRPC status and the name for the trailing metadata; no status for what is not the caller's business."""
    if isinstance(error, ContributionError):
        return "INVALID_ARGUMENT", "contribution"
    return (error.status, error.name) if isinstance(error, Refusal) else (None, "")


def no_version(number: int, pruned: bool) -> NotFoundRefusal:
    """Nothing was published as version `number`, or it was `pruned` since."""
    if pruned:
        what = f"version {number} was pruned: the server keeps the newest versions alone (--keep-versions)"
        return NotFoundRefusal(what, mend="`collab rounds` lists those that are kept; a backup may hold it")
    return NotFoundRefusal(f"no version {number}", mend="`collab rounds` lists those that were published")


def no_conflict() -> NotFoundRefusal:
    """Nobody contradicts anybody about the slot named."""
    return NotFoundRefusal("no conflict about that slot", mend="`collab conflicts` lists those that were found")
