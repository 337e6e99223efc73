"""`collab-server`: the coordinator of a federation."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from collabedit.common.command import entry_point, load_settings, options_of
from collabedit.server.config import ServerConfig

if TYPE_CHECKING:
    from collabedit.server.addresses import ListenAddress
    from collabedit.server.handshakes import CoreLog
    from collabedit.server.process import Parts

EPILOG = """\b
Examples:
  collab-server                                  the bundled model; prints the command that a party runs to enrol
  collab-server --quorum 3 --advertise edits.example.org --listen 0.0.0.0:50051 --enrol-listen 0.0.0.0:50052
  collab-server --model ./gpt2-xl --covariance C0.safetensors --hparams gpt2-xl.json --state /var/lib/collabedit
  collab-server --detection pre-merge --conflict-policy last-come      settles parties' conflicts before a round merges
  collab-server --insecure                       plaintext on loopback, to try things out
  collab-server --check                          exits 0 when the server of this state answers
"""


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with any of the settings below.")
@click.option("--check", is_flag=True, help="Ask the running server of this state whether it serves, and exit.")
@options_of(ServerConfig)
def server(config: Path | None, check: bool, **flags: Any) -> None:
    """The coordinator of a federation: collects contributions round by round, merges them, publishes the weights.

    The first start founds the federation: model, hyperparameters, schedule and the like are fixed from then on. State
    is durable: kill the server at any instant and start it with the same command, and the round goes on.
    """
    settings = load_settings(ServerConfig, flags, toml=config, environment="COLLAB_SERVER_")
    if check:
        from collabedit.server.health import check_running

        click.echo(f"{check_running(settings)} answers")
        return
    _run(settings)


def _run(config: ServerConfig) -> None:
    import asyncio

    from collabedit.server.allocator import few_arenas
    from collabedit.server.handshakes import CoreLog
    from collabedit.server.logs import log_to_stderr
    from collabedit.server.state_folder import held

    few_arenas()
    with ExitStack() as stack:
        core = None if config.insecure else stack.enter_context(CoreLog())  # before grpc is imported
        log_to_stderr(config.log_format)
        stack.enter_context(held(config.state))
        parts = _prepare(config, core)
        from collabedit.server.process import serve

        try:
            asyncio.run(serve(parts, click.echo))
        finally:
            parts.store.close()


def _prepare(config: ServerConfig, core: CoreLog | None = None) -> Parts:
    """Everything that must be in order before a port is opened."""
    from collabedit.server.addresses import check_free
    from collabedit.server.belonging import bind, demand_founded
    from collabedit.server.blobs import BlobStore
    from collabedit.server.database import demand_sound, migrate, open_engine, sqlite_url
    from collabedit.server.federation import prepare
    from collabedit.server.process import Parts
    from collabedit.server.sql_store import SqlStore
    from collabedit.server.state_folder import BLOBS, DATABASE
    from collabedit.server.trust import Trust

    listen, enrol = _addresses(config)
    check_free(listen, "--listen")
    engine = open_engine(config.database or sqlite_url(config.state / DATABASE))
    demand_sound(engine)
    migrate(engine)
    store = SqlStore(engine)
    demand_founded(config.state, store.federation() is not None, str(engine.url))
    blobs = BlobStore(config.state / BLOBS)
    blobs.clear_scratch()
    trust = None
    if not config.insecure:
        check_free(enrol, "--enrol-listen")
        trust = Trust.open(config, store, listen, enrol)
    name = trust.authority.fingerprint if trust else f"plaintext-{secrets.token_hex(8)}"
    federation = prepare(config, store, blobs, name)
    bind(config.state, federation.settings, trust.authority.fingerprint if trust else "")
    return Parts(config, federation, store, blobs, listen, trust, core)


def _addresses(config: ServerConfig) -> tuple[ListenAddress, ListenAddress]:
    """Where to listen: services, enrolment. Raises UsageError."""
    from collabedit.common.errors import UsageError
    from collabedit.server.addresses import parse_listen

    listen, enrol = parse_listen(config.listen, "--listen"), parse_listen(config.enrol_listen, "--enrol-listen")
    if config.insecure and not listen.loopback:
        mend = "listen on localhost, or leave --insecure out"
        raise UsageError(f"--insecure with --listen {listen}: plaintext stays on this host", mend=mend)
    return listen, enrol


main = entry_point(server)

if __name__ == "__main__":
    main()
