"""Conflicts, a round's verdicts and a version's reports are found by indexes; how many facts a member has claimed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
WIDER = {"verdicts_of_a_round": ["round", "number"], "verdicts_of_a_slot": ["slot", "client", "number"]}
OF_KINDS = {
    "contradictions": "kind IN ('keep', 'undecided', 'yield')",
    "undecided_verdicts": "kind = 'undecided'",
}


def upgrade() -> None:
    for name, columns in WIDER.items():
        op.drop_index(name, "verdicts")
        op.create_index(name, "verdicts", columns)
    for name, kinds in OF_KINDS.items():
        op.create_index(
            name, "verdicts", ["round", "slot"], sqlite_where=sa.text(kinds), postgresql_where=sa.text(kinds)
        )
    op.create_index("reports_of_a_version", "reports", ["version"])
    op.add_column("members", sa.Column("claimed", sa.Integer, nullable=False, server_default="0"))
