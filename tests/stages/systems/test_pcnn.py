"""PCNN: against a loop over segments, and what must not leak from padding or from one segment to another."""

from typing import Any

import numpy as np
import pytest
import torch
from hmnet_pipe.stages.systems.pcnn import relative_positions, segments
from hmnet_pipe.stages.systems.system import System

from ...oracle import Array
from ...words import TEXTS, batch_of, float_weights, system_on_words

PAIRS = [((0, 1), (3, 4)), ((3, 4), (1, 3)), ((0, 1), (7, 8))]


@pytest.fixture
def model() -> Any:
    return system_on_words("pcnn", "re")


def logits_of(model: System, words: list[int], head: int, tail: int) -> Array:
    """Return the logits of one text, in loops."""
    weights = float_weights(model)
    longest = model.config.max_length
    rows = [
        np.concatenate(
            [
                weights["encoder.vectors.weight"][word],
                weights["head_positions.weight"][place - head + longest],
                weights["tail_positions.weight"][place - tail + longest],
            ]
        )
        for place, word in enumerate(words)
    ]
    kernel, bias = weights["convolution.weight"], weights["convolution.bias"]
    nothing = np.zeros_like(rows[0])
    padded = [nothing, *rows, nothing]
    values = [
        np.array(
            [
                bias[f] + sum(float(kernel[f, :, k] @ padded[place + k]) for k in range(3))
                for f in range(len(bias))
            ]
        )
        for place in range(len(rows))
    ]
    first, second = min(head, tail), max(head, tail)
    pooled: list[float] = []
    for members in (
        [i for i in range(len(rows)) if i <= first],
        [i for i in range(len(rows)) if first < i <= second],
        [i for i in range(len(rows)) if i > second],
    ):
        for f in range(len(bias)):
            pooled.append(max([0.0, *(values[i][f] for i in members)]))
    return weights["classifier.weight"] @ np.array(pooled) + weights["classifier.bias"]


def test_it_is_the_largest_value_of_each_filter_in_each_segment_in_loops(model: Any) -> None:
    batch = batch_of(TEXTS, PAIRS, wider=2)
    got = model(batch).detach().numpy()
    for b, (text, (head, tail)) in enumerate(zip(TEXTS, PAIRS, strict=True)):
        words = batch.input_ids[b, : len(text)].tolist()
        assert np.abs(got[b] - logits_of(model, words, head[0], tail[0])).max() < 1e-9


def test_an_empty_segment_gives_zeros(model: Any) -> None:
    batch = batch_of(TEXTS[2:], PAIRS[2:])
    pooled = model.pooled(model.states(batch), batch)
    assert pooled.shape == (1, 690)
    assert pooled[0, :460].ne(0).any()
    assert not pooled[0, 460:].any()
    same = batch_of(TEXTS[:1], [((0, 1), (0, 4))])  # nested: both start at one word
    assert not model.pooled(model.states(same), same)[0, 230:460].any()


def test_padding_changes_nothing(model: Any) -> None:
    for wider, junk in ((0, 0), (4, 0), (4, 5)):
        got = model(batch_of(TEXTS, PAIRS, wider=wider, junk=junk))
        for b in range(len(TEXTS)):
            alone = model(batch_of(TEXTS[b : b + 1], PAIRS[b : b + 1]))[0]
            assert torch.allclose(got[b], alone, atol=1e-12)


def test_swapping_head_and_tail_swaps_the_positions_and_leaves_the_segments(model: Any) -> None:
    swapped = [(tail, head) for head, tail in PAIRS]
    one, other = batch_of(TEXTS, PAIRS), batch_of(TEXTS, swapped)
    mask = one.attention_mask
    assert torch.equal(segments(mask, one.spans[:, :, 0]), segments(mask, other.spans[:, :, 0]))
    assert not torch.allclose(model(one), model(other), atol=1e-3)
    weights = [model.head_positions.weight, model.tail_positions.weight]
    columns = model.convolution.weight[:, -10:].clone()
    expected = model(one)
    with torch.no_grad():
        weights[0].data, weights[1].data = weights[1].data.clone(), weights[0].data.clone()
        model.convolution.weight[:, -10:] = torch.cat([columns[:, 5:], columns[:, :5]], dim=1)
    assert torch.allclose(model(other), expected, atol=1e-12)


def test_large_values_in_one_segment_do_not_move_the_maxima_of_another(model: Any) -> None:
    batch = batch_of(TEXTS[:1], PAIRS[:1])
    states = model.states(batch)
    before = model.pooled(states, batch)[0].view(3, -1)
    for part, places in enumerate(([0], [1, 2, 3], [4, 5, 6])):
        for shift in (1000.0, -1000.0):
            moved = states.clone()
            moved[0, places] += shift
            after = model.pooled(moved, batch)[0].view(3, -1)
            others = [k for k in range(3) if k != part]
            assert torch.equal(after[others], before[others])
            assert not torch.equal(after[part], before[part])


def test_a_real_word_never_has_the_position_of_padding() -> None:
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    for longest in (3, 6):
        for start in range(4):
            found = relative_positions(mask, torch.tensor([start, start]), longest)
            assert found[mask].ge(1).all()
            assert found.max() <= 2 * longest - 1
            assert not found[~mask].any()
    assert relative_positions(mask, torch.tensor([2, 0]), 6)[0].tolist() == [4, 5, 6, 7, 8, 9]


def test_units_are_dropped_once_and_twice_only_on_request(model: Any) -> None:
    twice = system_on_words("pcnn-double-dropout", "re", double_dropout=True)
    batch = batch_of(TEXTS * 40, PAIRS * 40)
    shares = []
    for one in (model, twice):
        kept: list[torch.Tensor] = []
        one.classifier.register_forward_pre_hook(lambda _, given, kept=kept: kept.append(given[0]))
        alive = one.eval()(batch) is not None and kept.pop().ne(0)
        one.train()(batch)
        shares.append((kept[0].ne(0) & alive).sum().item() / alive.sum().item())
    assert 0.45 < shares[0] < 0.55
    assert 0.2 < shares[1] < 0.3
