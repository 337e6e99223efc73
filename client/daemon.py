"""The client's loop: look at the file and at the round, do the next step, wait for either to change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from collabedit.client.backoff import STEPS
from collabedit.client.config import ClientConfig
from collabedit.client.connection import QuotaError, ServerFailedError, StaleRoundError, StaleVersionError
from collabedit.client.decide import Act, Place, decide
from collabedit.client.edit_life import WAITING
from collabedit.client.equipment import Equipment
from collabedit.client.news import Changes
from collabedit.client.report import left_line, missing_line, result, waiting_line
from collabedit.client.snapshot import Snapshot
from collabedit.client.steps import Steps, WorldMovedError
from collabedit.common.errors import CollabEditError, RoundError, UnreachableError

LOOK_AGAIN: Final = 60.0  # seconds until the loop looks around without being told to


class Daemon:
    """One client at work. `keys`: the edits that the file held at the start; on_result: told after every round."""

    def __init__(
        self,
        config: ClientConfig,
        tools: Equipment,
        changes: Changes,
        *,
        keys: Sequence[str],
        on_result: Callable[[dict[str, Any]], None],
    ) -> None:
        self._config = config
        self._tools = tools
        self._settings = tools.settings
        self._state = tools.state
        self._federation = tools.federation
        self._steps = Steps(tools)
        self._news = tools.news
        self._changes = changes
        self._intake = tools.intake
        self._voice = tools.voice
        self._keys = keys
        self._on_result = on_result
        self._told = ""

    def run(self) -> dict[str, Any]:
        """Works until, with `--once`, no edit of the file waits: each is merged and scored, skipped as known,
        withdrawn, in conflict, or written by another party; returns the result.

        Without `--once` it ends by an error or a signal alone. Raises RoundError that says what is missing.
        """
        while True:
            seen = self._changes.count
            if not self._config.once:
                self._intake.refresh()
            now = self._news.latest()
            self._give_up_on_silence()
            place = self._steps.place()
            action = decide(place, now)
            if action.act is not Act.WAIT:
                self._try(lambda action=action: self._steps.do(action), seen)  # type: ignore[misc]
                self._tell_results()
                self._end_of_once()
                continue
            if self._config.once and self._finished(place, now):
                return self.result()
            self._tell_wait(place, now)
            self._changes.wait(seen, LOOK_AGAIN)

    def _try(self, step: Callable[[], None], seen: int) -> None:
        """Does a step; one that the world has overtaken, or that found the server away, is for `decide` again."""
        try:
            step()
        except WorldMovedError:
            pass
        except (StaleRoundError, StaleVersionError):
            before = self._news.latest()
            self._news.give(self._federation.now())
            if self._news.latest() == before:
                self._changes.wait(self._changes.count, next(STEPS.pauses()))
        except (UnreachableError, ServerFailedError) as error:
            self._try_later(error, seen)
        except RoundError as error:  # a quota, a server that has just been told to stop
            if self._config.once:
                raise
            self._try_later(error, seen)

    def _try_later(self, error: CollabEditError, seen: int) -> None:
        if error.what != self._told:
            self._voice.say(f"{error.what}; trying again")
        self._told = error.what
        asked = error.retry_after if isinstance(error, QuotaError) else 0.0
        self._changes.wait(seen, asked + next(STEPS.pauses()))

    def _end_of_once(self) -> None:
        """With `--once` a round that left our edits out is the end: the next one is another command's."""
        if not self._config.once:
            return
        if self._steps.course.refused is not None:
            raise self._steps.course.refused
        lost = self._steps.course.lost
        if lost is not None:
            raise RoundError(
                f"round {lost.round} ended without our edits: {lost.reason or lost.phase.name.lower()}",
                mend="they wait in the state folder: run the same command again for the next round",
            )

    def _tell_results(self) -> None:
        """Reports rounds that were just scored, then says so."""
        told = self._steps.course.told
        if told:
            self._on_result(self.result())
        while told:
            self._voice.say(told.pop(0))

    def _give_up_on_silence(self) -> None:
        if self._config.once and self._news.silence > self._config.patience:
            address = self._federation.connection.address
            raise UnreachableError(
                f"{address} has not answered for {self._config.patience} s",
                mend="nothing is lost: run the same command again once the server is there",
            )

    def _finished(self, place: Place, now: Snapshot) -> bool:
        """With `--once`, where nothing is to be done at present: whether that is all. Raises what is missing."""
        if place.round is not None:
            return False
        waiting = self._state.count(WAITING)
        if waiting or not self._keys:
            return self._steps.lacking() > 0 and self._left_to_others(place, now) and not self._awaits_report(place)
        return not self._awaits_report(place)

    def _left_to_others(self, place: Place, now: Snapshot) -> bool:
        """Whether other parties have written what waits, which is too little for a round; False: they are about to.

        Raises RoundError where that is not so, or their round came to nothing. A version has its round's number.
        """
        left = self._state.waiting()
        awaited = [each for each in left if (each.round or 0) > place.version]
        missed = [each for each in awaited if now.ended or each.round != now.round]
        if not left or missed or not all(each.written_elsewhere for each in left):
            raise RoundError(
                missing_line(len(left), self._steps.lacking(), self._settings.min_edits),
                mend=f"add edits of other facts to {self._config.edits}, or public ones with --padding;"
                " those merged before do not count",
            )
        self._tell(left_line(len(left)))
        return not awaited

    def _awaits_report(self, place: Place) -> bool:
        """Edits failed that the others are to be asked about, as soon as a round takes reports."""
        if self._settings.detection != "on-failure":
            return False
        return any(each.round is not None and each.round >= place.reported for each in self._state.failed())

    def result(self) -> dict[str, Any]:
        """What became of the edits: of the file's at the start with `--once`, else of all that were ever read."""
        entries = self._state.entries(self._keys) if self._config.once else self._state.ledger()
        rounds = self._state.rounds()
        padding = self._state.padding(rounds[-1].round) if rounds else []
        return result(self._settings.federation, entries, rounds, padding=padding)

    def _tell_wait(self, place: Place, now: Snapshot) -> None:
        """Says once what is waited for."""
        self._tell(self._waiting_for(place, now))

    def _tell(self, line: str) -> None:
        if line and line != self._told:
            self._voice.say(line)
        self._told = line

    def _waiting_for(self, place: Place, now: Snapshot) -> str:
        if place.round is not None:
            return waiting_line(now)
        if place.ready:
            return f"round {now.round} is under way without us; waiting for the next"
        if self._intake.blocked or not self._steps.lacking():
            return f"waiting for {self._config.edits} to be mended"
        if waiting := self._state.waiting():
            if all(each.written_elsewhere for each in waiting):
                return left_line(len(waiting))
            missing = missing_line(len(waiting), self._steps.lacking(), self._settings.min_edits)
            return f"{missing}; waiting for {self._config.edits}"
        return f"nothing new in {self._config.edits}; following it"
