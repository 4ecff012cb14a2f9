"""UMGF is that of the loops, and what is absent, padding, or only an order has no influence on it."""

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.stages.systems.build import build_system
from hmnet_pipe.stages.systems.umgf import EdgeGate, GraphLayer
from hmnet_pipe.stages.text.encoders.bert import encoder_from_config
from torch import nn

from ... import loops, oracle, rigs
from ...rigs import CHANNELS, GOLD, HIDDEN, LENGTHS, PRESENT, TAGS, WORDS, close

SAMPLES = range(len(LENGTHS))
OBJECTS = [list(row[1:]) for row in PRESENT]
HEADS, EPS = 8, 1e-5


@cache
def model_of(task: str = "ner") -> Any:
    return rigs.model_of(rigs.config_of("umgf", task))


def attended(nodes: oracle.Array, weights: loops.Weights) -> oracle.Array:
    """Return x' or o'. Without projections of values and output, the values are the nodes."""
    mixed = loops.multi_head(nodes, nodes, loops.weights_of(weights, "attention"), HEADS)
    return loops.norm(nodes + mixed, weights, "attention_norm", EPS)


def received(nodes: oracle.Array, messages: oracle.Array, weights: loops.Weights) -> oracle.Array:
    nodes = loops.norm(nodes + messages, weights, "message_norm", EPS)
    inner = loops.feed_forward(nodes, loops.weights_of(weights, "feed_forward"), loops.relu)
    return loops.norm(nodes + inner, weights, "feed_forward_norm", EPS)


def pair_gate(word: oracle.Array, thing: oracle.Array, weights: loops.Weights) -> oracle.Array:
    """Return sigmoid(W [x; o] + b), with the whole W."""
    whole = np.concatenate([weights["word.weight"], weights["object.weight"]], axis=1)
    joined = np.concatenate([word, thing])[None]
    return loops.elementwise(oracle.linear(joined, whole, weights["word.bias"]), loops.sigmoid)[0]


def layer(
    words: oracle.Array, things: oracle.Array, weights: loops.Weights, edges: list[list[bool]]
) -> tuple[oracle.Array, oracle.Array, oracle.Array]:
    """Return the next sub-words and objects, and the mean gate from each object to each sub-word."""
    of_words, of_things = (loops.weights_of(weights, name) for name in ("words", "objects"))
    words = attended(words, of_words)
    things = attended(things, of_things) if len(things) else things
    to_words, to_things = np.zeros_like(words), np.zeros_like(things)
    means = np.zeros((len(words), len(things)))
    for t, word in enumerate(words):
        for j, thing in enumerate(things):
            if edges[t][j]:
                gate = pair_gate(word, thing, loops.weights_of(weights, "to_words"))
                to_words[t] += gate * thing
                if "to_objects.word.weight" in weights:
                    to_things[j] += pair_gate(word, thing, loops.weights_of(weights, "to_objects")) * word
                means[t, j] = math.fsum(gate) / len(gate)
    if "message_norm.weight" in of_things:
        things = received(things, to_things, of_things)
    return received(words, to_words, of_words), things, means


def fused(
    model: Any, text: oracle.Array, vectors: oracle.Array, edges: list[list[bool]] | None = None
) -> tuple[oracle.Array, list[oracle.Array]]:
    """Return [h0; x], (n, d + width), and the mean gates of every layer, of the objects that are there."""
    weights = rigs.weights_of_module(model.fusion)
    words = loops.dense(text, weights, "words")
    things = loops.dense(vectors, weights, "features") if len(vectors) else np.zeros((0, CHANNELS[-1]))
    for number in range(2):
        things = loops.elementwise(loops.dense(things, weights, f"objects.{number}"), loops.relu)
    edges = [[True] * len(things)] * len(words) if edges is None else edges
    gates = []
    for number in range(6):
        words, things, means = layer(words, things, loops.weights_of(weights, f"layers.{number}"), edges)
        gates.append(means)
    return np.concatenate([text, words], axis=1), gates


def vectors_of(batch: Any, sample: int) -> oracle.Array:
    """Return the objects of a sample: the mean of each one's cells."""
    views = [view for view, there in enumerate(OBJECTS[sample], start=1) if there]
    maps = [oracle.adaptive_pool(rigs.last_level(batch, sample, view), 1) for view in views]
    return np.array(maps).reshape(len(views), CHANNELS[-1])


