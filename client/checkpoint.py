"""A measurement of C0 on disk, so that it can be killed: the sums, and where in the text it stood."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from collabedit.client.covariance import Measured, Place
from collabedit.client.documents import Documents
from collabedit.common.errors import BadFileError, MismatchError
from collabedit.common.moments import MomentSum
from collabedit.common.tensor_file import TensorFile, write_tensors

ENGINE: Final = 2  # raised when the same text would give other sums
SUFFIX: Final = ".partial"
COUNTS: Final = ("documents", "pieces", "before", "tokens", "window", "passes", "read")


@dataclass(frozen=True)
class Checkpoint:
    """The file beside the one that is to be written.

    of: everything that the sums depend on, but for the stopping rule: a run may go on to a later stop.
    """

    path: Path
    of: Mapping[str, Any]

    @classmethod
    def beside(cls, out: Path, of: Mapping[str, Any]) -> Checkpoint:
        """The checkpoint of a run that writes `out`."""
        return cls(out.with_name(out.name + SUFFIX), {"engine": ENGINE, **of})

    def save(self, measured: Measured, documents: Documents) -> None:
        """Durably, in place of the one before. The sums are written as they are, float64."""
        start = measured.start
        place, under_way = (start.documents, start.pieces, start.tokens), (measured.window, measured.passes)
        counts = (*place, measured.tokens, *under_way, documents.count)
        said = {name: str(count) for name, count in zip(COUNTS, counts, strict=True)}
        said |= {"of": json.dumps(self.of, sort_keys=True), "digest": documents.digest}
        write_tensors(self.path, {name: each.total for name, each in measured.sums.items()}, said)

    def load(self, documents: Documents) -> Measured | None:
        """Where the run stood, None where there is no file; `documents` then expect the text that it had read.

        Raises MismatchError where the file is of another run, BadFileError where it is damaged.
        """
        if not self.path.exists():
            return None
        mend = "delete it to begin anew, or give another --out"
        file = TensorFile.open(self.path)
        try:
            of, digest = json.loads(file.metadata["of"]), file.metadata["digest"]
        except (KeyError, ValueError) as error:
            raise BadFileError(f"{self.path}: not a measurement of C0 that was broken off", mend=mend) from error
        differing = sorted(name for name in {*of, *self.of} if of.get(name) != self.of.get(name))
        if differing:
            raise MismatchError(f"{self.path}: of a run with another {', '.join(differing)}", mend=mend)
        said = {name: int(file.metadata[name]) for name in COUNTS}
        documents.expect(said["read"], digest)
        sums = {name: MomentSum(file.tensor(name).clone(), said["tokens"]) for name in file.names}
        start = Place(said["documents"], said["pieces"], said["before"])
        return Measured(sums, said["tokens"], start, said["window"], said["passes"])

    def remove(self) -> None:
        """When the run is done."""
        self.path.unlink(missing_ok=True)
