"""What parties claim and report, what was decided about it, and which key they blind it under."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("rounds", sa.Column("expected", sa.Text, nullable=False, server_default="[]"))
    op.add_column("rounds", sa.Column("compared", sa.Double))
    op.add_column("members", sa.Column("place", sa.Integer, nullable=False, server_default="0"))
    op.add_column("members", sa.Column("judged", sa.Integer, nullable=False, server_default="1"))
    _claims()
    _verdicts()
    op.create_table(
        "key_check",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("value", sa.String(64), nullable=False),
    )


def _claims() -> None:
    op.create_table(
        "claims",
        sa.Column("round", sa.BigInteger, sa.ForeignKey("rounds.number"), primary_key=True),
        sa.Column("client", sa.String(64), primary_key=True),
        sa.Column("source", sa.String(8), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("slot", sa.LargeBinary(32), nullable=False),
        sa.Column("fact", sa.LargeBinary(32), nullable=False),
        sa.Column("judged_out", sa.Integer, nullable=False),
    )
    op.create_index("claims_of_a_slot", "claims", ["slot", "round"])
    op.create_table(
        "reports",
        sa.Column("round", sa.BigInteger, sa.ForeignKey("rounds.number"), primary_key=True),
        sa.Column("client", sa.String(64), primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("tested", sa.Integer, nullable=False),
        sa.Column("held", sa.Integer, nullable=False),
    )


def _verdicts() -> None:
    op.create_table(
        "verdicts",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("round", sa.BigInteger, sa.ForeignKey("rounds.number"), nullable=False),
        sa.Column("client", sa.String(64), nullable=False),
        sa.Column("slot", sa.LargeBinary(32), nullable=False),
        sa.Column("fact", sa.LargeBinary(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("policy", sa.String(16), nullable=False),
    )
    op.create_index("verdicts_of_a_client", "verdicts", ["client", "number"])
    op.create_index("verdicts_of_a_round", "verdicts", ["round"])
    op.create_index("verdicts_of_a_slot", "verdicts", ["slot"])
    op.create_table(
        "decisions",
        sa.Column("slot", sa.LargeBinary(32), primary_key=True),
        sa.Column("client", sa.String(64), nullable=False),
        sa.Column("facts", sa.LargeBinary, nullable=False),
        sa.Column("round", sa.BigInteger, sa.ForeignKey("rounds.number"), nullable=False),
    )
