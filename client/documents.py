"""Public text, document by document: from a file, from standard input, from a Hugging Face dataset."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Final

from collabedit.common.errors import BadFileError, MismatchError, UsageError

CHUNK: Final = 1 << 20
STANDARD_INPUT: Final = Path("-")


class Documents:
    """Documents in their order, blank ones left out; white space around them does not count.

    digest: SHA-256 (hex) of those read so far; done: how much of the source has been read, from 0 to 1, None where
    nobody knows how much there is.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self._hash = hashlib.sha256()
        self._expected: tuple[int, str] | None = None

    def expect(self, count: int, digest: str) -> None:
        """From now on reading raises MismatchError where the first `count` documents have another digest."""
        self._expected = (count, digest)

    @property
    def digest(self) -> str:
        """Of each document's UTF-8 and a zero behind it."""
        return self._hash.hexdigest()

    @property
    def done(self) -> float | None:
        """Not known."""
        return None

    def _texts(self) -> Iterable[str]:
        raise NotImplementedError

    def __iter__(self) -> Iterator[str]:
        for text in self._texts():
            stripped = text.strip()
            if stripped:
                self.count += 1
                self._hash.update(stripped.encode("utf-8", "surrogatepass") + b"\0")
                self._check()
                yield stripped

    def _check(self) -> None:
        if self._expected is not None and self.count == self._expected[0] and self.digest != self._expected[1]:
            raise MismatchError(
                f"{self.name}: its first {self.count} documents are not those that the broken-off run had read",
                mend="give the same text, or delete the .partial file to begin anew",
            )


class TextFile(Documents):
    """A UTF-8 text with `separator` between documents; the path `-` is standard input."""

    def __init__(self, path: Path, separator: str = "\n") -> None:
        super().__init__("standard input" if path == STANDARD_INPUT else path.name)
        self._path, self._separator = path, separator.encode()
        self._read = 0
        self._size = path.stat().st_size if path.is_file() else 0

    @property
    def done(self) -> float | None:
        """By bytes."""
        return self._read / self._size if self._size else None

    def _open(self) -> AbstractContextManager[BinaryIO]:
        return nullcontext(sys.stdin.buffer) if self._path == STANDARD_INPUT else self._path.open("rb")

    def _texts(self) -> Iterator[str]:
        rest = b""
        try:
            with self._open() as handle:
                while chunk := handle.read(CHUNK):
                    self._read += len(chunk)
                    *whole, rest = (rest + chunk).split(self._separator)
                    yield from (each.decode() for each in whole)
                yield rest.decode()
        except OSError as error:
            raise BadFileError(f"{self._path}: {error.strerror}", mend="give a readable text file") from error
        except UnicodeDecodeError as error:
            raise BadFileError(f"{self._path}: not UTF-8", mend="save the text as UTF-8") from error


class Dataset(Documents):
    """One field of a Hugging Face dataset, streamed: a name on the hub, or a folder of parquet, JSON or text files."""

    def __init__(self, path: str, *, config: str | None, split: str, field: str) -> None:
        super().__init__("/".join(part for part in (path, config, split) if part) + f"[{field}]")
        self._field = field
        self._rows = _stream(path, config, split)
        columns = self._rows.column_names
        if columns is not None and field not in columns:
            raise UsageError(
                f"{path}: the dataset has no field {field}", mend=f"--field is one of: {', '.join(columns)}"
            )

    def _texts(self) -> Iterator[str]:
        for number, row in enumerate(self._rows, start=1):
            text = row.get(self._field)
            if not isinstance(text, str):
                raise BadFileError(f"{self.name}: record {number} has no text in {self._field}")
            yield text


def _stream(path: str, config: str | None, split: str) -> Any:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise UsageError(
            "--dataset needs the library datasets", mend="pip install 'collabedit[datasets]', or give --text"
        ) from error
    try:
        return load_dataset(path, config, split=split, streaming=True)
    except Exception as error:  # the library raises whatever its readers and its network do
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadFileError(f"{path}: {said}", mend="give a dataset's name, or a folder with its files") from error