@pytest.mark.parametrize("side", [1, 2])
def test_emissions_loss_and_prediction_are_those_of_the_loops(side: int) -> None:
    model, batch = model_of(), rigs.batch_of(side=side)
    weights, scores, explained = rigs.weights_of_module(model), model(batch), model.explain(batch)
    chain, expected = rigs.chain_of(model.crf), []
    for sample in SAMPLES:
        states, gates = fused(model, rigs.text_states(model, batch, sample), vectors_of(batch, sample))
        expected.append(loops.dense(states[list(WORDS[sample])], weights, "classifier"))
        close(scores[sample, : len(expected[-1])], expected[-1])
        for number, means in enumerate(gates):
            shown = explained.attention[number, sample, 0, : LENGTHS[sample]]
            close(shown[:, OBJECTS[sample]], means)
    losses = [
        -oracle.log_likelihood(gold, wanted, chain, TAGS) for gold, wanted in zip(GOLD, expected, strict=True)
    ]
    close(model.loss(batch), math.fsum(losses) / len(losses))
    assert model.predict(batch) == [
        [TAGS[tag] for tag in oracle.best_path(wanted, chain, TAGS)] for wanted in expected
    ]


@pytest.mark.parametrize("head", ["markers", "cls"])
def test_relation_logits_and_loss_are_those_of_the_loops(head: str) -> None:
    def states(model: Any, batch: Any, sample: int) -> oracle.Array:
        return fused(model, rigs.text_states(model, batch, sample), vectors_of(batch, sample))[0]

    rigs.check_relations("umgf", head, states)


def test_an_edge_that_is_not_there_removes_exactly_its_pair() -> None:
    model, batch = model_of(), rigs.batch_of()
    generator = torch.Generator().manual_seed(2)
    edges = torch.rand(len(LENGTHS), max(LENGTHS), 3, generator=generator) < 0.5
    with torch.no_grad():
        text = torch.zeros(len(LENGTHS), max(LENGTHS), HIDDEN, dtype=torch.float64)
        for sample in SAMPLES:
            text[sample, : LENGTHS[sample]] = torch.from_numpy(rigs.text_states(model, batch, sample))
        vectors = batch.views[:, 1:, -CHANNELS[-1] :].mean(dim=(-2, -1))
        mask = batch.view_mask[:, 1:]
        actual = model.fusion(text, batch.attention_mask, vectors, mask, edges)
    for sample in SAMPLES:
        chosen = edges[sample, : LENGTHS[sample]][:, OBJECTS[sample]].tolist()
        states, gates = fused(
            model, text[sample, : LENGTHS[sample]].numpy(), vectors_of(batch, sample), chosen
        )
        close(actual.states[sample, : LENGTHS[sample]], states)
        for number, means in enumerate(gates):
            close(actual.gates[number, sample, : LENGTHS[sample]][:, OBJECTS[sample]], means)


def test_with_one_object_and_a_gate_of_zeros_half_of_the_object_passes() -> None:
    torch.manual_seed(0)
    layer = GraphLayer(HIDDEN, HEADS).double().eval()
    for parameter in layer.to_words.parameters():
        nn.init.zeros_(parameter)
    words, thing = (torch.randn(1, count, HIDDEN, dtype=torch.float64) for count in (3, 1))
    messages: list[torch.Tensor] = []
    layer.words.message_norm.register_forward_pre_hook(lambda _, inputs: messages.append(inputs[0]))
    layer(words, torch.ones(1, 3).bool(), thing, torch.ones(1, 1).bool(), torch.ones(1, 3, 1).bool())
    after_attention = [
        side.attend(nodes, torch.ones(1, nodes.shape[1]).bool())
        for side, nodes in ((layer.words, words), (layer.objects, thing))
    ]
    torch.testing.assert_close(messages[0], after_attention[0] + 0.5 * after_attention[1])


@pytest.mark.parametrize("task", ["ner", "re"])
def test_what_is_absent_or_padding_has_no_influence(task: str) -> None:
    rigs.check_absent_and_padding(model_of(task), task)


@pytest.mark.parametrize("task", ["ner", "re"])
def test_without_objects_the_result_is_that_of_a_run_without_a_visual_branch(task: str) -> None:
    model, batch = model_of(task), rigs.without_views(rigs.batch_of(task))
    before = model(batch)
    other = rigs.with_views(batch, torch.full_like(batch.views, float("nan")))
    assert torch.equal(model(other), before)
    torch.testing.assert_close(model(replace(batch, views=None, view_mask=None)), before)
    assert (model.explain(batch).attention == 0).all()


