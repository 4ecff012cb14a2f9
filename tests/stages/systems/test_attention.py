"""The attention that systems share agrees with loops over the present keys; absent ones have no say."""

import math

import numpy as np
import pytest
import torch
from hmnet_pipe.stages.systems.attention import (
    AdditiveAttention,
    MultiHeadAttention,
    TransformerBlock,
    masked_softmax,
)
from torch import nn

from ... import loops

WIDTH, HEADS, QUERIES, KEYS = 12, 3, 5, 4
PRESENT = torch.tensor([[True, True, True, True], [True, False, True, False], [False] * 4])


def states(count: int, width: int = WIDTH) -> torch.Tensor:
    return torch.randn(len(PRESENT), count, width, dtype=torch.float64)


def random(module: nn.Module) -> dict[str, np.ndarray]:
    """Draw weights large enough that no softmax is near uniform, and return them."""
    module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.5)
    return {name: value.numpy() for name, value in module.state_dict().items()}


def close(actual: torch.Tensor, expected: np.ndarray) -> None:
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=0, atol=1e-9)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


def test_weights_sum_to_1_over_present_keys_and_are_0_at_absent_ones_and_in_rows_without_any() -> None:
    scores = 50 * states(QUERIES, KEYS)
    scores[1, :, 1] = math.inf
    weights = masked_softmax(scores, PRESENT[:, None])
    assert (weights.masked_select(~PRESENT[:, None].expand_as(weights)) == 0.0).all()
    torch.testing.assert_close(weights.sum(-1), PRESENT.any(-1).double()[:, None].expand(-1, QUERIES))
    expected = torch.softmax(scores[1][:, PRESENT[1]], dim=-1)
    torch.testing.assert_close(weights[1][:, PRESENT[1]], expected)


def test_a_row_without_a_key_has_a_gradient_of_0_and_halves_are_summed_in_fp32() -> None:
    scores = states(QUERIES, KEYS).requires_grad_()
    (masked_softmax(scores, PRESENT[:, None]) * states(QUERIES, KEYS)).sum().backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert (scores.grad[2] == 0).all()
    assert (scores.grad[0] != 0).any()
    assert masked_softmax(scores.detach().bfloat16(), PRESENT[:, None]).dtype == torch.float32


@pytest.mark.parametrize("concatenated", [False, True])
def test_additive_attention_is_that_of_the_loops(concatenated: bool) -> None:
    module = AdditiveAttention(WIDTH, 7, 6, concatenated=concatenated)
    weights, queries, keys = random(module), states(QUERIES), states(KEYS, 7)
    output, shares = module(queries, keys, PRESENT)
    for i, present in enumerate(PRESENT):
        there = keys[i, present].numpy()
        expected, expected_shares = loops.additive(
            queries[i].numpy(), there, weights, concatenated=concatenated
        )
        close(output[i], expected)
        close(shares[i][:, present], expected_shares)
    assert output[2].eq(0).all()
    # The concatenated score is a sum of one of the query and one of the key: no query has a say.
    assert torch.allclose(shares[0][:1].expand_as(shares[0]), shares[0]) == concatenated


@pytest.mark.parametrize(("value", "output"), [(True, True), (False, False), (True, False), (False, True)])
def test_multi_head_attention_is_that_of_the_loops(value: bool, output: bool) -> None:
    module = MultiHeadAttention(WIDTH, HEADS, value=value, output=output)
    weights, queries, keys = random(module), states(QUERIES), states(KEYS)
    assert {name.split(".")[0] for name in weights} == {
        "query",
        "key",
        *(["value"] if value else []),
        *(["output"] if output else []),
    }
    actual = module(queries, keys, PRESENT)
    for i, present in enumerate(PRESENT):
        close(
            actual.output[i],
            loops.multi_head(queries[i].numpy(), keys[i, present].numpy(), weights, HEADS),
        )
    assert actual.output[2].eq(0).all()
    assert actual.weights.shape == (len(PRESENT), HEADS, QUERIES, KEYS)
    torch.testing.assert_close(
        actual.weights.sum(-1), PRESENT.any(-1).double()[:, None, None].expand(-1, HEADS, QUERIES)
    )


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_a_block_is_that_of_the_loops(activation: str) -> None:
    module = TransformerBlock(WIDTH, HEADS, 9, getattr(nn.functional, activation), eps=1e-5, dropout=0.1)
    weights, queries, keys = random(module), states(QUERIES), states(KEYS)
    actual, _ = module(queries, keys, PRESENT)
    for i, present in enumerate(PRESENT):
        expected = loops.block(
            queries[i].numpy(),
            keys[i, present].numpy(),
            weights,
            heads=HEADS,
            eps=1e-5,
            activation=getattr(loops, activation),
        )
        close(actual[i], expected)


@pytest.mark.parametrize(
    "module",
    [
        AdditiveAttention(WIDTH, WIDTH, 6),
        MultiHeadAttention(WIDTH, HEADS),
        TransformerBlock(WIDTH, HEADS, 9, nn.functional.relu, eps=1e-5, dropout=0.0),
    ],
    ids=["additive", "multi-head", "block"],
)
def test_absent_keys_have_no_influence_and_the_order_of_keys_none_either(module: nn.Module) -> None:
    random(module)
    queries, keys = states(QUERIES), states(KEYS)
    before = module(queries, keys, PRESENT).output
    others = torch.where(PRESENT[..., None], keys, 1e3 * states(KEYS))
    assert torch.equal(module(queries, others, PRESENT).output, before)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(module(queries, keys[:, order], PRESENT[:, order]).output, before)
    moved = torch.where(PRESENT[..., None], keys + 1.0 * states(KEYS), keys)
    assert not torch.allclose(module(queries, moved, PRESENT).output[0], before[0])


def test_dropout_takes_weights_and_sums_in_training_alone() -> None:
    module = TransformerBlock(WIDTH, HEADS, 9, nn.functional.relu, eps=1e-5, dropout=0.5).double()
    queries, keys = states(QUERIES), states(KEYS)
    assert not torch.equal(module(queries, keys, PRESENT).output, module(queries, keys, PRESENT).output)
    first, second = (module.attention(queries, keys, PRESENT) for _ in range(2))
    assert torch.equal(first.weights, second.weights)  # as they were before dropout
    assert not torch.equal(first.output, second.output)
    module.eval()
    assert torch.equal(module(queries, keys, PRESENT).output, module(queries, keys, PRESENT).output)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="12 features cannot be split into 5 heads"):
        MultiHeadAttention(12, 5)
