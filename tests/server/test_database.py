"""Databases of both kinds: migrations that happen whole or not at all, writers that exclude each other, refusals."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from databases import written

from collabedit.common.errors import StateError, UsageError
from collabedit.server import migrations
from collabedit.server.database import migrate, open_engine, sqlite_url, writer_of
from collabedit.server.rounds import LayerWeights, Past, Round
from collabedit.server.sql_store import SqlStore
from collabedit.server.tables import METADATA

NEW = Round(number=1, base_version=0, exchanges=(("a",), ("b",)), quorum=1, opened=1.0)


@pytest.fixture
def engine(new_database):
    """A database of each kind without tables."""
    made = open_engine(new_database(empty=True))
    yield made
    made.dispose()


def table_names(engine) -> list[str]:
    """The tables that there are."""
    with engine.connect() as connection:
        return sqlalchemy.inspect(connection).get_table_names()


@pytest.mark.wheel
def test_the_migrations_make_the_tables_that_the_code_sees(engine):
    """Names, columns, types, keys: no difference between the migrated database and the tables in code."""
    migrate(engine)
    migrate(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_what_had_accumulated_before_pieces_is_one_piece(engine):
    """A database of the release before: the whole sum's file is the version's only piece, and none is none."""
    config, writer = Config(), writer_of(engine)
    config.set_main_option("script_location", "collabedit.server:migrations")
    with writer.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        for row in (
            "rounds VALUES (1, 0, '[[\"a\", \"b\"]]', 1, 'published', 0, 0, 1.0, 1.0, 1.0, 2.0, '', 1, NULL)",
            "layer_weights VALUES (1, 0, 0, 'a', 'wa', 'ka')",
            "layer_weights VALUES (1, 0, 1, 'b', 'wb', '')",
        ):
            connection.exec_driver_sql(f"INSERT INTO {row}")
    writer.dispose()
    migrate(engine)
    assert SqlStore(engine).version(1) == (LayerWeights("a", "wa", Past(("ka",))), LayerWeights("b", "wb"))


STEP = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "{revision}", {down}
def upgrade():
    op.create_table("{revision}", sa.Column("id", sa.Integer))
    {then}
"""


@pytest.fixture
def scripts(tmp_path):
    """Makes a folder of migrations, each named and with what it does after it has made its table."""

    def make(**steps: str) -> str:
        folder = tmp_path / "scripts"
        (folder / "versions").mkdir(parents=True, exist_ok=True)
        (folder / "env.py").write_text((Path(migrations.__path__[0]) / "env.py").read_text())
        down = None
        for name, then in steps.items():
            (folder / "versions" / f"{name}.py").write_text(STEP.format(revision=name, down=repr(down), then=then))
            down = name
        return str(folder)

    return make


def test_a_migration_that_fails_leaves_nothing_of_any_step(engine, scripts):
    """All steps are one transaction: tables of the failing step, and of those before it, are not there."""
    with pytest.raises(StateError, match="nowhere"):
        migrate(engine, migrations=scripts(first="pass", second="op.execute('INSERT INTO nowhere VALUES (1)')"))
    assert table_names(engine) == []


def test_a_migration_that_fails_leaves_the_old_tables_with_their_rows(engine, scripts):
    """A later release's step drops a table and then fails: the release before finds everything as it was."""
    migrate(engine, migrations=scripts(first="op.execute('INSERT INTO first VALUES (7)')"))
    bad = {"first": "pass", "second": "op.drop_table('first'); op.execute('INSERT INTO nowhere VALUES (1)')"}
    with pytest.raises(StateError, match="nowhere"):
        migrate(engine, migrations=scripts(**bad))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT id FROM first").scalars().all() == [7]
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all() == ["first"]


def test_a_database_of_a_newer_release_is_refused(engine):
    """Its tables are not touched, and the message says what to do."""
    migrate(engine)
    before = table_names(engine)
    written(engine, "UPDATE alembic_version SET version_num = '9999'", "CREATE TABLE newer (id INTEGER)")
    with pytest.raises(StateError, match="9999") as caught:
        migrate(engine)
    assert "upgrade" in caught.value.mend
    assert sorted(table_names(engine)) == sorted([*before, "newer"])


def test_writers_exclude_each_other_from_their_beginning(engine):
    """A token that may be used once is used once, by however many threads at the same time."""
    migrate(engine)
    store = SqlStore(engine)
    store.add_token("hash", "client", 1, 100.0)
    together, found = threading.Barrier(8), []

    def use() -> None:
        together.wait()
        found.append(store.use_token("hash", 5.0))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    store.close()
    assert sorted(found, key=str) == [None] * 7 + ["client"]


