"""Adam for many vectors at once."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from collabedit.client.descent import Descent

FREE = float("inf")


def gradients(seed: int, steps: int, n: int) -> list[torch.Tensor]:
    """[n, 5] for each step, of sizes that differ by a thousand."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-2, 1, n, dtype=torch.float64).unsqueeze(1)
    return [torch.randn(n, 5, dtype=torch.float64, generator=generator) * scale for _ in range(steps)]


def by_torch(given_: list[torch.Tensor], rate: float) -> torch.Tensor:
    """The same steps by torch.optim.Adam, all vectors as one tensor."""
    delta = torch.zeros_like(given_[0], requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=rate)
    for each in given_:
        delta.grad = each
        optimiser.step()
    return delta.detach()


@given(
    seed=st.integers(0, 99), steps=st.integers(1, 20), late=st.integers(0, 10), rate=st.sampled_from([0.01, 0.1, 0.5])
)
def test_each_vector_takes_the_steps_that_torchs_adam_would(seed: int, steps: int, late: int, rate: float) -> None:
    """Also one that begins when the others have already taken some: its bias correction is its own."""
    early, after = gradients(seed, late, 3), gradients(seed + 1, steps, 4)
    descent = Descent.at_rest(torch.full((3,), FREE, dtype=torch.float64), 5)
    for each in early:
        descent = descent.step(each, rate)
    descent = descent.joined(Descent.at_rest(torch.full((1,), FREE, dtype=torch.float64), 5))
    for each in after:
        descent = descent.step(each, rate)
    old = by_torch([*early, *(each[:3] for each in after)], rate)
    new = by_torch([each[3:] for each in after], rate)
    torch.testing.assert_close(descent.delta, torch.cat([old, new]), rtol=1e-12, atol=1e-14)
    assert descent.steps.tolist() == [late + steps] * 3 + [steps]


@given(seed=st.integers(0, 99), most=st.floats(1e-3, 10))
def test_no_vector_is_longer_than_its_bound(seed: int, most: float) -> None:
    """After every step ‖δ‖ ≤ most, and the direction is the step's."""
    bounds = torch.tensor([most, FREE], dtype=torch.float64)
    bound, free = Descent.at_rest(bounds, 5), Descent.at_rest(bounds.fill_(FREE), 5)
    bound = Descent(bound.delta, bound.mean, bound.square, torch.tensor([most, FREE], dtype=torch.float64), bound.steps)
    for each in gradients(seed, 6, 2):
        bound, free = bound.step(each, 0.5), free.step(each, 0.5)
        assert float(bound.delta[0].norm()) <= most * (1 + 1e-12)
        torch.testing.assert_close(bound.delta[1], free.delta[1])


def test_a_vector_goes_on_alone_as_it_did_among_others() -> None:
    """Taking some of the vectors out changes none of their later steps."""
    descent = Descent.at_rest(torch.full((3,), FREE, dtype=torch.float64), 5)
    first, second = gradients(1, 2, 3)
    whole = descent.step(first, 0.1).step(second, 0.1)
    some = torch.tensor([2, 0])
    alone = descent.step(first, 0.1).only(some).step(second[some], 0.1)
    assert torch.equal(alone.delta, whole.delta[some])
