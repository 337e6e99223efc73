"""Blinded names: equal exactly where two edits are about the same."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from collabedit.common.blinding import KEY_BYTES, FederationKey, canonical
from collabedit.common.edits import Edit
from collabedit.common.errors import IdentityError

KEY = FederationKey(1, bytes(range(KEY_BYTES)))
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="{}"), min_size=1, max_size=20).filter(
    lambda text: bool(canonical(text))
)
ASCII = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="{}"), min_size=1, max_size=12)
SPACES = st.text(st.sampled_from(" \t\n\u00a0\u2003"), min_size=1, max_size=3)


def edit(subject: str, target: str, *, relation: str | None = "P17", prompt: str = "{} is in") -> Edit:
    """One edit about a subject."""
    return Edit(prompt=prompt, subject=subject, target_new=target, relation_id=relation)


@given(WORDS, WORDS, st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_the_form_of_unicode_does_not_matter(subject: str, target: str, form: str) -> None:
    """An accent typed as one character or as two, a ligature or its letters: the same fact."""
    other = edit(unicodedata.normalize(form, subject), unicodedata.normalize(form, target))  # type: ignore[arg-type]
    assert KEY.claim(edit(subject, target)) == KEY.claim(other)


@given(st.lists(ASCII, min_size=1, max_size=4), SPACES, SPACES)
def test_case_and_white_space_do_not_matter(words: list[str], first: str, second: str) -> None:
    """Neither inside the names nor around them."""
    plain, other = " ".join(words), first + second.join(words).swapcase() + second
    assert KEY.claim(edit(plain, plain)) == KEY.claim(edit(other, other, relation="p17 "))


@pytest.mark.parametrize("word", ["Ἀθήνα", "ΐ", "straße", "ŉ", "İzmir", "ﬁn", "ΰ"])
def test_case_does_not_matter_outside_ascii(word: str) -> None:
    """Where upper case is more than one character, or is put together in another way, too."""
    names = {KEY.claim(edit(each, each)) for each in (word, word.upper(), word.casefold())}
    assert len(names) == 1


@given(WORDS, WORDS, WORDS, WORDS)
def test_different_facts_have_different_names(subject: str, target: str, other: str, relation: str) -> None:
    """Another object: another fact of the same slot. Another subject or relation: another slot."""
    one = KEY.claim(edit(subject, target, relation=relation))
    if canonical(other) != canonical(target):
        same_slot = KEY.claim(edit(subject, other, relation=relation))
        assert same_slot.slot == one.slot
        assert same_slot.fact != one.fact
    if canonical(other) != canonical(subject):
        assert KEY.claim(edit(other, target, relation=relation)).slot != one.slot
    if canonical(other) != canonical(relation):
        assert KEY.claim(edit(subject, target, relation=other)).slot != one.slot


@given(WORDS, WORDS, st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES), st.integers(1, 3))
def test_another_key_gives_other_names(subject: str, target: str, secret: bytes, epoch: int) -> None:
    """So names from before a rotation say nothing about those after it."""
    assume(secret != KEY.secret)
    one, other = KEY.claim(edit(subject, target)), FederationKey(epoch, secret).claim(edit(subject, target))
    assert not {one.slot, one.fact} & {other.slot, other.fact}
    assert FederationKey(epoch, secret).check != KEY.check


def test_nothing_passes_from_one_field_to_another() -> None:
    """Names are over lists of texts: no way to cut the same characters gives the same name."""
    pairs = [("a b", "c"), ("a", "b c"), ('a", "b', "c"), ("a\x00b", "c"), ("a", "\x00bc")]
    slots = {KEY.claim(edit(subject, "x", relation=relation)).slot for subject, relation in pairs}
    assert len(slots) == len(pairs)


def test_without_a_relation_the_prompt_counts() -> None:
    """Parties that name no relation meet where they word the question alike."""
    one = KEY.claim(edit("Ada", "Rome", relation=None))
    assert one == KEY.claim(edit("Ada", "Rome", relation=None, prompt="{}  IS in"))
    assert one.slot != KEY.claim(edit("Ada", "Rome", relation=None, prompt="{} lies in")).slot


def test_the_check_tells_the_epoch_and_not_the_secret() -> None:
    """Epoch and 16 bytes, equal at all who have the key."""
    epoch, _, digest = KEY.check.partition(":")
    assert epoch == "1"
    assert len(bytes.fromhex(digest)) == 16
    assert KEY.secret.hex() not in KEY.check
    assert KEY.secret.hex() not in repr(KEY)
    assert FederationKey(2, KEY.secret).check.split(":")[1] != digest


@pytest.mark.parametrize(("epoch", "length"), [(0, KEY_BYTES), (1, 0), (1, KEY_BYTES - 1), (1, KEY_BYTES + 1)])
def test_what_is_no_key_is_refused(epoch: int, length: int) -> None:
    """An epoch before the first, a secret of another length."""
    with pytest.raises(IdentityError):
        FederationKey(epoch, bytes(length))
