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

    @pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv", "saved", "splits"])
    def test_files_on_disk_are_read_without_a_network(self, tmp_path: Path, kind: str) -> None:
        """A parquet, JSON or CSV file alone, and what the library itself saved, one split or several."""
        datasets = pytest.importorskip("datasets")
        made, path = datasets.Dataset.from_dict({"text": ["one", "two\nlines"], "n": [1, 2]}), tmp_path / f"data.{kind}"
        write = {
            "parquet": made.to_parquet, "jsonl": made.to_json, "csv": made.to_csv, "saved": made.save_to_disk,
            "splits": datasets.DatasetDict(train=made).save_to_disk,
        }[kind]  # fmt: skip
        write(str(path))
        assert list(Dataset(str(path), config=None, split="train", field="text")) == ["one", "two\nlines"]

    def test_the_name_says_the_hubs_commit(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Files of the hub are addressed by commit; a dataset that moves on is another text."""
        real = documents._builder

        def of_the_hub(path: str, config: str | None) -> object:
            found = real(path, None)
            assert config == "20231101.en"
            address = "hf://datasets/wikimedia/wikipedia@b04c8d1/20231101.en/train-00000-of-00041.parquet"
            config_there = SimpleNamespace(data_files={"train": [address]})
            return SimpleNamespace(config=config_there, as_streaming_dataset=found.as_streaming_dataset)

        monkeypatch.setattr(documents, "_builder", of_the_hub)
        read = Dataset(str(folder), config="20231101.en", split="train", field="body")
        assert read.name.endswith("/20231101.en/train[body]@b04c8d1")

    def test_a_field_or_a_split_that_is_not_there_is_said(self, folder: Path) -> None:
        """A mistake in the name of a field or a split, or a folder that is not there, is one line."""
        with pytest.raises((UsageError, BadFileError), match="text"):
            list(Dataset(str(folder), config=None, split="train", field="text"))
        with pytest.raises(BadFileError):
            Dataset(str(folder), config=None, split="dev", field="body")
        with pytest.raises(BadFileError):
            Dataset(str(folder / "gone"), config=None, split="train", field="body")

    def test_a_record_that_cannot_be_read_is_said(self, folder: Path) -> None:
        """A file that breaks off while it is streamed, and a field that holds no text."""
        (folder / "b.jsonl").write_text('{"title": "t", "body": null}\n')
        with pytest.raises(BadFileError, match="record 3"):
            list(Dataset(str(folder), config=None, split="train", field="body"))
        (folder / "b.jsonl").write_text('{"title": "t", "bo')
        with pytest.raises(BadFileError):
            list(Dataset(str(folder), config=None, split="train", field="body"))

    def test_without_the_library_the_mend_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The library is optional: the error names what to install."""
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(UsageError) as caught:
            Dataset("wikipedia", config=None, split="train", field="text")
        assert "collabedit[datasets]" in caught.value.mend
