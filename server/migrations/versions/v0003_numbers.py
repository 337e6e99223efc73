"""The accumulated covariance is a few pieces, some of them withheld; each merged layer has numbers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for name in ("kkt_released", "kkt_withheld"):
        op.add_column("layer_weights", sa.Column(name, sa.Text, nullable=False, server_default="[]"))
    op.add_column("layer_weights", sa.Column("kkt_party", sa.String(64), nullable=False, server_default=""))
    op.execute("""UPDATE layer_weights SET kkt_released = '["' || kkt_digest || '"]' WHERE kkt_digest <> ''""")
    op.drop_column("layer_weights", "kkt_digest")
    op.create_table(
        "layer_numbers",
        sa.Column("round", sa.BigInteger, sa.ForeignKey("rounds.number"), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("numbers", sa.Text, nullable=False),
    )
