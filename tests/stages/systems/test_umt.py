"""UMT is that of the loops, and what is absent, padding, or only an order has no influence on it."""

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.stages.systems.attention import TransformerBlock
from hmnet_pipe.stages.systems.build import build_system
from hmnet_pipe.stages.text.encoders.bert import encoder_from_config

from ... import loops, oracle, rigs
from ...rigs import GOLD, HEADS, HIDDEN, LENGTHS, PRESENT, TAGS, WORDS, close

SAMPLES = range(len(LENGTHS))
SPAN_TAGS = ("O", "B-span", "I-span")


@cache
def model_of(task: str = "ner") -> Any:
    return rigs.model_of(rigs.config_of("umt", task))


def block(queries: oracle.Array, keys: oracle.Array, weights: loops.Weights, name: str) -> oracle.Array:
    return loops.block(
        queries,
        keys,
        loops.weights_of(weights, name),
        heads=HEADS,
        eps=rigs.EPSILON,
        activation=loops.gelu,
    )


def fused(model: Any, text: oracle.Array, maps: oracle.Array | None) -> oracle.Array:
    """Return H, (n, 2d), of the states of a text and the last level of its image, if it has one."""
    weights = rigs.weights_of_module(model.fusion)
    cells = oracle.visual_sequence([] if maps is None else [maps])
    words = block(text, text, weights, "main")
    nothing = np.zeros((0, HIDDEN))
    keys, queries = (
        loops.dense(cells, weights, name) if len(cells) else nothing for name in ("keys", "queries")
    )
    visual = block(words, keys, weights, "to_image")
    aware = block(queries, words, weights, "to_text") if len(cells) else nothing
    textual = block(words, aware, weights, "to_aware_image")
    gates = loops.elementwise(
        loops.dense(np.concatenate([textual, visual], axis=1), weights, "gate"), loops.sigmoid
    )
    if maps is None:
        gates = np.zeros_like(gates)
    return np.concatenate([textual, gates * visual], axis=1)


def image_of(batch: Any, sample: int) -> oracle.Array | None:
    return rigs.last_level(batch, sample, 0) if PRESENT[sample][0] else None


def emissions(model: Any, batch: Any, sample: int) -> tuple[oracle.Array, oracle.Array]:
    """Return E and E_s of one sentence."""
    weights = rigs.weights_of_module(model)
    text = rigs.text_states(model, batch, sample)
    first = list(WORDS[sample])
    main = loops.dense(fused(model, text, image_of(batch, sample))[first], weights, "classifier")
    spans = loops.dense(block(text, text, weights, "spans.block")[first], weights, "spans.classifier")
    mixed = np.zeros_like(main)
    for word in range(len(first)):
        for number, tag in enumerate(TAGS):
            of_span = "OBI".index(tag[0])
            alike = sum(other[0] == tag[0] for other in TAGS)
            mixed[word, number] = 0.5 * main[word, number] + 0.5 * spans[word, of_span] / alike
    return mixed, spans


@pytest.mark.parametrize("side", [1, 2, 3])
def test_emissions_loss_and_prediction_are_those_of_the_loops(side: int) -> None:
    model, batch = model_of(), rigs.batch_of(side=side)
    scores = model(batch)
    expected = [emissions(model, batch, sample) for sample in SAMPLES]
    for sample, (wanted, _) in enumerate(expected):
        close(scores[sample, : len(wanted)], wanted)
    main, spans = rigs.chain_of(model.crf), rigs.chain_of(model.spans.crf)
    losses = []
    for gold, (of_tags, of_spans) in zip(GOLD, expected, strict=True):
        untyped = ["OBI".index(TAGS[tag][0]) for tag in gold]
        losses.append(
            -oracle.log_likelihood(gold, of_tags, main, TAGS)
            - 0.5 * oracle.log_likelihood(untyped, of_spans, spans, SPAN_TAGS)
        )
    close(model.loss(batch), math.fsum(losses) / len(losses))
    assert model.predict(batch) == [
        [TAGS[tag] for tag in oracle.best_path(wanted, main, TAGS)] for wanted, _ in expected
    ]


@pytest.mark.parametrize("head", ["markers", "cls"])
def test_relation_logits_and_loss_are_those_of_the_loops(head: str) -> None:
    def states(model: Any, batch: Any, sample: int) -> oracle.Array:
        return fused(model, rigs.text_states(model, batch, sample), image_of(batch, sample))

    rigs.check_relations("umt", head, states)


@pytest.mark.parametrize("task", ["ner", "re"])
def test_what_is_absent_or_padding_has_no_influence(task: str) -> None:
    rigs.check_absent_and_padding(model_of(task), task)


@pytest.mark.parametrize("task", ["ner", "re"])
def test_without_an_image_the_array_is_not_read_and_is_as_no_array_at_all(task: str) -> None:
    model, batch = model_of(task), rigs.without_views(rigs.batch_of(task))
    before = model(batch)
    other = rigs.with_views(batch, torch.full_like(batch.views, float("nan")))
    assert torch.equal(model(other), before)
    torch.testing.assert_close(model(replace(batch, views=None, view_mask=None)), before)


