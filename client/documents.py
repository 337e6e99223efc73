"""Public text, document by document: from a file, from standard input, from a Hugging Face dataset."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Final

from collabedit.common.errors import BadFileError, CollabEditError, MismatchError, UsageError

CHUNK: Final = 1 << 20
STANDARD_INPUT: Final = Path("-")
READERS: Final = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".arrow": "arrow"}


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
    """One field of a Hugging Face dataset, streamed.

    path: a name on the hub, a folder of parquet, JSON or text files or one that `save_to_disk` wrote, or one such file.
    The name says the hub's commit; files on disk have none.
    """

    def __init__(self, path: str, *, config: str | None, split: str, field: str) -> None:
        builder = _builder(path, config)
        self._rows = _streamed(builder, path, split)
        parts = "/".join(part for part in (path, config, split) if part)
        super().__init__(f"{parts}[{field}]{_revision(builder)}")
        self._field = field
        columns = self._rows.column_names
        if columns is not None and field not in columns:
            raise UsageError(
                f"{path}: the dataset has no field {field}", mend=f"--field is one of: {', '.join(columns)}"
            )

    def _texts(self) -> Iterator[str]:
        with _told(self.name):
            for number, row in enumerate(self._rows, start=1):
                text = row.get(self._field)
                if not isinstance(text, str):
                    raise BadFileError(f"{self.name}: record {number} has no text in {self._field}")
                yield text


def _builder(path: str, config: str | None) -> Any:
    try:
        from datasets import load_dataset_builder
    except ImportError as error:
        raise UsageError(
            "--dataset needs the library datasets", mend="pip install 'collabedit[datasets]', or give --text"
        ) from error
    file = Path(path)
    with _told(path):
        if file.is_file() and file.suffix in READERS:
            return load_dataset_builder(READERS[file.suffix], config, data_files=str(file))
        return load_dataset_builder(path, config)


def _revision(builder: Any) -> str:
    """`@` and the hub's commit, as the addresses of its files say it: hf://datasets/NAME@COMMIT/…"""
    files = builder.config.data_files or {}
    found = (re.match(r"hf://datasets/[^@]+(@[^/]+)/", str(path)) for paths in files.values() for path in paths)
    return next((match[1] for match in found if match), "")


def _streamed(builder: Any, path: str, split: str) -> Any:
    with _told(path):
        return builder.as_streaming_dataset(split=split)


@contextmanager
def _told(path: str) -> Iterator[None]:
    """What the library raises, as one line: its readers and its network raise whatever they do."""
    try:
        yield
    except CollabEditError:
        raise
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadFileError(f"{path}: {said}", mend="give a dataset's name, or a folder with its files") from error