def test_only_objects_count_and_their_order_does_not() -> None:
    model, batch = model_of(), rigs.batch_of()
    before = model(batch)
    image = batch.views.clone()
    image[:, 0] = 7.0
    assert torch.equal(model(rigs.with_views(batch, image)), before)
    assert model.looks_at(batch.view_mask).tolist() == [[False, *row] for row in OBJECTS]
    order = [0, 3, 1, 2]
    permuted = replace(batch, views=batch.views[:, order], view_mask=batch.view_mask[:, order])
    torch.testing.assert_close(model(permuted), before)
    objects = batch.views.clone()
    objects[:, 1:] += torch.randn_like(objects[:, 1:])
    changed = (model(rigs.with_views(batch, objects)) != before).flatten(1).any(dim=1)
    assert changed.tolist() == [any(row) for row in OBJECTS]


def test_what_is_explained_is_a_gate_of_every_object_that_is_there() -> None:
    explained = model_of().explain(rigs.batch_of())
    assert explained.over == "objects"
    assert explained.attention.shape == (6, len(LENGTHS), 1, max(LENGTHS), 3)
    assert explained.present.tolist() == OBJECTS
    there = torch.tensor(OBJECTS)[:, None] & rigs.batch_of().attention_mask[..., None]
    gates = explained.attention[:, :, 0]
    assert torch.equal((gates > 0).all(dim=0), there)
    assert torch.equal((gates != 0).any(dim=0), there)
    assert (gates < 1).all()


@pytest.mark.parametrize("task", ["ner", "re"])
def test_every_parameter_learns(task: str) -> None:
    model = rigs.model_of(rigs.config_of("umgf", task)).train()
    batch = rigs.batch_of(task)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # of so few units, dropout would leave some without a gradient
    model.loss(batch).backward()
    still = {name for name, parameter in model.named_parameters() if not parameter.grad.abs().max() > 0}
    assert {
        name for name in still if not name.endswith("key.bias")
    } == set()  # softmax cancels a bias of keys


def test_layers_differ_from_the_start_and_objects_attend_with_two_matrices() -> None:
    torch.manual_seed(0)
    model: Any = build_system(rigs.config_of("umgf"), encoder_from_config(rigs.encoder_config()))
    drawn = [
        getattr(getattr(layer, side).attention, name).weight
        for layer in model.fusion.layers
        for side in ("words", "objects")
        for name in ("query", "key")
    ]
    assert len(drawn) == 24
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])
    attention = model.fusion.layers[0].objects.attention
    assert sum(parameter.ndim == 2 for parameter in attention.parameters()) == 2
    assert sum(parameter.ndim == 2 for parameter in model.fusion.layers[0].words.attention.parameters()) == 4


def test_a_gate_is_drawn_as_one_matrix_of_both_halves_would_be() -> None:
    torch.manual_seed(0)
    gate, whole = EdgeGate(256), nn.Linear(512, 256)
    nn.init.xavier_uniform_(whole.weight)
    halves = torch.cat([gate.word.weight, gate.object.weight], dim=1)
    assert halves.shape == whole.weight.shape
    assert abs(halves.abs().max() - whole.weight.abs().max()) < 1e-3
    assert abs(halves.std() - whole.weight.std()) < 1e-3
    assert (gate.word.bias == 0).all()


def test_the_sizes_are_the_codes_where_the_encoder_is_not_narrower() -> None:
    config = rigs.encoder_config() | {"hidden_size": 576, "num_hidden_layers": 1, "num_attention_heads": 8}
    encoder = encoder_from_config(config)
    with torch.device("meta"):
        model: Any = build_system(replace(rigs.config_of("umgf"), encoder=config), encoder)
    assert [model.fusion.words.weight.shape, model.classifier.in_features] == [(512, 576), 576 + 512]
    assert model.fusion.layers[0].words.attention.heads == 8
    assert model.fusion.layers[0].words.feed_forward.inner.weight.shape == (256, 512)
    assert len(model.fusion.layers) == 6


def test_a_feature_set_without_objects_is_refused() -> None:
    config = replace(rigs.config_of("umgf"), features={"regions": "image"})
    with pytest.raises(InputError, match=r"umgf looks at objects, .*--features vector"):
        rigs.model_of(config)
