"""A measurement of C0 on disk, so that it can be killed: the sums, and where in the text it stood."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from collabedit.client.covariance import Measured
from collabedit.client.documents import Documents
from collabedit.common.errors import BadFileError, MismatchError
from collabedit.common.moments import MomentSum
from collabedit.common.tensor_file import TensorFile, write_tensors

ENGINE: Final = 1  # raised when the same text would give other sums
SUFFIX: Final = ".partial"


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
        said = {
            "of": json.dumps(self.of, sort_keys=True), "documents": str(measured.documents),
            "pieces": str(measured.pieces), "tokens": str(measured.tokens),
            "read": str(documents.count), "digest": documents.digest,
        }  # fmt: skip
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
            said = {name: int(file.metadata[name]) for name in ("documents", "pieces", "tokens", "read")}
            of, digest = json.loads(file.metadata["of"]), file.metadata["digest"]
        except (KeyError, ValueError) as error:
            raise BadFileError(f"{self.path}: not a measurement of C0 that was broken off", mend=mend) from error
        differing = sorted(name for name in {*of, *self.of} if of.get(name) != self.of.get(name))
        if differing:
            raise MismatchError(f"{self.path}: of a run with another {', '.join(differing)}", mend=mend)
        documents.expect(said["read"], digest)
        sums = {name: MomentSum(file.tensor(name).clone(), said["tokens"]) for name in file.names}
        return Measured(sums, said["documents"], said["pieces"], said["tokens"])
