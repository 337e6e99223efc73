"""Public text, document by document."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collabedit.client import documents
from collabedit.client.documents import STANDARD_INPUT, Dataset, TextFile
from collabedit.common.errors import BadFileError, MismatchError, UsageError

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)


@given(texts=st.lists(WORDS, max_size=8), separator=st.sampled_from(["\n", "\n\n\n", "<doc>"]), chunk=st.integers(1, 9))
def test_documents_come_back_whatever_the_separator_and_the_size_of_reads(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], separator: str, chunk: int
) -> None:
    """Each document once, in order, stripped, blank ones left out; the digest is of what was handed out."""
    wanted = [each.strip() for each in texts if each.strip() and "<doc>" not in each and "\n" not in each]
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_bytes(separator.join(wanted).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "CHUNK", chunk)
        read = TextFile(path, separator)
        assert list(read) == wanted
    assert read.count == len(wanted)
    assert read.done in (1.0, None)
    assert read.digest == hashlib.sha256(b"".join(each.encode() + b"\0" for each in wanted)).hexdigest()


def test_articles_between_blank_lines_keep_their_own_lines(tmp_path: Path) -> None:
    """With three newlines between articles, one newline is part of an article."""
    path = tmp_path / "wiki.txt"
    path.write_text("= One =\nfirst\nsecond\n\n\n= Two =\nthird\n\n\n\n")
    assert list(TextFile(path, "\n\n\n")) == ["= One =\nfirst\nsecond", "= Two =\nthird"]


def test_standard_input_is_read_as_a_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path - reads standard input, of which nobody knows the size."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"one\n\ntwo\n")))
    read = TextFile(STANDARD_INPUT)
    assert list(read) == ["one", "two"]
    assert read.done is None


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A file that is not there, and one that is not UTF-8."""
    with pytest.raises(BadFileError, match=r"gone\.txt"):
        list(TextFile(tmp_path / "gone.txt"))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(BadFileError, match="UTF-8"):
        list(TextFile(tmp_path / "latin.txt"))


def test_text_that_has_changed_is_noticed_where_a_run_goes_on(tmp_path: Path) -> None:
    """The first documents must be those that the broken-off run had read."""
    path = tmp_path / "text.txt"
    path.write_text("one\ntwo\nthree\n")
    first = TextFile(path)
    texts = iter(first)
    next(texts), next(texts)
    for changed, wrong in (("one\ntwo\nTHREE\n", False), ("one\nTWO\nthree\n", True)):
        path.write_text(changed)
        again = TextFile(path)
        again.expect(first.count, first.digest)
        if wrong:
            with pytest.raises(MismatchError, match="first 2 documents"):
                list(again)
        else:
            assert len(list(again)) == 3


class TestDataset:
    """A Hugging Face dataset, from files on disk."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Two JSON files with a field of text."""
        pytest.importorskip("datasets")
        for name, lines in (("a", ["one", "  two "]), ("b", ["three"])):
            records = (json.dumps({"title": "t", "body": line}) for line in lines)
            (tmp_path / f"{name}.jsonl").write_text("\n".join(records) + "\n")
        return tmp_path

    def test_its_records_are_documents(self, folder: Path) -> None:
        """One field of every record, streamed in the files' order."""
        read = Dataset(str(folder), config=None, split="train", field="body")
        assert list(read) == ["one", "two", "three"]
        assert "train[body]" in read.name

    def test_a_field_or_a_split_that_is_not_there_is_said(self, folder: Path) -> None:
        """A mistake in the name of a field or a split, or a folder that is not there, is one line."""
        with pytest.raises((UsageError, BadFileError), match="text"):
            list(Dataset(str(folder), config=None, split="train", field="text"))
        with pytest.raises(BadFileError):
            Dataset(str(folder), config=None, split="dev", field="body")
        with pytest.raises(BadFileError):
            Dataset(str(folder / "gone"), config=None, split="train", field="body")

    def test_without_the_library_the_mend_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The library is optional: the error names what to install."""
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(UsageError) as caught:
            Dataset("wikipedia", config=None, split="train", field="text")
        assert "collabedit[datasets]" in caught.value.mend
