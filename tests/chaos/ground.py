"""The states that federations are put back to, what is done on each side, and one kill."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar, Final

from federation import EDITS, MODEL, WIDE, Light, Server, copied, make_wide_model, sent_bytes, transitions
from lives import Life

from collabedit.client import transfer
from collabedit.client.snapshot import Verdict
from collabedit.common.model_folder import find_model
from collabedit.experiments.bundled import party_files, party_lines

MOST_SENT_AGAIN: Final = 16 << 20
FLAGS: Final = ("--quorum", "2", "--entry-window", "0", "--liveness", "600")
LIGHTS: Final = ("arosa", "bern")
REAL: Final = "chur"
REAL_EDITS: Final = 8
LIMIT: Final = 240.0  # seconds that a process or a round may take before it counts as hung
WHEN: Final = ("before", "after")
POLL: Final = 0.02
QUIET: Final = 10.0  # seconds

Layers = list[tuple[str, str, tuple[str, ...]]]
Outcome = tuple[bool, Layers, int, Path]  # whether it died, the layers, bytes sent, its trace


@dataclass(frozen=True)
class Kill:
    """One kill and what came of it, or several kills in one round. at: the transition, NAME:N as traced; again: bytes
    sent again; wrong: what is not as it should be, "" for nothing. happened: the process did die.
    """

    side: str
    at: str
    when: str
    happened: bool
    again: int
    seconds: float
    wrong: str

    @property
    def point(self) -> str:
        """As `--only` takes it."""
        return f"{self.side}:{self.at}:{self.when}"


class Counts:
    """Payload bytes that light parties send, by the folder that their contributions lie in."""

    def __init__(self) -> None:
        self._sent: Counter[Path] = Counter()
        self._lock = threading.Lock()
        chunks = transfer._chunks

        def counted(path: Path, *rest: Any) -> Iterator[Any]:
            for chunk in chunks(path, *rest):
                with self._lock:
                    self._sent[path.parent] += len(chunk.data)
                yield chunk

        transfer._chunks = counted

    def of(self, folder: Path) -> int:
        """Bytes so far."""
        with self._lock:
            return self._sent[folder]


class HungError(Exception):
    """Something took longer than LIMIT."""


def until(holds: Callable[[], Any], what: str) -> None:
    """Returns when something holds. Raises HungError."""
    deadline = time.monotonic() + LIMIT
    while not holds():
        if time.monotonic() > deadline:
            raise HungError(f"{what} took more than {LIMIT:g} s")
        time.sleep(POLL)


def collab(*arguments: str) -> str:
    """A `collab` command's standard output."""
    program = str(Path(sys.executable).with_name("collab"))
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True, timeout=LIMIT).stdout


def enrolling(state: Path, uses: int) -> list[str]:
    """The command that a fresh token of the server's enrols with, without the program's name."""
    token = json.loads(collab("pki", "token", "--uses", str(uses), "--json", "--state", str(state)))
    return shlex.split(token["command"])[1:]


def enrolled(state: Path, folder: Path, *names: str) -> None:
    """Enrols parties, each with a state of its own in `folder`."""
    command = enrolling(state, len(names))
    for name in names:
        collab(*command, "--name", name, "--state", str(folder / name))


def living(trace: Path, point: str, *command: str, broken: Callable[[], Any]) -> int:
    """Runs a `collab-client` to its end, its trace and log in one folder; returns its exit code.

    broken: whether the rest of the federation has failed, and it waits in vain.
    """
    process = Life(trace, point, "collab-client", *command, log=trace.with_suffix(".log"))
    try:
        until(lambda: process.poll() is not None or broken(), "the client")
    finally:
        process.kill()
    return process.wait()


def told(name: str, verdicts: Sequence[Verdict]) -> Layers:
    """What a party was told of its claims, as something to compare."""
    return [(name, f"{each.number} {each.kind.name} {each.policy}", (repr(each.claim),)) for each in verdicts]


