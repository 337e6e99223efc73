"""The steps that edit: the weights to stand on, the z vectors, the contributions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from collabedit.client.decide import Place, is_over
from collabedit.client.equipment import Course, Equipment, WorldMovedError
from collabedit.client.snapshot import Snapshot
from collabedit.client.state_folder import prune
from collabedit.client.targets import Targets
from collabedit.client.transfer import upload
from collabedit.client.workshop import Slot
from collabedit.common.edits import Edit
from collabedit.common.errors import BadFileError, ContributionError


class EditingSteps:
    """Editing for a round. withdraw: leaves it, where our contribution would break a rule of the federation."""

    def __init__(self, tools: Equipment, course: Course, withdraw: Callable[[ContributionError], None]) -> None:
        self._tools = tools
        self._course = course
        self._withdraw = withdraw

    # ------------------------------------------------------------------------------------------------ contributions

    def find_targets(self, round_: int) -> None:
        """The z vectors of the batch, on the base version's weights."""
        tools, course = self._tools, self._course
        place, course.worked_in = Place(round=round_), round_

        def tick(done: int, total: int) -> None:
            progress(done, total)
            if is_over(place, tools.news.latest()):
                raise WorldMovedError

        edits = tools.contributed(round_)
        with tools.voice.progress(f"round {round_}: searching for {len(edits)} targets") as progress:
            course.targets = tools.workshop.find_targets(edits, tick)
        found = len(edits) - course.targets.reused
        tools.voice.say(f"round {round_}: {found} targets found, {course.targets.reused} kept from before")
        if tools.skip_known:
            self._note_residuals(edits, course.targets)

    def _note_residuals(self, edits: Sequence[Edit], targets: Targets) -> None:
        """Those of edits that were never merged tell what a residual is like that the model does not hold."""
        fresh = {each.key for each in self._tools.state.batch() if each.scores is None and not each.augmented}
        found = zip(edits, self._tools.workshop.residuals(edits, targets), strict=True)
        self._tools.state.record_residuals("fresh", {edit.key: value for edit, value in found if edit.key in fresh})

    def edit(self, layer: int) -> None:
        """Measures the layer being collected and writes our contribution to it."""
        tools, course = self._tools, self._course
        round_ = tools.state.round
        assert round_ is not None
        assert course.targets is not None
        slot = Slot(round_, course.attempt, layer)
        try:
            digest = tools.workshop.contribute(slot, tools.contributed(round_), course.targets)
        except ContributionError as error:
            self._withdraw(error)
            return
        tools.state.record_contribution(slot.round, slot.attempt, slot.layer, digest)

    def send(self, layer: int) -> None:
        """Uploads that contribution and has it counted."""
        tools, federation = self._tools, self._tools.federation
        round_, attempt = tools.state.round, self._course.attempt
        assert round_ is not None
        digest = tools.state.contributions(round_, attempt)[layer]
        file = tools.outbox(digest)
        with tools.voice.progress(f"round {round_}: uploading") as progress:
            upload(federation.connection, file, digest, progress=progress, patience=federation.patience)
        try:
            tools.news.give(federation.contribute(round_, attempt, layer, digest))
        except ContributionError as error:
            self._withdraw(error)
            return
        layered = tools.settings.schedule == "layer-sync"
        said = f"layer {layer + 1} of {len(tools.settings.edited_weights)}" if layered else "contribution"
        tools.voice.say(f"round {round_}: {said} sent, {file.stat().st_size:,} bytes")

    # ------------------------------------------------------------------------------------------------ weights

    def apply(self, layer: int) -> None:
        """Writes the next merged layer of this attempt."""
        tools = self._tools
        now = tools.news.latest()
        if now.round != tools.state.round or now.attempt != self._course.attempt or layer >= len(now.merged):
            raise WorldMovedError
        merged = now.merged[layer]
        with self._unless_overtaken(lambda later: later.merged[layer : layer + 1] == (merged,)):
            tools.model.apply(merged)

    def catch_up(self, version: int) -> None:
        """Writes the weights of the version that the round stands on."""
        tools = self._tools
        self._course.targets = None
        before = tools.model.base.version
        with self._unless_overtaken(lambda later: later.stands_on == version):
            tools.model.catch_up(tools.federation.version(version))
        prune(tools.folder.blobs, tools.model.digests | {each.digest for each in tools.news.latest().merged})
        if version != before:
            tools.voice.say(f"the model holds version {version}")

    @contextmanager
    def _unless_overtaken(self, still: Callable[[Snapshot], bool]) -> Iterator[None]:
        """A file that the server keeps no longer since the round has gone on is no fault: raises WorldMovedError."""
        try:
            yield
        except BadFileError as error:
            self._tools.news.give(self._tools.federation.now())
            if still(self._tools.news.latest()):
                raise
            raise WorldMovedError from error
