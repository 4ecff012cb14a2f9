"""Adaptive co-attention is that of the loops; what is absent, padding, or only an order has no influence."""

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hmnet_pipe.manifests.errors import InputError

from ... import loops, oracle, rigs
from ...rigs import GOLD, LENGTHS, PRESENT, TAGS, WORDS, close

SAMPLES = range(len(LENGTHS))
THERE = [row[0] for row in PRESENT]
SCORES = ("sum", "concat")


@cache
def model_of(score: str = "sum") -> Any:
    return rigs.model_of(rigs.config_of("adapcoatt-bert-crf", score=score))


def fused(
    model: Any, words: oracle.Array, maps: oracle.Array | None, score: str
) -> tuple[oracle.Array, dict[str, oracle.Array]]:
    """Return [h_t; u_t] of every word, (T, 2d), and what it came from."""
    if maps is None:
        return np.concatenate([words, np.zeros_like(words)], axis=1), {}
    weights, concatenated = rigs.weights_of_module(model.fusion), score == "concat"
    cells = loops.elementwise(loops.dense(oracle.visual_sequence([maps]), weights, "cells"), math.tanh)
    seen, to_cells = loops.additive(
        words, cells, loops.weights_of(weights, "to_cells"), concatenated=concatenated
    )
    read, to_words = loops.additive(
        seen, words, loops.weights_of(weights, "to_words"), concatenated=concatenated
    )
    visual = loops.elementwise(loops.dense(seen, weights, "visual"), math.tanh)
    textual = loops.elementwise(loops.dense(read, weights, "textual"), math.tanh)
    both = np.concatenate([visual, textual], axis=1)
    gate = loops.elementwise(loops.dense(both, weights, "gate"), loops.sigmoid)
    mixed = np.array([g[0] * p + (1 - g[0]) * q for g, p, q in zip(gate, visual, textual, strict=True)])
    sides = [loops.dense(words, weights, "word_filter"), loops.dense(mixed, weights, "mixed_filter")]
    filtration = loops.elementwise(
        loops.dense(np.concatenate(sides, axis=1), weights, "filtration"), loops.sigmoid
    )
    update = loops.elementwise(loops.dense(mixed, weights, "mixed"), math.tanh)
    admitted = np.array([f[0] * u for f, u in zip(filtration, update, strict=True)])
    came_from = {"to_cells": to_cells, "to_words": to_words, "visual": gate, "filtration": filtration}
    return np.concatenate([words, admitted], axis=1), came_from


@pytest.mark.parametrize("score", SCORES)
def test_emissions_attention_gates_loss_and_prediction_are_those_of_the_loops(score: str) -> None:
    model, batch = model_of(score), rigs.batch_of(side=3)
    weights, scores, explained = rigs.weights_of_module(model), model(batch), model.explain(batch)
    with torch.no_grad():
        actual = model.fused(model.states(batch), batch)
    chain, expected = rigs.chain_of(model.crf), []
    for sample in SAMPLES:
        first = list(WORDS[sample])
        maps = rigs.last_level(batch, sample, 0) if THERE[sample] else None
        words = rigs.text_states(model, batch, sample)[first]
        states, came_from = fused(model, words, maps, score)
        expected.append(loops.dense(states, weights, "classifier"))
        close(scores[sample, : len(first)], expected[-1])
        if maps is not None:
            close(actual.to_cells[sample, : len(first)], came_from["to_cells"])
            close(actual.to_words[sample, : len(first), : len(first)], came_from["to_words"])
            close(explained.attention[0, sample, 0, first], came_from["to_cells"])
            for name in ("visual", "filtration"):
                close(explained.word_gates[name][sample, first], came_from[name][:, 0])
    losses = [
        -oracle.log_likelihood(gold, wanted, chain, TAGS) for gold, wanted in zip(GOLD, expected, strict=True)
    ]
    close(model.loss(batch), math.fsum(losses) / len(losses))
    assert model.predict(batch) == [
        [TAGS[tag] for tag in oracle.best_path(wanted, chain, TAGS)] for wanted in expected
    ]