class Ground:
    """Where kills happen: the states that federations are put back to, and what comes of them undisturbed.

    begun: the kinds of federations whose first round is played beforehand.
    """

    begun: ClassVar[frozenset[str]] = frozenset({"atlas"})

    def __init__(self, folder: Path, counts: Counts) -> None:
        self.folder = folder
        self.counts = counts
        self.template = folder / "template"
        self.reference: dict[str, Layers] = {}
        self.trace: dict[str, list[str]] = {}
        self.sent: dict[str, int] = {}

    def make(self, sides: Sequence[str]) -> None:
        """Founds federations, enrols everybody, and keeps their states before and after a first round."""
        self.template.mkdir()
        if {"server", "client", "enrol", "enrol-server"} & set(sides):
            self._found("atlas", MODEL, (*LIGHTS, REAL))
        if "bulk" in sides:
            self._found("wide", str(make_wide_model(self.template / "wide-model")), LIGHTS)
        edits = party_lines(party_files(find_model(MODEL), 3)[0], REAL_EDITS)
        (self.template / "mine.jsonl").write_text("".join(edits))

    def _found(self, kind: str, model: str, names: Sequence[str]) -> None:
        home = self.template / kind
        (home / "uploads").mkdir(parents=True)
        (home / "files").mkdir()
        with Server(home / "founded", home / "founding.trace", self.flags(kind), model).start() as server:
            until(lambda: server.listens, "the server's start")
            enrolled(server.state, home, *names)
            server.stop()
            copied(server.state, home / "enrolled")
            if kind in self.begun:
                server.start()
                self._surviving(server, lambda: self._played(server, home / "files", 1, kind))
        copied(server.state, home / "played")

    def flags(self, _kind: str) -> tuple[str, ...]:
        """A server's flags, in federations of a kind."""
        return FLAGS

    def lights(self, folder: Path, kind: str, names: Sequence[str] = LIGHTS) -> list[Light]:
        """Light parties with the template's credentials, whose files lie in `folder`."""
        home, wide = self.template / kind, kind == "wide"
        model, edits = (str(self.template / "wide-model"), WIDE) if wide else (MODEL, EDITS)
        return [Light(name, home / name, folder, home / "uploads", model, edits) for name in names]

    def _played(self, server: Server, folder: Path, version: int, kind: str) -> Layers:
        """Light parties play until a version is published. Returns its layers, and what they were told of claims."""
        parties = self.lights(folder, kind)
        pool = ThreadPoolExecutor(len(parties))
        try:
            playing = [pool.submit(each.play, server.address, version) for each in parties]
            done = next(as_completed(playing)).result()  # raises at once what broke first
            assert all(each.result() == done for each in playing)
        finally:
            pool.shutdown(wait=False)  # where one has failed, the others wait for it in vain
        return [*done, *(said for each in parties for said in told(each.name, each.verdicts))]

    def _surviving(self, server: Server, play: Callable[[], Layers]) -> Layers:
        """What `play` returns; whenever the server dies meanwhile, it is started again."""
        with ThreadPoolExecutor(1) as pool, server:  # without a server the parties give up, and the pool can end
            playing = pool.submit(play)

            def over() -> bool:
                if server.killed:
                    server.start(server.fate)
                if server.process and server.process.poll() not in (None, -signal.SIGKILL):
                    raise HungError(f"the server ended with {server.process.poll()}")
                return playing.done()

            until(over, "the round")
            return playing.result()

    # ------------------------------------------------------------------------------------------------ the sides

    def server(self, folder: Path, point: str) -> Outcome:
        """The second round, the server killed."""
        return self._round(folder, point, "atlas", 2)

    def bulk(self, folder: Path, point: str) -> Outcome:
        """A round of large uploads, the server killed."""
        return self._round(folder, point, "wide", 1)

    def _round(self, folder: Path, point: str, kind: str, version: int) -> Outcome:
        server = self._again(folder, kind, "played" if version > 1 else "enrolled").start(point)
        layers = self._surviving(server, lambda: self._played(server, folder, version, kind))
        return killed(server.trace, point), layers, self.counts.of(folder), server.trace

    def _again(self, folder: Path, kind: str, stage: str) -> Server:
        """A server on a state as it was; not started yet."""
        state = copied(self.template / kind / stage, folder / "state")
        model = str(self.template / "wide-model") if kind == "wide" else MODEL
        return Server(state, folder / "server.trace", self.flags(kind), model)

    def found(self, folder: Path, point: str) -> Outcome:
        """A server on an empty folder, killed before it serves; started again, it enrols a party."""
        trace, start = folder / "server.trace", folder / "start.trace"
        with Server(folder / "state", trace, FLAGS).start(point) as server:
            until(lambda: server.killed or (server.listens and (not point or _quiet(trace))), "the server's start")
            shutil.copy(trace, start)
            if server.killed:
                server.start()
            until(lambda: server.listens, "the server's start after the kill")
            enrolled(server.state, folder, "new")
            collab("status", "--state", str(folder / "new"))
        return killed(start, point), [], 0, start

    def client(self, folder: Path, point: str) -> Outcome:
        """The first round, a real client killed, beside a light party."""
        state = copied(self.template / "atlas" / REAL, folder / REAL)
        with ThreadPoolExecutor(1) as pool, self._again(folder, "atlas", "enrolled").start() as server:
            until(lambda: server.listens, "the server's start")
            (light,) = self.lights(folder, "atlas", LIGHTS[:1])
            playing = pool.submit(light.play, server.address, 1)
            edits = self.template / "mine.jsonl"
            died, ended, trace = self._real(folder, point, server, state, edits, [playing])
            if ended:
                raise HungError(f"the client ended with {ended}: {_last_line(trace.with_suffix('.log'))}")
            return died, playing.result(LIMIT), sent_bytes(trace), trace

    def _real(
        self, folder: Path, point: str, server: Server, state: Path, edits: Path, others: Sequence[Future[Any]]
    ) -> tuple[bool, int, Path]:
        """A real client with its edits, run again after its death. Returns whether it died, how it ended, its trace."""
        trace = folder / "client.trace"
        command = ("--edits", str(edits), "--state", str(state), "--model", MODEL, "--server", server.address, "--once")

        def broken() -> bool:
            return any(each.done() and each.exception() for each in others)

        ended = living(trace, point, *command, broken=broken)
        died = ended == -signal.SIGKILL
        return died, living(trace, "", *command, broken=broken) if died else ended, trace

    def enrol(self, folder: Path, point: str) -> Outcome:
        """`collab pki enrol`, killed itself."""
        return self._enrolled(folder, "", point)

    def enrol_server(self, folder: Path, point: str) -> Outcome:
        """`collab pki enrol`, its server killed."""
        return self._enrolled(folder, point, "")

    def _enrolled(self, folder: Path, server_point: str, point: str) -> Outcome:
        """A party enrols with a token of one use, again after each death; then it is asked who it is."""
        trace, state, log = folder / "enrol.trace", folder / "new", folder / "enrol.log"
        enrolled_state = copied(self.template / "atlas" / "enrolled", folder / "state")
        with Server(enrolled_state, folder / "server.trace", FLAGS).start() as server:
            until(lambda: server.listens, "the server's start")
            command = (*enrolling(server.state, 1), "--name", "new", "--state", str(state))
            if server_point:
                server.stop()
                server.trace.unlink()
                server.start(server_point)
            died = False
            for attempt in range(5):
                until(lambda: server.listens or server.killed, "the server's start")
                process = Life(trace, "" if attempt else point, "collab", *command, log=log)
                until(lambda process=process: process.poll() is not None, "enrolling")  # type: ignore[misc]
                died = died or process.poll() == -signal.SIGKILL or server.killed
                if server.killed:
                    server.start()
                    until(lambda: server.listens, "the server's start after the kill")
                if not process.poll():
                    break
            else:
                raise HungError(f"enrolling ended with {process.poll()}: {_last_line(log)}")
            collab("status", "--state", str(state))
        return died, [], 0, server.trace if server_point else trace

    # -------------------------------------------------------------------------------------------------- a kill

    def trace_all(self, sides: Sequence[str]) -> None:
        """Plays each side once without a kill: the reference, and the transitions that there are."""
        for side in sides:
            folder = self.folder / f"reference-{side}"
            folder.mkdir()
            point = "never" if side == "enrol-server" else ""
            _, self.reference[side], self.sent[side], trace = self.act(side)(folder, point)
            self.trace[side] = transitions(trace)

    def walked(self, side: str) -> list[str]:
        """A side's transitions at which there are kills."""
        return self.trace[side]

    def act(self, side: str) -> Callable[[Path, str], Outcome]:
        """The method of a side."""
        method: Callable[[Path, str], Outcome] = getattr(self, side.replace("-", "_"))
        return method

    def kill(self, side: str, at: str, when: str, until_: float) -> Kill | None:
        """One kill, in a folder of its own; None where the clock has passed `until_` already."""
        if time.monotonic() > until_:
            return None
        start, died, again, wrong = time.monotonic(), False, 0, ""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            folder = Path(name)
            try:
                died, layers, sent, _ = self.act(side)(folder, f"{at}:{when}")
                again = sent - self.sent[side]
                wrong = self._judged(side, layers, again, folder)
            except Exception as error:  # whatever breaks is the finding
                logs = "".join(f"; {log.name}: {_last_line(log)}" for log in sorted(folder.glob("*.log")))
                wrong = f"{type(error).__name__}: {error}{logs}"
        return Kill(side, at, when, died, max(0, again), time.monotonic() - start, wrong)

    def _judged(self, side: str, layers: Layers, again: int, folder: Path) -> str:
        if layers != self.reference[side]:
            either = zip_longest(layers, self.reference[side])
            return f"not as without a kill: {next(pair for pair in either if pair[0] != pair[1])}"
        if again > MOST_SENT_AGAIN:
            return f"{again} bytes sent again"
        left = [
            each.name for each in (folder / "state" / "blobs" / "partial").glob("*") if each.stat().st_size > 1 << 20
        ]
        return f"left behind: {left}" if left else ""


def _last_line(log: Path) -> str:
    return (log.read_text(errors="replace").strip().splitlines() or [""])[-1]


def _quiet(trace: Path) -> bool:
    """Whether a server that listens has come to no transition for a while: then it comes to none unasked."""
    return time.time() - trace.stat().st_mtime > QUIET


def killed(trace: Path, point: str) -> bool:
    """Whether a process has killed itself, at each of the points where there are several."""
    return trace.read_text().splitlines().count("killed") > point.count(",")
