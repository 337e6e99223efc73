"""The accumulated covariance over many rounds: pieces as blobs, what is released of them, and kills."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collabedit.common.accumulated import MOST_PIECES, side_by_side
from collabedit.common.hparams import HyperParameters
from collabedit.common.settings import FederationSettings
from collabedit.common.triangle import packed_length, unpack
from collabedit.server.accumulating import Accumulator
from collabedit.server.blobs import BlobStore
from collabedit.server.rounds import Past

W, D_IN = "h.0.weight", 16
HPARAMS = HyperParameters(
    layers=(0,), v_num_grad_steps=1, v_lr=0.5, v_weight_decay=0.5, clamp_norm_factor=0.75, kl_factor=0.06,
    mom2_update_weight=1.0,
)  # fmt: skip


def accumulator(folder: Path, **changes) -> Accumulator:
    """One over a blob store of its own."""
    made = FederationSettings(
        federation="f", model_name="m", model_fingerprint="m", covariance_fingerprint="c", covariance_digest="d",
        edited_weights=(W,), hparams=HPARAMS, context_templates=(("{}",),), **changes,
    )  # fmt: skip
    return Accumulator(made, BlobStore(folder / "blobs"))


def factor(seed: int, columns: int = 2) -> torch.Tensor:
    """L of an upload."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(D_IN, columns, generator=generator, dtype=torch.float64)


def total(pieces: list[torch.Tensor]) -> torch.Tensor:
    """The sum of pieces, [d_in, d_in]."""
    thin, packed = side_by_side(pieces)
    dense = torch.zeros(D_IN, D_IN, dtype=torch.float64)
    return dense + (0 if thin is None else thin @ thin.mT) + (0 if packed is None else unpack(packed))


def play(own: Accumulator, past: Past, number: int, parties: str) -> Past:
    """A round in which each of `parties` uploads two keys."""
    parts = (factor(100 * number + ord(party)) for party in parties)
    return own.add(W, past, parties, parts, d_in=D_IN)


def released(own: Accumulator, past: Past) -> torch.Tensor:
    """What clients may read."""
    return total(own.every(W, Past(past.released)))


@given(rounds=st.lists(st.sets(st.sampled_from("abc"), min_size=1), min_size=1, max_size=25))
@settings(deadline=None, max_examples=25)
def test_every_version_has_its_sum_and_shows_no_partys_own(tmp_path_factory, rounds):
    """At the end the sum of every version is there, exact; what is released moves by two parties' sums or more."""
    own = accumulator(tmp_path_factory.mktemp("sums"))
    versions, wanted, since, shown = [Past()], [torch.zeros(D_IN, D_IN, dtype=torch.float64)], set(), [0.0]
    for number, parties in enumerate(rounds, 1):
        names = "".join(sorted(parties))
        versions.append(play(own, versions[-1], number, names))
        new = sum(factor(100 * number + ord(party)) @ factor(100 * number + ord(party)).mT for party in names)
        wanted.append(wanted[-1] + new)
        since |= parties
        if len(since) > 1:
            since = set()
        shown.append(shown[-1] if since else number)
        assert versions[-1].party == (next(iter(since)) if since else "")
        assert len(versions[-1].released) <= MOST_PIECES
    for version, past in enumerate(versions):
        torch.testing.assert_close(total(own.every(W, past)), wanted[version], rtol=0, atol=1e-12)
        torch.testing.assert_close(released(own, past), wanted[int(shown[version])], rtol=0, atol=1e-12)
        assert sum(piece.numel() for piece in own.every(W, past)) <= 4 * packed_length(D_IN)


def test_what_is_withheld_is_in_the_servers_c_alone_or_in_nobodys(tmp_path):
    """Where clients compute with C, C is what is released; where they do not, everything is in it."""
    for name, changes, counted in (("factors", {}, True), ("dense", {"encoding": "dense"}, False)):
        own = accumulator(tmp_path / name, **changes)
        past = play(own, Past(), 1, "a")
        assert bool(own.in_prior(W, past)) is counted
        past = play(own, past, 2, "b")
        assert torch.equal(total(own.in_prior(W, past)), total(own.every(W, past)))


def test_an_immutable_c_keeps_nothing(tmp_path):
    """With β1 = 0 nothing accumulates and no file is written."""
    own = accumulator(tmp_path, beta1=0.0)
    assert play(own, Past(), 1, "ab") == Past()
    assert not [each for each in (tmp_path / "blobs" / "whole").rglob("*") if each.is_file()]


def test_a_client_that_was_there_downloads_what_was_added(tmp_path):
    """Pieces stay from version to version but for a fold now and then; on average a round costs a bounded number."""
    own, past, sizes = accumulator(tmp_path), Past(), []
    for number in range(1, 81):
        before, past = set(past.released), play(own, past, number, "ab")
        new = set(past.released) - before
        assert len(new) == 1
        sizes.append(sum(piece.numel() for piece in own.every(W, Past(tuple(new)))))
    assert sum(sizes[40:]) <= sum(sizes[8:48])
    assert max(sizes) <= packed_length(D_IN)


def test_rounds_from_an_earlier_sum_are_those_of_a_history_without_the_rest(tmp_path):
    """After a rollback to version 3 the same rounds give the same addresses as if 4 to 6 had never been."""
    own, versions = accumulator(tmp_path), [Past()]
    for number, parties in enumerate(("ab", "a", "a", "bc", "c", "ab"), 1):
        versions.append(play(own, versions[-1], number, parties))
    back = play(own, versions[3], 7, "c")
    other, past = accumulator(tmp_path / "other"), Past()
    for number, parties in ((1, "ab"), (2, "a"), (3, "a"), (7, "c")):
        past = play(other, past, number, parties)
    assert back == past


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_accumulating import accumulator, play
from collabedit.server import accumulating
from collabedit.server.rounds import Past
own, past, writes = accumulator(Path(sys.argv[1])), Past(), []
write = accumulating.Accumulator._write
def dying(self, weight, piece):
    writes.append(write(self, weight, piece))
    if len(writes) == int(sys.argv[3]):
        os.kill(os.getpid(), 9)
    return writes[-1]
accumulating.Accumulator._write = dying
for number in range(1, 9):
    past = play(own, past, number, "ab" if number % 2 else "b")
print(past)
"""


def test_a_kill_in_the_accumulation_changes_no_bit(tmp_path):
    """Killed when a piece is written and nothing names it yet: the same rounds again give the same addresses."""

    def run(folder: Path, kill_at: int) -> str:
        command = [sys.executable, "-c", KILLED, str(folder), str(Path(__file__).parent), str(kill_at)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False).stdout

    wanted = run(tmp_path / "whole", 0)
    assert "Past(released=(" in wanted
    assert run(tmp_path / "killed", 5) == ""
    assert run(tmp_path / "killed", 0) == wanted
