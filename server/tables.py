"""The database's tables, as SQLAlchemy Core sees them. The migrations make them; a test compares the two.

Times are Unix seconds. Every table has the key that makes a repeated call have one effect.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

METADATA: Final = MetaData()

# One row: what the federation is, fixed at the server's first start.
FEDERATION: Final = Table(
    "federation",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("settings", Text, nullable=False),
    Column("sources", Text, nullable=False),
)

# One row: grows with every change that a client may wait for, and never repeats.
REVISION: Final = Table(
    "revision",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
)

TOKENS: Final = Table(
    "tokens",
    METADATA,
    Column("hash", String(128), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("uses", Integer, nullable=False),
    Column("expires", Double, nullable=False),
)

CLIENTS: Final = Table(
    "clients",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("serial", String(64), nullable=False),
    Column("enrolled", Double, nullable=False),
    Column("revoked", Double),
    # The certificate that the last renewal took the place of: it is good until it ends or the next renewal.
    Column("previous", String(64), nullable=False),
)

# Certificates that count no more whatever name they bear, seen before or not.
REVOKED_CERTIFICATES: Final = Table(
    "revoked_certificates",
    METADATA,
    Column("serial", String(64), primary_key=True),
    Column("revoked", Double, nullable=False),
)

# The audit log (`collabedit.server.audit`): rows are added, never changed.
AUDIT: Final = Table(
    "audit",
    METADATA,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("what", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("times", Integer, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

ROUNDS: Final = Table(
    "rounds",
    METADATA,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("base_version", BigInteger, nullable=False),
    Column("exchanges", Text, nullable=False),
    Column("quorum", Integer, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("layer", Integer, nullable=False),
    Column("opened", Double, nullable=False),
    Column("entered", Double),
    Column("since", Double),
    Column("ended", Double),
    Column("reason", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("restores", BigInteger),
    # Who is to report how its merged edits do, as a JSON list; when what failed was compared.
    Column("expected", Text, nullable=False, server_default="[]"),
    Column("compared", Double),
)

MEMBERS: Final = Table(
    "members",
    METADATA,
    Column("round", BigInteger, ForeignKey("rounds.number"), primary_key=True),
    Column("client", String(64), primary_key=True),
    Column("edits", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    # In receipt order, from 1; 0: recorded by a release that kept none.
    Column("place", Integer, nullable=False, server_default="0"),
    # 1: its claims have been compared with the others', or need not be.
    Column("judged", Integer, nullable=False, server_default="1"),
    # Different facts that it has claimed in the round, in all its entries.
    Column("claimed", Integer, nullable=False, server_default="0"),
)

# Blinded names of the edits that a client entered a round with (source "entered"), or that failed by its report to the
# round ("failed"). place: the client's, in receipt order. judged_out: 1: not merged in the round.
CLAIMS: Final = Table(
    "claims",
    METADATA,
    Column("round", BigInteger, ForeignKey("rounds.number"), primary_key=True),
    Column("client", String(64), primary_key=True),
    Column("source", String(8), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("place", Integer, nullable=False),
    Column("slot", LargeBinary(32), nullable=False),
    Column("fact", LargeBinary(32), nullable=False),
    Column("judged_out", Integer, nullable=False),
    Index("claims_of_a_slot", "slot", "round"),
)

# How clients' merged edits do on a version. position: in receipt order.
REPORTS: Final = Table(
    "reports",
    METADATA,
    Column("round", BigInteger, ForeignKey("rounds.number"), primary_key=True),
    Column("client", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    Column("tested", Integer, nullable=False),
    Column("held", Integer, nullable=False),
    Index("reports_of_a_version", "version"),
)

# Of verdicts, as literals, by which an engine tells that an index of such rows alone serves: those on parties that
# contradict each other, and those that wait for an admin.
CONTRADICTION: Final = text("kind IN ('keep', 'undecided', 'yield')")
UNDECIDED: Final = text("kind = 'undecided'")

# What was decided about claims: rows are added, never changed.
VERDICTS: Final = Table(
    "verdicts",
    METADATA,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("round", BigInteger, ForeignKey("rounds.number"), nullable=False),
    Column("client", String(64), nullable=False),
    Column("slot", LargeBinary(32), nullable=False),
    Column("fact", LargeBinary(32), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("policy", String(16), nullable=False),
    Index("verdicts_of_a_client", "client", "number"),
    Index("verdicts_of_a_round", "round", "number"),
    Index("verdicts_of_a_slot", "slot", "client", "number"),
    Index("contradictions", "round", "slot", sqlite_where=CONTRADICTION, postgresql_where=CONTRADICTION),
    Index("undecided_verdicts", "round", "slot", sqlite_where=UNDECIDED, postgresql_where=UNDECIDED),
)

# Whose facts admins have decided to keep. facts: 32 bytes each; round: in which it was decided last.
DECISIONS: Final = Table(
    "decisions",
    METADATA,
    Column("slot", LargeBinary(32), primary_key=True),
    Column("client", String(64), nullable=False),
    Column("facts", LargeBinary, nullable=False),
    Column("round", BigInteger, ForeignKey("rounds.number"), nullable=False),
)

# One row, once a client has told: which federation key claims are blinded under.
KEY_CHECK: Final = Table(
    "key_check",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", String(64), nullable=False),
)

CONTRIBUTIONS: Final = Table(
    "contributions",
    METADATA,
    Column("round", BigInteger, ForeignKey("rounds.number"), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("layer", Integer, primary_key=True, autoincrement=False),
    Column("client", String(64), primary_key=True),
    Column("digest", String(64), nullable=False),
)


def _layer_of_an_attempt() -> tuple[Column[int], ...]:
    """The key of what one layer's merge left."""
    return (
        Column("round", BigInteger, ForeignKey("rounds.number"), primary_key=True),
        Column("attempt", Integer, primary_key=True, autoincrement=False),
        Column("position", Integer, primary_key=True, autoincrement=False),
    )


LAYER_WEIGHTS: Final = Table(
    "layer_weights",
    METADATA,
    *_layer_of_an_attempt(),
    Column("weight", String(256), nullable=False),
    Column("digest", String(64), nullable=False),
    # The accumulated KKᵀ: content addresses as JSON lists, and the party whose the withheld ones are, or none.
    Column("kkt_released", Text, nullable=False),
    Column("kkt_withheld", Text, nullable=False),
    Column("kkt_party", String(64), nullable=False),
)

# The numbers watched, one layer a row, as JSON (`collabedit.common.watched.LayerNumbers`).
LAYER_NUMBERS: Final = Table(
    "layer_numbers",
    METADATA,
    *_layer_of_an_attempt(),
    Column("numbers", Text, nullable=False),
)

# Published versions whose blobs are kept no longer (`keep_versions`).
PRUNED_VERSIONS: Final = Table(
    "pruned_versions",
    METADATA,
    Column("round", BigInteger, ForeignKey("rounds.number"), primary_key=True, autoincrement=False),
)

# What a file's content was when its size, time and inode were these: hashing gigabytes at each start would be waste.
FILE_STAMPS: Final = Table(
    "file_stamps",
    METADATA,
    Column("what", String(32), primary_key=True),
    Column("stamp", String(64), primary_key=True),
    Column("value", String(128), nullable=False),
)
