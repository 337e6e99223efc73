from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PHASE_UNSPECIFIED: _ClassVar[Phase]
    PHASE_OPEN: _ClassVar[Phase]
    PHASE_COLLECTING: _ClassVar[Phase]
    PHASE_MERGING: _ClassVar[Phase]
    PHASE_PUBLISHED: _ClassVar[Phase]
    PHASE_NO_QUORUM: _ClassVar[Phase]
    PHASE_ABORTED: _ClassVar[Phase]

class MemberStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMBER_STATUS_UNSPECIFIED: _ClassVar[MemberStatus]
    MEMBER_STATUS_ABSENT: _ClassVar[MemberStatus]
    MEMBER_STATUS_ENTERED: _ClassVar[MemberStatus]
    MEMBER_STATUS_CONTRIBUTED: _ClassVar[MemberStatus]
    MEMBER_STATUS_OUT: _ClassVar[MemberStatus]

class VerdictKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_KIND_UNSPECIFIED: _ClassVar[VerdictKind]
    VERDICT_KIND_KEEP: _ClassVar[VerdictKind]
    VERDICT_KIND_YIELD: _ClassVar[VerdictKind]
    VERDICT_KIND_DUPLICATE: _ClassVar[VerdictKind]
    VERDICT_KIND_UNDECIDED: _ClassVar[VerdictKind]
    VERDICT_KIND_OVERWRITTEN: _ClassVar[VerdictKind]
PHASE_UNSPECIFIED: Phase
PHASE_OPEN: Phase
PHASE_COLLECTING: Phase
PHASE_MERGING: Phase
PHASE_PUBLISHED: Phase
PHASE_NO_QUORUM: Phase
PHASE_ABORTED: Phase
MEMBER_STATUS_UNSPECIFIED: MemberStatus
MEMBER_STATUS_ABSENT: MemberStatus
MEMBER_STATUS_ENTERED: MemberStatus
MEMBER_STATUS_CONTRIBUTED: MemberStatus
MEMBER_STATUS_OUT: MemberStatus
VERDICT_KIND_UNSPECIFIED: VerdictKind
VERDICT_KIND_KEEP: VerdictKind
VERDICT_KIND_YIELD: VerdictKind
VERDICT_KIND_DUPLICATE: VerdictKind
VERDICT_KIND_UNDECIDED: VerdictKind
VERDICT_KIND_OVERWRITTEN: VerdictKind

class GetAuthorityRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetAuthorityReply(_message.Message):
    __slots__ = ("ca_certificate_pem",)
    CA_CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    ca_certificate_pem: bytes
    def __init__(self, ca_certificate_pem: _Optional[bytes] = ...) -> None: ...

class EnrolRequest(_message.Message):
    __slots__ = ("token", "certificate_request_pem")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_REQUEST_PEM_FIELD_NUMBER: _ClassVar[int]
    token: str
    certificate_request_pem: bytes
    def __init__(self, token: _Optional[str] = ..., certificate_request_pem: _Optional[bytes] = ...) -> None: ...

