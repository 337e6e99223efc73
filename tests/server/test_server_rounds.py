"""Whole rounds: a server process on loopback, and light parties that speak the real protocol."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from collabedit.v1 import federation_pb2 as pb


def whole_round(members):
    """Every member enters, then all go on to the end; their last states."""
    entered = [each.enter() for each in members]
    with ThreadPoolExecutor(len(members)) as pool:
        return list(pool.map(lambda pair: pair[0].finish(pair[1]), zip(members, entered, strict=True)))


@pytest.mark.parametrize("schedule", ["layer-sync", "one-shot"])
def test_a_round_publishes_what_one_party_with_all_edits_would_have_computed(
    servers, parties, model, schedule, request
):
    """The merged weights are the global edit's, to float32's rounding, in both schedules."""
    server = servers("--schedule", schedule, "--quorum", "3").start()
    members = parties(server, "bern", "chur", "arosa")
    ends = whole_round(members)
    assert {(each.phase, each.round) for each in ends} == {(pb.PHASE_PUBLISHED, 1)}
    expected_weights = request.getfixturevalue("expected")
    expected = expected_weights(model, ["arosa", "bern", "chur"])
    merged = members[0].weights(1)
    assert merged.keys() == expected.keys()
    for weight, tensor in merged.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor.double(), expected[weight], rtol=0, atol=2e-6)
