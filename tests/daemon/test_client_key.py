"""The federation key as a client comes to it: before it joins, and only where edits are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from collabedit.client.config import ClientConfig
from collabedit.client.federation_key import GET_ONE, make
from collabedit.client.session import claims_key
from collabedit.common.errors import ExitCode, IdentityError, MismatchError, StateError
from collabedit.common.settings import Detection, FederationSettings


def settings(tools, detection: Detection) -> FederationSettings:
    """A federation's settings."""
    return FederationSettings(
        federation="sha256:aa",
        model_name="tiny",
        model_fingerprint="sha256:bb",
        covariance_fingerprint="sha256:cc",
        covariance_digest="dd",
        edited_weights=("w",),
        hparams=tools.HPARAMS,
        context_templates=(("{}",),),
        detection=detection,
    )


def config(state: Path, **given: object) -> ClientConfig:
    """A client's, with `state` for its folder."""
    return ClientConfig(edits=state / "mine.jsonl", state=state, **given)


def test_a_federation_that_compares_nothing_needs_no_key(tools, tmp_path: Path) -> None:
    """Without detection no key is looked for, and one that is there is not used."""
    make(tmp_path, "sha256:aa")
    assert claims_key(config(tmp_path), settings(tools, "off")) is None


@pytest.mark.parametrize("detection", ["on-failure", "pre-merge"])
def test_the_key_lies_in_the_state_folder_or_where_it_is_said_to(tools, tmp_path: Path, detection: Detection) -> None:
    """The state folder's key is used, or the file that --federation-key names."""
    held = make(tmp_path, "sha256:aa")
    other = make(tmp_path / "other.key", "")
    assert claims_key(config(tmp_path), settings(tools, detection)) == held.key
    elsewhere = config(tmp_path, federation_key=tmp_path / "other.key")
    assert claims_key(elsewhere, settings(tools, detection)) == other.key


def test_a_missing_key_is_refused_with_the_mend(tools, tmp_path: Path) -> None:
    """The error names the file that there should be, and how to get it."""
    with pytest.raises(IdentityError, match=r"federation\.key: no federation key.*pre-merge") as refused:
        claims_key(config(tmp_path), settings(tools, "pre-merge"))
    assert (refused.value.exit_code, refused.value.mend) == (ExitCode.REFUSED_IDENTITY, GET_ONE)


def test_another_federations_key_is_refused(tools, tmp_path: Path) -> None:
    """A key that was made in another federation, and a file that is none, are named."""
    make(tmp_path, "sha256:zz")
    with pytest.raises(MismatchError, match="the key of the federation sha256:zz, not of sha256:aa"):
        claims_key(config(tmp_path), settings(tools, "on-failure"))
    (tmp_path / "federation.key").write_text("{}")
    with pytest.raises(StateError, match="not a federation key"):
        claims_key(config(tmp_path), settings(tools, "on-failure"))