def test_a_closed_filter_leaves_the_text_whatever_the_image() -> None:
    model, batch = rigs.model_of(rigs.config_of("adapcoatt-bert-crf")), rigs.batch_of()
    alone = model(rigs.without_views(batch))
    assert not torch.allclose(model(batch), alone)
    with torch.no_grad():
        for half in (model.fusion.word_filter, model.fusion.mixed_filter):
            half.weight.zero_()
        model.fusion.filtration.bias.fill_(-1e9)
    assert torch.equal(model(batch), alone)
    with torch.no_grad():
        words = model.states(batch)[torch.arange(len(LENGTHS))[:, None], batch.positions]
        expected = model.classifier(torch.cat([words, torch.zeros_like(words)], dim=-1))
    assert torch.equal(alone, expected)


@pytest.mark.parametrize("score", SCORES)
def test_what_is_absent_or_padding_has_no_influence(score: str) -> None:
    model, batch = model_of(score), rigs.batch_of()
    rigs.check_absent_and_padding(model, "ner")
    without = rigs.without_views(batch)
    other = rigs.with_views(without, torch.full_like(batch.views, float("nan")))
    assert torch.equal(model(other), model(without))
    torch.testing.assert_close(model(replace(batch, views=None, view_mask=None)), model(without))


def test_attention_is_over_cells_and_over_real_words() -> None:
    model, batch = model_of(), rigs.batch_of(side=7)
    with torch.no_grad():
        actual = model.fused(model.states(batch), batch)
    there = torch.tensor(THERE)
    cells = actual.to_cells.sum(-1)
    torch.testing.assert_close(cells, there.double()[:, None].expand_as(cells))
    assert (actual.to_cells[~there] == 0).all()
    words = actual.to_words.sum(-1)
    torch.testing.assert_close(words, torch.ones_like(words))
    assert (actual.to_words.masked_select(~batch.position_mask[:, None]) == 0).all()
    for gate in (actual.gate, actual.filtration[there]):
        assert gate.shape[1:] == (batch.positions.shape[1], 1)
        assert ((gate > 0) & (gate < 1)).all()
    assert (actual.filtration[~there] == 0).all()


def test_words_that_differ_look_at_other_cells_unless_the_score_is_the_printed_one() -> None:
    batch = rigs.batch_of(side=3)
    for score in SCORES:
        model = model_of(score)
        with torch.no_grad():
            rows = model.fused(model.states(batch), batch).to_cells[0]
        assert torch.allclose(rows[:1].expand_as(rows), rows, atol=1e-12) == (score == "concat")


def test_the_ablation_has_the_printed_score() -> None:
    config = rigs.config_of("adapcoatt-bert-crf-concat", score="concat")
    assert rigs.model_of(config).fusion.to_cells.concatenated
    assert not model_of().fusion.to_cells.concatenated


def test_only_the_whole_image_counts_and_the_order_of_its_cells_does_not() -> None:
    rigs.check_whole_image_alone(model_of())


def test_what_is_explained_stands_at_the_first_sub_words_of_words_alone() -> None:
    model, batch = model_of(), rigs.batch_of(side=7)
    explained = model.explain(batch)
    assert explained.over == "cells"
    assert explained.attention.shape == (1, len(LENGTHS), 1, max(LENGTHS), 49)
    assert torch.equal(explained.present, torch.tensor(THERE)[:, None].expand(-1, 49))
    for sample in SAMPLES:
        others = [place for place in range(max(LENGTHS)) if place not in WORDS[sample]]
        assert (explained.attention[0, sample, 0, others] == 0).all()
        assert all((gate[sample, others] == 0).all() for gate in explained.word_gates.values())


@pytest.mark.parametrize("score", SCORES)
def test_every_parameter_learns(score: str) -> None:
    model = rigs.model_of(rigs.config_of("adapcoatt-bert-crf", score=score)).train()
    model.loss(rigs.batch_of()).backward()
    still = {name for name, parameter in model.named_parameters() if not parameter.grad.abs().max() > 1e-14}
    still -= {name for name in still if name.endswith("attention.self.key.bias")}  # softmax cancels it
    # In the printed score it cancels what is of the query too, which so learns nothing at all.
    assert still == set() if score == "sum" else all("query" in name for name in still)


def test_a_feature_set_without_the_whole_image_is_refused() -> None:
    config = replace(rigs.config_of("adapcoatt-bert-crf"), features={"regions": "objects"})
    with pytest.raises(InputError, match=r"adapcoatt-bert-crf looks at the whole image, .*--features grid"):
        rigs.model_of(config)
