"""The federation's calls as this client makes them: protocol messages in here, values outside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from uuid import uuid4

from pydantic import ValidationError

from collabedit.client.connection import CALL_SECONDS, Connection
from collabedit.client.edit_life import VerdictKind
from collabedit.client.snapshot import LayerVersion, Membership, Outcome, Phase, Snapshot, Verdict, Version, reasons
from collabedit.common.blinding import Claim
from collabedit.common.errors import MismatchError
from collabedit.common.settings import PROTOCOL_VERSIONS, FederationSettings
from collabedit.v1 import federation_pb2 as pb
from collabedit.v1 import federation_pb2_grpc as rpc

CHECKING_SECONDS: Final = 600.0  # the server reads a contribution through before it answers


def _layers(merged: Iterable[pb.LayerWeights]) -> tuple[LayerVersion, ...]:
    return tuple(LayerVersion(each.weight, each.digest, tuple(each.kkt_digests), each.kkt_withheld) for each in merged)


def _snapshot(state: pb.RoundState) -> Snapshot:
    """Raises MismatchError for a phase or status that this release does not know."""
    try:
        phase, member = Phase(state.phase), Membership(state.member or Membership.ABSENT.value)
    except ValueError as error:
        raise MismatchError(
            f"the server speaks of a round in a way unknown here: {error}", mend="update collabedit"
        ) from error
    return Snapshot(
        round=state.round,
        phase=phase,
        revision=state.revision,
        base_version=state.base_version,
        member=member,
        attempt=state.attempt,
        layer=state.layer,
        merged=_layers(state.merged),
        member_reason=state.member_reason,
        members=state.members,
        contributed=state.contributed,
        quorum=state.quorum,
        seconds_left=state.seconds_left,
        reason=state.reason,
        latest_version=state.latest_version,
        settled=state.settled,
        newest_verdict=state.newest_verdict,
    )


def _claims(claims: Iterable[Claim]) -> list[pb.Claim]:
    return [pb.Claim(slot=each.slot, fact=each.fact) for each in claims]


def _verdict(said: pb.Verdict) -> Verdict:
    """Raises MismatchError for a kind that this release does not know."""
    try:
        kind = VerdictKind(said.kind)
    except ValueError as error:
        raise MismatchError(f"the server gives a verdict unknown here: {error}", mend="update collabedit") from error
    return Verdict(said.number, said.round, Claim(said.claim.slot, said.claim.fact), kind, said.policy)


def _settings(text: str) -> FederationSettings:
    try:
        return FederationSettings.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MismatchError(
            f"the federation's settings: {where}: {first['msg']}", mend="the server runs another release: use the same"
        ) from error


class Federation:
    """One server, as `Connection.call` reaches it: errors are CollabEditError, a server that is away is waited out for
    `patience` seconds.
    """

    def __init__(self, connection: Connection, *, patience: float) -> None:
        self.connection = connection
        self.patience = patience
        self._instance = uuid4().hex  # of this process

    # Made anew for each call: a renewed certificate brings a new channel.
    @property
    def _rounds(self) -> rpc.FederationStub:
        return rpc.FederationStub(self.connection.channel)

    @property
    def _operations(self) -> rpc.OperationsStub:
        return rpc.OperationsStub(self.connection.channel)

    def settings(self, *, patience: float) -> FederationSettings:
        """The federation's settings, before joining it: they say which model to fingerprint."""
        reply = self.connection.call(self._operations.GetStatus, pb.GetStatusRequest(), patience=patience)
        return _settings(reply.settings_json)

    def join(
        self, model_fingerprint: str, covariance_fingerprint: str, federation: str, key_check: str = ""
    ) -> Snapshot:
        """The handshake. key_check: of the federation key, "" without one.

        Raises MismatchError for a fingerprint, federation, federation key or protocol version that differs.
        """
        request = pb.JoinRequest(
            protocol_versions=PROTOCOL_VERSIONS,
            model_fingerprint=model_fingerprint,
            covariance_fingerprint=covariance_fingerprint,
            federation=federation,
            instance=self._instance,
            key_check=key_check,
        )
        reply = self.connection.call(self._rounds.Join, request, patience=self.patience)
        if reply.protocol_version not in PROTOCOL_VERSIONS:
            ours = ", ".join(map(str, PROTOCOL_VERSIONS))
            raise MismatchError(
                f"the server answers in protocol version {reply.protocol_version}; this client speaks {ours}",
                mend="update the client: pip install --upgrade collabedit",
            )
        return _snapshot(reply.round)

    def await_change(self, revision: int, seconds: int) -> Snapshot:
        """The round once its revision exceeds `revision`, or as it is after `seconds`; one try."""
        request = pb.AwaitRequest(revision=revision, timeout_seconds=seconds, instance=self._instance)
        return _snapshot(self.connection.call(self._rounds.Await, request, timeout=seconds + CALL_SECONDS, patience=0))

    def now(self) -> Snapshot:
        """The round under way, at once."""
        reply = self.connection.call(self._operations.GetStatus, pb.GetStatusRequest(), patience=self.patience)
        return _snapshot(reply.round)

    def enter(
        self, round_: int, base_version: int, edits: int, claims: Sequence[Claim] = (), key_check: str = ""
    ) -> Snapshot:
        """Takes part in a round; claims: of its edits. Raises StaleRoundError, StaleVersionError."""
        request = pb.EnterRequest(
            round=round_,
            base_version=base_version,
            edits=edits,
            instance=self._instance,
            claims=_claims(claims),
            key_check=key_check,
        )
        return _snapshot(self.connection.call(self._rounds.Enter, request, patience=self.patience))

    def report(
        self, round_: int, version: int, retained: tuple[int, int], failed: Sequence[Claim] = (), key_check: str = ""
    ) -> Snapshot:
        """Says how merged edits do on the version that a round stands on. Raises StaleRoundError while it is merged.

        retained: how many were looked at, and how many of them hold; failed: claims of those that did not take.
        """
        tested, held = retained
        request = pb.ReportRequest(
            round=round_,
            version=version,
            tested=tested,
            held=held,
            failed=_claims(failed),
            instance=self._instance,
            key_check=key_check,
        )
        return _snapshot(self.connection.call(self._rounds.Report, request, patience=self.patience))

    def verdicts(self, after: int) -> list[Verdict]:
        """What was decided about our claims since the verdict numbered `after`, in order.

        A server tells as many as fit into a message: it is asked until no more come.
        """
        found: list[Verdict] = []
        while True:
            last = found[-1].number if found else after
            request = pb.ListVerdictsRequest(after=last)
            reply = self.connection.call(self._rounds.ListVerdicts, request, patience=self.patience)
            new = [_verdict(each) for each in reply.verdicts if each.number > last]
            if not new:
                return found
            found += new

    def contribute(self, round_: int, attempt: int, layer: int, digest: str) -> Snapshot:
        """Counts an uploaded file. Raises StaleRoundError, ContributionError."""
        request = pb.ContributeRequest(
            round=round_, attempt=attempt, layer=layer, digest=digest, instance=self._instance
        )
        return _snapshot(
            self.connection.call(self._rounds.Contribute, request, timeout=CHECKING_SECONDS, patience=self.patience)
        )

    def leave(self, round_: int, reason: str) -> Snapshot:
        """Withdraws from a round. `reason` is kept by the server: no word of an edit may be in it."""
        request = pb.LeaveRequest(round=round_, reason=reason, instance=self._instance)
        return _snapshot(
            self.connection.call(self._rounds.Leave, request, timeout=CHECKING_SECONDS, patience=self.patience)
        )

    def version(self, number: int) -> Version:
        """Where the weights of a published version are."""
        if number == 0:
            return Version(0)
        reply = self.connection.call(
            self._rounds.GetVersion, pb.GetVersionRequest(version=number), patience=self.patience
        )
        return Version(reply.version, _layers(reply.layers))

    def outcome(self, round_: int) -> Outcome | None:
        """How a past round ended for this client; None where the server does not know the round, or it goes on."""
        reply = self.connection.call(self._operations.ListRounds, pb.ListRoundsRequest(), patience=self.patience)
        record = next((each for each in reply.rounds if each.round == round_), None)
        if record is None or not record.ended_ms:
            return None
        # A client is shown itself alone.
        status, reason = next(((each.status, each.reason) for each in record.members), (Membership.ABSENT.value, ""))
        return Outcome(round_, Phase(record.phase), Membership(status), record.version, reasons(record.reason, reason))