def test_what_is_read_together_is_of_one_moment(engine, monkeypatch):
    """A round is several tables: one that changes while it is read is read as it was."""
    migrate(engine)
    store = SqlStore(engine)
    store.record(NEW)
    from collabedit.server import sql_store

    found = sql_store.read_round

    def interrupted(connection, row, **told):
        store.record(replace(NEW, exchanges=(("a",),), quorum=9))
        return found(connection, row, **told), found(connection, connection.execute(again).first(), **told)

    again = sqlalchemy.select(sql_store.tables.ROUNDS)
    monkeypatch.setattr(sql_store, "read_round", interrupted)
    first, second = store.round(1)
    monkeypatch.undo()
    assert first == second == NEW
    assert store.round(1).quorum == 9
    store.close()


def test_a_damaged_database_is_told(tmp_path):
    """A file that is no database is an error of one line, not a traceback."""
    (tmp_path / "db").write_bytes(b"not a database at all, but long enough to be looked at" * 40)
    with pytest.raises(StateError, match="not a database"):
        migrate(open_engine(sqlite_url(tmp_path / "db")))


@pytest.mark.parametrize("url", ["nosuch://here", "mysql://root@localhost/x", "no url", "postgresql://h:nan/x"])
def test_a_url_of_no_known_database_is_refused(url):
    """The flag is named, with examples of both kinds."""
    with pytest.raises(UsageError, match="--database") as caught:
        open_engine(url)
    assert "sqlite:///" in caught.value.mend
    assert "postgresql://" in caught.value.mend


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_postgresql_that_does_not_answer_is_told_without_the_password(scheme, tmp_path):
    """In one line, however the URL says that it is PostgreSQL."""
    with pytest.raises(StateError) as caught:
        migrate(open_engine(f"{scheme}://someone:hunter2@/db?host={tmp_path}"))
    assert "someone" in caught.value.what
    assert "hunter2" not in caught.value.what
    assert "\n" not in caught.value.what
    assert "connect" in caught.value.mend


def test_without_the_driver_the_extra_is_named(monkeypatch):
    """PostgreSQL's driver is not installed unless it is asked for."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match="psycopg") as caught:
        open_engine("postgresql://someone:hunter2@host/db")
    assert "collabedit[postgres]" in caught.value.mend
    assert "hunter2" not in caught.value.what


def test_a_second_server_on_one_postgresql_database_is_refused(postgres):
    """Whatever its state folder: the one that writes has the database until it lets go, or its connection is gone."""
    url = postgres.make()
    first, second = SqlStore(open_engine(url)), SqlStore(open_engine(url))
    first.record(NEW)
    for attempt in (lambda: second.record(NEW), lambda: migrate(open_engine(url))):
        with pytest.raises(StateError, match="another server is running on this database"):
            attempt()
    assert second.round(1) == NEW, "reading needs no lock"
    first.close()
    second.record(replace(NEW, number=2))
    with pytest.raises(StateError, match="another server"):
        first.record(replace(NEW, number=3))
    second.close()


def test_a_server_whose_connection_was_cut_connects_again(postgres):
    """PostgreSQL may be restarted under a running server; what was committed is there, the next write goes through."""
    store = SqlStore(open_engine(postgres.make()))
    store.record(NEW)
    assert store.round(1) == NEW
    postgres.does("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'collab-server'")
    assert store.round(1) == NEW
    store.record(replace(NEW, number=2))
    store.close()


def test_a_server_that_lost_its_database_to_another_writes_no_more(postgres):
    """Its connection was cut, another took the lock: its next write is refused, not mixed with the other's."""
    url = postgres.make()
    first, second = SqlStore(open_engine(url)), SqlStore(open_engine(url))
    first.record(NEW)
    postgres.does("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'collab-server'")
    second.record(replace(NEW, number=2))
    with pytest.raises(StateError, match="another server"):
        first.record(replace(NEW, number=3))
    assert [each.round.number for each in second.rounds()] == [2, 1]
    second.close()


KILLED = """
import os, sys
from collabedit.server.database import *
from collabedit.server.sql_store import SqlStore
from collabedit.server.rounds import Round
engine = open_engine(sys.argv[1])
migrate(engine)
SqlStore(engine).record(Round(number=1, base_version=0, exchanges=(("a",),), quorum=1, opened=1.0))
os.kill(os.getpid(), 9)
"""


def test_what_was_recorded_survives_a_kill(engine):
    """The round is there although the process died right after, and the database takes a next server."""
    url = engine.url.render_as_string(hide_password=False)
    subprocess.run([sys.executable, "-c", KILLED, url], env=os.environ, check=False, timeout=60)
    store = SqlStore(engine)
    assert [each.round.number for each in store.rounds()] == [1]
    store.record(replace(NEW, number=2))
    store.close()
