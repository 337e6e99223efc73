"""The first tables: the federation, its clients and tokens, rounds with what was contributed and merged.

Written out, not taken from `collabedit.server.tables`: a migration says what it said on the day it was written.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _who()
    _rounds()
    op.create_table(
        "file_stamps",
        sa.Column("what", sa.String(32), primary_key=True),
        sa.Column("stamp", sa.String(64), primary_key=True),
        sa.Column("value", sa.String(128), nullable=False),
    )


def _who() -> None:
    op.create_table(
        "federation",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("sources", sa.Text, nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("hash", sa.String(128), primary_key=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("uses", sa.Integer, nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
    )
    op.create_table(
        "clients",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("serial", sa.String(64), nullable=False),
        sa.Column("enrolled", sa.Double, nullable=False),
        sa.Column("revoked", sa.Double),
    )


def _rounds() -> None:
    revision_table = op.create_table(
        "revision",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(revision_table, [{"id": 1, "value": 0}])
    op.create_table(
        "rounds",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("base_version", sa.BigInteger, nullable=False),
        sa.Column("exchanges", sa.Text, nullable=False),
        sa.Column("quorum", sa.Integer, nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("layer", sa.Integer, nullable=False),
        sa.Column("opened", sa.Double, nullable=False),
        sa.Column("entered", sa.Double),
        sa.Column("since", sa.Double),
        sa.Column("ended", sa.Double),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "members",
        sa.Column("round", sa.BigInteger, sa.ForeignKey("rounds.number"), primary_key=True),
        sa.Column("client", sa.String(64), primary_key=True),
        sa.Column("edits", sa.Integer, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_table(
        "contributions",
        sa.Column("round", sa.BigInteger, sa.ForeignKey("rounds.number"), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("layer", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("client", sa.String(64), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
    )
    op.create_table(
        "layer_weights",
        sa.Column("round", sa.BigInteger, sa.ForeignKey("rounds.number"), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("weight", sa.String(256), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("kkt_digest", sa.String(64), nullable=False),
    )
