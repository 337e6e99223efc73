"""How the operating commands reach a server: as a party, with its enrolment, or as the admin on the server's host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from collabedit.common.errors import IdentityError

if TYPE_CHECKING:
    from collabedit.client.connection import Connection

PATIENCE = 5.0  # seconds: a person waits
PHASES = ("", "open", "collecting", "merging", "published", "no quorum", "aborted")
STATUSES = ("", "absent", "entered", "contributed", "out")


class RemoteOptions(BaseModel):
    """Flags of every command that asks a server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: str | None = Field(
        default=None, description="host:port of the server [default: $COLLAB_SERVER, the enrolment's, localhost:50051]"
    )
    state: Path | None = Field(
        default=None, description="state folder of a client, or of the server on its host [default: whichever is there]"
    )
    insecure: bool = Field(default=False, description="plaintext, to a server on this host that was started so")


def open_connection(options: RemoteOptions) -> Connection:
    """A connection to the server with the credentials that the state folder holds. Use it as a context manager.

    Raises IdentityError where there are no credentials.
    """
    import os

    from collabedit.client.connection import DEFAULT_SERVER, connect
    from collabedit.common.credentials import Credentials

    given = options.server or os.environ.get("COLLAB_SERVER")
    if options.insecure:
        return connect(given or DEFAULT_SERVER, None, client_id="admin")
    held = Credentials.load(credentials_of(options.state))
    return connect(given or held.server or DEFAULT_SERVER, held)


def sees_all(options: RemoteOptions) -> bool:
    """Whether the caller is an observer or an admin, by its certificate; in plaintext one acts as the admin.

    Raises IdentityError where there are no credentials.
    """
    from collabedit.common.credentials import Credentials
    from collabedit.common.pki import identity_of, load_certificate

    if options.insecure:
        return True
    held = Credentials.load(credentials_of(options.state))
    return identity_of(load_certificate(held.certificate_pem))[1] in ("observer", "admin")


def credentials_of(state: Path | None) -> Path:
    """The folder of credentials in a state folder; without one given, the client's own before the server's.

    Raises IdentityError where there are none.
    """
    from platformdirs import user_state_path

    from collabedit.common.credentials import CERTIFICATE_FILE

    own = Path(user_state_path("collabedit"))
    states = (state,) if state else (own / "client", own / "server")
    places = [each / inside for each in states for inside in ("credentials", "pki/admin")]
    for place in places:
        if (place / CERTIFICATE_FILE).is_file():
            return place
    raise IdentityError(
        f"no credentials in {' or '.join(str(each) for each in states)}",
        mend="run the `collab pki enrol …` command that the server printed, or give --state, or --insecure",
    )


def round_object(record: Any) -> dict[str, Any]:
    """A RoundRecord as `--json` prints it; times in Unix seconds, None where there is none."""
    return {
        "round": record.round,
        "phase": PHASES[record.phase],
        "version": record.version or None,
        "attempts": record.attempts,
        "opened": record.opened_ms / 1000,
        "ended": record.ended_ms / 1000 or None,
        "reason": record.reason,
        "restores": record.restores if record.HasField("restores") else None,
        "pruned": record.pruned,
        "weights": [each.weight for each in record.merged],
        "members": [
            {"client": each.client_id, "status": STATUSES[each.status], "reason": each.reason, "edits": each.edits}
            for each in record.members
        ],
    }


def numbers_object(record: Any) -> dict[str, Any]:
    """The numbers of a RoundRecord's layers as `--json` prints them, with warnings; None where there is none."""
    from collabedit.common.watched import ContributionNumbers, LayerNumbers

    layers = [
        LayerNumbers(
            **{name: _value(each, name) for name in LayerNumbers.model_fields if name != "contributions"},
            contributions=tuple(
                ContributionNumbers(
                    client=one.client_id,
                    kkt_norm=one.kkt_norm,
                    residual_norm=_value(one, "residual_norm"),
                    rank=one.rank,
                )
                for one in each.contributions
            ),
        )
        for each in record.numbers
    ]
    return {
        "numbers": [each.model_dump() | {"relative_change": each.relative_change} for each in layers],
        "warnings": [line for each in layers for line in each.warnings],
    }


def _value(message: Any, name: str) -> Any:
    """A field's value; None where it is optional and unset."""
    optional = message.DESCRIPTOR.fields_by_name[name].has_presence
    return None if optional and not message.HasField(name) else getattr(message, name)


def moment(seconds: float | None) -> str | None:
    """Unix seconds as local date and time."""
    from datetime import datetime

    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S") if seconds else None