def test_a_gate_of_0_is_not_text_alone_since_text_sees_the_image_through_the_words_too() -> None:
    model, batch = rigs.model_of(rigs.config_of("umt", "re")), rigs.batch_of("re")
    with torch.no_grad():
        model.fusion.gate.weight.zero_()
        model.fusion.gate.bias.fill_(-1e9)
        states, alone = model.states(batch), model.states(rigs.without_views(batch))
    assert (states[..., HIDDEN:] == 0).all()
    there = torch.tensor([present[0] for present in PRESENT])
    assert not torch.allclose(states[there], alone[there])
    assert torch.equal(states[~there], alone[~there])


def test_only_the_whole_image_counts_and_the_order_of_its_cells_does_not() -> None:
    rigs.check_whole_image_alone(model_of())


def test_attention_sums_to_1_over_cells_and_over_real_sub_words() -> None:
    model, batch = model_of(), rigs.batch_of(side=7)
    over_text: list[torch.Tensor] = []
    hook = model.fusion.to_text.register_forward_hook(lambda *call: over_text.append(call[-1].weights))
    explained = model.explain(batch)
    hook.remove()
    assert explained.over == "cells"
    assert explained.attention.shape == (2, len(LENGTHS), HEADS, max(LENGTHS), 49)
    there = torch.tensor([row[0] for row in PRESENT]).double()
    torch.testing.assert_close(
        explained.attention.sum(-1), there[None, :, None, None].expand(explained.attention.shape[:-1])
    )
    assert torch.equal(explained.present, there[:, None].bool().expand(-1, 49))
    torch.testing.assert_close(over_text[0].sum(-1), torch.ones_like(over_text[0][..., 0]))
    assert (over_text[0].masked_select(~batch.attention_mask[:, None, None]) == 0).all()
    visual = explained.word_gates["visual"]
    assert visual.shape == batch.input_ids.shape
    assert ((visual > 0) & (visual < 1)).all(dim=1).tolist() == [row[0] for row in PRESENT]
    assert (visual[~there.bool()] == 0).all()


def test_each_span_tags_score_is_shared_out_among_its_tags() -> None:
    model = model_of()
    torch.testing.assert_close(model.spans.spread.sum(dim=1), torch.ones(3, dtype=torch.float64))
    assert model.spans.spread.tolist() == [[1, 0, 0, 0, 0], [0, 0.5, 0, 0.5, 0], [0, 0, 0.5, 0, 0.5][:5]]
    assert "spans.spread" not in dict(model.named_parameters())
    assert "spans.spread" not in model.state_dict()
    assert [SPAN_TAGS[i][0] for i in model.spans.of_tag.tolist()] == [tag[0] for tag in TAGS]


def test_alpha_of_0_leaves_the_spans_scores_and_alpha_of_1_with_beta_of_0_leaves_them_out() -> None:
    batch = rigs.batch_of()
    model = rigs.model_of(rigs.config_of("umt", alpha=0.0))
    scores, spans = model.emissions(batch)
    assert torch.equal(scores, spans @ model.spans.spread)
    model = rigs.model_of(rigs.config_of("umt", alpha=1.0, beta=0.0))
    model.loss(batch).backward()
    gradients = {name: parameter.grad.abs().max().item() for name, parameter in model.named_parameters()}
    assert {name for name, gradient in gradients.items() if name.startswith("spans.") and gradient} == set()
    assert gradients["fusion.main.attention.query.weight"] > 0


@pytest.mark.parametrize("task", ["ner", "re"])
def test_every_parameter_learns(task: str) -> None:
    model = rigs.model_of(rigs.config_of("umt", task)).train()
    model.loss(rigs.batch_of(task)).backward()
    still = {name for name, parameter in model.named_parameters() if not parameter.grad.abs().max() > 0}
    # The scores of tags that BIO forbids learn nothing, nor do biases that the softmax over keys cancels; a
    # sum over keys rounds them to a little more than 0.
    assert {name for name in still if not name.endswith("key.bias")} == set()


def test_the_five_blocks_differ_from_the_start() -> None:
    torch.manual_seed(0)
    model: Any = build_system(rigs.config_of("umt"), encoder_from_config(rigs.encoder_config()))
    blocks = [module for module in model.modules() if isinstance(module, TransformerBlock)]
    assert len(blocks) == 5
    drawn = [one.attention.query.weight for one in blocks]
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])
    assert 0.015 < torch.cat([one.flatten() for one in drawn]).std() < 0.025
    assert all((one.attention.query.bias == 0).all() for one in blocks)
    assert not torch.equal(model.fusion.keys.weight, model.fusion.queries.weight)


def test_a_feature_set_without_the_whole_image_is_refused() -> None:
    config = replace(rigs.config_of("umt"), features={"regions": "objects"})
    with pytest.raises(InputError, match=r"umt looks at the whole image, .*--features grid"):
        rigs.model_of(config)
