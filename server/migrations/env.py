"""Alembic's environment: runs in the connection, and in the transaction, that `collabedit.server.database` opened."""

from __future__ import annotations

from alembic import context

from collabedit.server.tables import METADATA


def run() -> None:
    """Runs the steps asked for; committing is the caller's."""
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=METADATA, transactional_ddl=True)
    context.run_migrations()


run()