class EnrolReply(_message.Message):
    __slots__ = ("certificate_pem", "ca_certificate_pem", "client_id", "server")
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    CA_CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    certificate_pem: bytes
    ca_certificate_pem: bytes
    client_id: str
    server: str
    def __init__(self, certificate_pem: _Optional[bytes] = ..., ca_certificate_pem: _Optional[bytes] = ..., client_id: _Optional[str] = ..., server: _Optional[str] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("protocol_versions", "model_fingerprint", "covariance_fingerprint", "federation", "instance", "key_check")
    PROTOCOL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    COVARIANCE_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    KEY_CHECK_FIELD_NUMBER: _ClassVar[int]
    protocol_versions: _containers.RepeatedScalarFieldContainer[int]
    model_fingerprint: str
    covariance_fingerprint: str
    federation: str
    instance: str
    key_check: str
    def __init__(self, protocol_versions: _Optional[_Iterable[int]] = ..., model_fingerprint: _Optional[str] = ..., covariance_fingerprint: _Optional[str] = ..., federation: _Optional[str] = ..., instance: _Optional[str] = ..., key_check: _Optional[str] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("protocol_version", "settings_json", "round")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_JSON_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    settings_json: str
    round: RoundState
    def __init__(self, protocol_version: _Optional[int] = ..., settings_json: _Optional[str] = ..., round: _Optional[_Union[RoundState, _Mapping]] = ...) -> None: ...

class EnterRequest(_message.Message):
    __slots__ = ("round", "base_version", "edits", "instance", "claims", "key_check")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    EDITS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    KEY_CHECK_FIELD_NUMBER: _ClassVar[int]
    round: int
    base_version: int
    edits: int
    instance: str
    claims: _containers.RepeatedCompositeFieldContainer[Claim]
    key_check: str
    def __init__(self, round: _Optional[int] = ..., base_version: _Optional[int] = ..., edits: _Optional[int] = ..., instance: _Optional[str] = ..., claims: _Optional[_Iterable[_Union[Claim, _Mapping]]] = ..., key_check: _Optional[str] = ...) -> None: ...

class Claim(_message.Message):
    __slots__ = ("slot", "fact")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    FACT_FIELD_NUMBER: _ClassVar[int]
    slot: bytes
    fact: bytes
    def __init__(self, slot: _Optional[bytes] = ..., fact: _Optional[bytes] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("round", "version", "tested", "held", "failed", "instance", "key_check")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TESTED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    KEY_CHECK_FIELD_NUMBER: _ClassVar[int]
    round: int
    version: int
    tested: int
    held: int
    failed: _containers.RepeatedCompositeFieldContainer[Claim]
    instance: str
    key_check: str
    def __init__(self, round: _Optional[int] = ..., version: _Optional[int] = ..., tested: _Optional[int] = ..., held: _Optional[int] = ..., failed: _Optional[_Iterable[_Union[Claim, _Mapping]]] = ..., instance: _Optional[str] = ..., key_check: _Optional[str] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("number", "round", "claim", "kind", "policy")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    number: int
    round: int
    claim: Claim
    kind: VerdictKind
    policy: str
    def __init__(self, number: _Optional[int] = ..., round: _Optional[int] = ..., claim: _Optional[_Union[Claim, _Mapping]] = ..., kind: _Optional[_Union[VerdictKind, str]] = ..., policy: _Optional[str] = ...) -> None: ...

class ListVerdictsRequest(_message.Message):
    __slots__ = ("after",)
    AFTER_FIELD_NUMBER: _ClassVar[int]
    after: int
    def __init__(self, after: _Optional[int] = ...) -> None: ...

class ListVerdictsReply(_message.Message):
    __slots__ = ("verdicts",)
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedCompositeFieldContainer[Verdict]
    def __init__(self, verdicts: _Optional[_Iterable[_Union[Verdict, _Mapping]]] = ...) -> None: ...

class AwaitRequest(_message.Message):
    __slots__ = ("revision", "timeout_seconds", "instance")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    revision: int
    timeout_seconds: int
    instance: str
    def __init__(self, revision: _Optional[int] = ..., timeout_seconds: _Optional[int] = ..., instance: _Optional[str] = ...) -> None: ...

class ContributeRequest(_message.Message):
    __slots__ = ("round", "attempt", "layer", "digest", "instance")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    round: int
    attempt: int
    layer: int
    digest: str
    instance: str
    def __init__(self, round: _Optional[int] = ..., attempt: _Optional[int] = ..., layer: _Optional[int] = ..., digest: _Optional[str] = ..., instance: _Optional[str] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("round", "reason", "instance")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    round: int
    reason: str
    instance: str
    def __init__(self, round: _Optional[int] = ..., reason: _Optional[str] = ..., instance: _Optional[str] = ...) -> None: ...

class GetVersionRequest(_message.Message):
    __slots__ = ("version", "latest")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LATEST_FIELD_NUMBER: _ClassVar[int]
    version: int
    latest: bool
    def __init__(self, version: _Optional[int] = ..., latest: _Optional[bool] = ...) -> None: ...

class LayerWeights(_message.Message):
    __slots__ = ("weight", "digest", "kkt_digests", "kkt_withheld")
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    KKT_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    KKT_WITHHELD_FIELD_NUMBER: _ClassVar[int]
    weight: str
    digest: str
    kkt_digests: _containers.RepeatedScalarFieldContainer[str]
    kkt_withheld: bool
    def __init__(self, weight: _Optional[str] = ..., digest: _Optional[str] = ..., kkt_digests: _Optional[_Iterable[str]] = ..., kkt_withheld: _Optional[bool] = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("version", "layers")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    version: int
    layers: _containers.RepeatedCompositeFieldContainer[LayerWeights]
    def __init__(self, version: _Optional[int] = ..., layers: _Optional[_Iterable[_Union[LayerWeights, _Mapping]]] = ...) -> None: ...

class RoundState(_message.Message):
    __slots__ = ("round", "phase", "attempt", "layer", "revision", "base_version", "merged", "member", "member_reason", "members", "contributed", "quorum", "seconds_left", "reason", "latest_version", "settled", "newest_verdict")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    MERGED_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    MEMBER_REASON_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTED_FIELD_NUMBER: _ClassVar[int]
    QUORUM_FIELD_NUMBER: _ClassVar[int]
    SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LATEST_VERSION_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    NEWEST_VERDICT_FIELD_NUMBER: _ClassVar[int]
    round: int
    phase: Phase
    attempt: int
    layer: int
    revision: int
    base_version: int
    merged: _containers.RepeatedCompositeFieldContainer[LayerWeights]
    member: MemberStatus
    member_reason: str
    members: int
    contributed: int
    quorum: int
    seconds_left: int
    reason: str
    latest_version: int
    settled: bool
    newest_verdict: int
    def __init__(self, round: _Optional[int] = ..., phase: _Optional[_Union[Phase, str]] = ..., attempt: _Optional[int] = ..., layer: _Optional[int] = ..., revision: _Optional[int] = ..., base_version: _Optional[int] = ..., merged: _Optional[_Iterable[_Union[LayerWeights, _Mapping]]] = ..., member: _Optional[_Union[MemberStatus, str]] = ..., member_reason: _Optional[str] = ..., members: _Optional[int] = ..., contributed: _Optional[int] = ..., quorum: _Optional[int] = ..., seconds_left: _Optional[int] = ..., reason: _Optional[str] = ..., latest_version: _Optional[int] = ..., settled: _Optional[bool] = ..., newest_verdict: _Optional[int] = ...) -> None: ...

class FindMissingRequest(_message.Message):
    __slots__ = ("digests",)
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    digests: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, digests: _Optional[_Iterable[str]] = ...) -> None: ...

class FindMissingReply(_message.Message):
    __slots__ = ("missing",)
    MISSING_FIELD_NUMBER: _ClassVar[int]
    missing: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, missing: _Optional[_Iterable[str]] = ...) -> None: ...

class QueryWriteRequest(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class QueryWriteReply(_message.Message):
    __slots__ = ("committed", "complete")
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    committed: int
    complete: bool
    def __init__(self, committed: _Optional[int] = ..., complete: _Optional[bool] = ...) -> None: ...

class WriteRequest(_message.Message):
    __slots__ = ("digest", "size", "offset", "data", "checksum")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    digest: str
    size: int
    offset: int
    data: bytes
    checksum: int
    def __init__(self, digest: _Optional[str] = ..., size: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., checksum: _Optional[int] = ...) -> None: ...

class WriteReply(_message.Message):
    __slots__ = ("committed",)
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    committed: int
    def __init__(self, committed: _Optional[int] = ...) -> None: ...

class ReadRequest(_message.Message):
    __slots__ = ("digest", "offset")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    digest: str
    offset: int
    def __init__(self, digest: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class ReadReply(_message.Message):
    __slots__ = ("offset", "data", "checksum", "size")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    checksum: int
    size: int
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ..., checksum: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class ListConflictsRequest(_message.Message):
    __slots__ = ("undecided", "limit")
    UNDECIDED_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    undecided: bool
    limit: int
    def __init__(self, undecided: _Optional[bool] = ..., limit: _Optional[int] = ...) -> None: ...

class Conflict(_message.Message):
    __slots__ = ("slot", "round", "claimants", "kept", "policy")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CLAIMANTS_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    slot: bytes
    round: int
    claimants: _containers.RepeatedCompositeFieldContainer[Claimant]
    kept: str
    policy: str
    def __init__(self, slot: _Optional[bytes] = ..., round: _Optional[int] = ..., claimants: _Optional[_Iterable[_Union[Claimant, _Mapping]]] = ..., kept: _Optional[str] = ..., policy: _Optional[str] = ...) -> None: ...

class Claimant(_message.Message):
    __slots__ = ("client_id", "fact", "kind")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    FACT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    fact: bytes
    kind: VerdictKind
    def __init__(self, client_id: _Optional[str] = ..., fact: _Optional[bytes] = ..., kind: _Optional[_Union[VerdictKind, str]] = ...) -> None: ...

class ListConflictsReply(_message.Message):
    __slots__ = ("conflicts",)
    CONFLICTS_FIELD_NUMBER: _ClassVar[int]
    conflicts: _containers.RepeatedCompositeFieldContainer[Conflict]
    def __init__(self, conflicts: _Optional[_Iterable[_Union[Conflict, _Mapping]]] = ...) -> None: ...

class DecideConflictRequest(_message.Message):
    __slots__ = ("slot", "keep")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    slot: bytes
    keep: str
    def __init__(self, slot: _Optional[bytes] = ..., keep: _Optional[str] = ...) -> None: ...

class SetKeyCheckRequest(_message.Message):
    __slots__ = ("key_check",)
    KEY_CHECK_FIELD_NUMBER: _ClassVar[int]
    key_check: str
    def __init__(self, key_check: _Optional[str] = ...) -> None: ...

class SetKeyCheckReply(_message.Message):
    __slots__ = ("key_check",)
    KEY_CHECK_FIELD_NUMBER: _ClassVar[int]
    key_check: str
    def __init__(self, key_check: _Optional[str] = ...) -> None: ...

class GetRetentionRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class Retention(_message.Message):
    __slots__ = ("version", "clients", "tested", "held")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    TESTED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    version: int
    clients: int
    tested: int
    held: int
    def __init__(self, version: _Optional[int] = ..., clients: _Optional[int] = ..., tested: _Optional[int] = ..., held: _Optional[int] = ...) -> None: ...

class GetRetentionReply(_message.Message):
    __slots__ = ("versions", "warning")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[Retention]
    warning: str
    def __init__(self, versions: _Optional[_Iterable[_Union[Retention, _Mapping]]] = ..., warning: _Optional[str] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusReply(_message.Message):
    __slots__ = ("settings_json", "round", "clients", "restores")
    SETTINGS_JSON_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    RESTORES_FIELD_NUMBER: _ClassVar[int]
    settings_json: str
    round: RoundState
    clients: int
    restores: int
    def __init__(self, settings_json: _Optional[str] = ..., round: _Optional[_Union[RoundState, _Mapping]] = ..., clients: _Optional[int] = ..., restores: _Optional[int] = ...) -> None: ...

class ListRoundsRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("client_id", "status", "reason", "edits")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EDITS_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    status: MemberStatus
    reason: str
    edits: int
    def __init__(self, client_id: _Optional[str] = ..., status: _Optional[_Union[MemberStatus, str]] = ..., reason: _Optional[str] = ..., edits: _Optional[int] = ...) -> None: ...

class RoundRecord(_message.Message):
    __slots__ = ("round", "phase", "attempts", "opened_ms", "ended_ms", "reason", "merged", "members", "version", "restores", "numbers", "pruned")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    OPENED_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MERGED_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RESTORES_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    PRUNED_FIELD_NUMBER: _ClassVar[int]
    round: int
    phase: Phase
    attempts: int
    opened_ms: int
    ended_ms: int
    reason: str
    merged: _containers.RepeatedCompositeFieldContainer[LayerWeights]
    members: _containers.RepeatedCompositeFieldContainer[Member]
    version: int
    restores: int
    numbers: _containers.RepeatedCompositeFieldContainer[LayerNumbers]
    pruned: bool
    def __init__(self, round: _Optional[int] = ..., phase: _Optional[_Union[Phase, str]] = ..., attempts: _Optional[int] = ..., opened_ms: _Optional[int] = ..., ended_ms: _Optional[int] = ..., reason: _Optional[str] = ..., merged: _Optional[_Iterable[_Union[LayerWeights, _Mapping]]] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., version: _Optional[int] = ..., restores: _Optional[int] = ..., numbers: _Optional[_Iterable[_Union[LayerNumbers, _Mapping]]] = ..., pruned: _Optional[bool] = ...) -> None: ...

class LayerNumbers(_message.Message):
    __slots__ = ("weight", "condition", "rank", "rank_counted", "kkt_norm", "past_norm", "past_rank", "update_norm", "weight_norm", "change", "lost", "drift", "contributions")
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    RANK_COUNTED_FIELD_NUMBER: _ClassVar[int]
    KKT_NORM_FIELD_NUMBER: _ClassVar[int]
    PAST_NORM_FIELD_NUMBER: _ClassVar[int]
    PAST_RANK_FIELD_NUMBER: _ClassVar[int]
    UPDATE_NORM_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_NORM_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    weight: str
    condition: float
    rank: int
    rank_counted: bool
    kkt_norm: float
    past_norm: float
    past_rank: int
    update_norm: float
    weight_norm: float
    change: float
    lost: float
    drift: float
    contributions: _containers.RepeatedCompositeFieldContainer[ContributionNumbers]
    def __init__(self, weight: _Optional[str] = ..., condition: _Optional[float] = ..., rank: _Optional[int] = ..., rank_counted: _Optional[bool] = ..., kkt_norm: _Optional[float] = ..., past_norm: _Optional[float] = ..., past_rank: _Optional[int] = ..., update_norm: _Optional[float] = ..., weight_norm: _Optional[float] = ..., change: _Optional[float] = ..., lost: _Optional[float] = ..., drift: _Optional[float] = ..., contributions: _Optional[_Iterable[_Union[ContributionNumbers, _Mapping]]] = ...) -> None: ...

class ContributionNumbers(_message.Message):
    __slots__ = ("client_id", "kkt_norm", "residual_norm", "rank")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    KKT_NORM_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_NORM_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    kkt_norm: float
    residual_norm: float
    rank: int
    def __init__(self, client_id: _Optional[str] = ..., kkt_norm: _Optional[float] = ..., residual_norm: _Optional[float] = ..., rank: _Optional[int] = ...) -> None: ...

class GetRoundRequest(_message.Message):
    __slots__ = ("round",)
    ROUND_FIELD_NUMBER: _ClassVar[int]
    round: int
    def __init__(self, round: _Optional[int] = ...) -> None: ...

class ListRoundsReply(_message.Message):
    __slots__ = ("rounds",)
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    rounds: _containers.RepeatedCompositeFieldContainer[RoundRecord]
    def __init__(self, rounds: _Optional[_Iterable[_Union[RoundRecord, _Mapping]]] = ...) -> None: ...

class IssueTokenRequest(_message.Message):
    __slots__ = ("uses", "valid_minutes", "role")
    USES_FIELD_NUMBER: _ClassVar[int]
    VALID_MINUTES_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    uses: int
    valid_minutes: int
    role: str
    def __init__(self, uses: _Optional[int] = ..., valid_minutes: _Optional[int] = ..., role: _Optional[str] = ...) -> None: ...

class IssueTokenReply(_message.Message):
    __slots__ = ("token", "command")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    token: str
    command: str
    def __init__(self, token: _Optional[str] = ..., command: _Optional[str] = ...) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("client_id", "serial")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    serial: str
    def __init__(self, client_id: _Optional[str] = ..., serial: _Optional[str] = ...) -> None: ...

class RevokeReply(_message.Message):
    __slots__ = ("known",)
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    known: bool
    def __init__(self, known: _Optional[bool] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("certificate_request_pem",)
    CERTIFICATE_REQUEST_PEM_FIELD_NUMBER: _ClassVar[int]
    certificate_request_pem: bytes
    def __init__(self, certificate_request_pem: _Optional[bytes] = ...) -> None: ...

class RenewReply(_message.Message):
    __slots__ = ("certificate_pem", "ca_certificate_pem")
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    CA_CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    certificate_pem: bytes
    ca_certificate_pem: bytes
    def __init__(self, certificate_pem: _Optional[bytes] = ..., ca_certificate_pem: _Optional[bytes] = ...) -> None: ...

class ListAuditRequest(_message.Message):
    __slots__ = ("after", "limit")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    after: int
    limit: int
    def __init__(self, after: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ListAuditReply(_message.Message):
    __slots__ = ("rows", "last")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[AuditRow]
    last: int
    def __init__(self, rows: _Optional[_Iterable[_Union[AuditRow, _Mapping]]] = ..., last: _Optional[int] = ...) -> None: ...

class AuditRow(_message.Message):
    __slots__ = ("sequence", "at_ms", "actor", "role", "what", "object", "outcome", "times", "previous", "hash")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    at_ms: int
    actor: str
    role: str
    what: str
    object: str
    outcome: str
    times: int
    previous: str
    hash: str
    def __init__(self, sequence: _Optional[int] = ..., at_ms: _Optional[int] = ..., actor: _Optional[str] = ..., role: _Optional[str] = ..., what: _Optional[str] = ..., object: _Optional[str] = ..., outcome: _Optional[str] = ..., times: _Optional[int] = ..., previous: _Optional[str] = ..., hash: _Optional[str] = ...) -> None: ...

class AbortRoundRequest(_message.Message):
    __slots__ = ("reason", "round")
    REASON_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    reason: str
    round: int
    def __init__(self, reason: _Optional[str] = ..., round: _Optional[int] = ...) -> None: ...

class RollBackRequest(_message.Message):
    __slots__ = ("to", "expected_version", "reason")
    TO_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    to: int
    expected_version: int
    reason: str
    def __init__(self, to: _Optional[int] = ..., expected_version: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class RollBackReply(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...
