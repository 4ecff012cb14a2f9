"""OCSGA: against loops, and what objects may and may not change."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hmnet_pipe.stages.systems.ocsga import OCSGA, CoAttention, WordNorm, normalised_words
from hmnet_pipe.stages.systems.system import System
from hmnet_pipe.stages.text.vectors import Vectors

from ... import loops
from ...oracle import Array
from ...words import LABELS, TEXTS, batch_of, float_weights, system_on_words

OBJECTS = [[2, 4], [], [3, 3, 4]]


def ocsga(vectors: Vectors | None = None, **options: Any) -> System:
    model = system_on_words("ocsga", vectors=vectors, object_labels=list(LABELS), **options)
    with torch.no_grad():  # statistics and norms as after training, so that nothing hides behind 0 and 1
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif "norm" in name and value.is_floating_point():
                value.normal_(1, 0.3)
    return model


@pytest.fixture
def model() -> System:
    return ocsga()


def co_attended(weights: loops.Weights, words: Array, objects: Array, layers: int) -> Array:
    """Return what the objects say to the words of one text, in loops; both are those that are there."""
    if not len(objects):
        return np.zeros_like(words)
    how: Any = {"heads": 2, "eps": 1e-6, "activation": loops.relu}

    def part(name: str) -> loops.Weights:
        return loops.weights_of(weights, name)

    def among(rows: Array, layer: int) -> Array:
        attended = loops.multi_head(rows, rows, part(f"among.{layer}.attention"), 2)
        return loops.norm(rows + attended, part(f"among.{layer}"), "norm", 1e-6)

    for layer in range(layers):
        words = loops.block(words, words, part(f"words.{layer}"), **how)
    for layer in range(layers - 1):
        objects = loops.block(among(objects, layer), words, part(f"guided.{layer}"), **how)
    objects = among(objects, layers - 1)
    seen = loops.norm(loops.multi_head(words, objects, part("turned"), 2), weights, "turned_norm", 1e-6)
    return loops.norm(loops.feed_forward(seen, part("feed_forward"), loops.relu), weights, "norm", 1e-6)


@pytest.mark.parametrize("layers", [1, 2])
def test_co_attention_is_its_equations_in_loops(layers: int) -> None:
    torch.manual_seed(2)
    module = CoAttention(6, layers).double().eval()
    words, objects = torch.randn(3, 4, 6).double(), torch.randn(3, 3, 6).double()
    word_mask = torch.tensor([[True] * 4, [True] * 2 + [False] * 2, [True] * 3 + [False]])
    object_mask = torch.tensor([[True, True, False], [False] * 3, [True] * 3])
    got, weights = module(words, word_mask, objects, object_mask)
    for b in range(3):
        expected = co_attended(
            float_weights(module), words[b, word_mask[b]].numpy(), objects[b, object_mask[b]].numpy(), layers
        )
        assert np.abs(got[b, word_mask[b]].detach().numpy() - expected).max() < 1e-9
    assert got.shape == words.shape  # as many rows as words
    assert torch.allclose(weights[[0, 2]].sum(-1), torch.ones(1).double())
    assert not weights[1].any()
    assert not weights[0, ..., 2].any()


def test_emissions_are_those_of_text_and_objects_in_loops(model: System) -> None:
    texts, objects_of = [["Ada", "lives"], TEXTS[1]], [[2], []]
    batch = batch_of(texts, objects=objects_of, wider=2)
    got = model(batch).detach().numpy()
    weights = float_weights(model)
    for b, (text, ids) in enumerate(zip(texts, objects_of, strict=True)):
        states = model._text(batch_of([text])).detach().numpy()[0]
        objects = loops.dense(weights["objects.weight"][ids], weights, "project")
        states = states + co_attended(loops.weights_of(weights, "co_attention"), states, objects, 1)
        mean, variance = (weights[f"norm.norm.running_{name}"] for name in ("mean", "var"))
        states = (states - mean) / np.sqrt(variance + 1e-5)
        states = states * weights["norm.norm.weight"] + weights["norm.norm.bias"]
        expected = loops.dense(states, weights, "classifier")
        assert np.abs(got[b, : len(text)] - expected).max() < 1e-9


def test_without_objects_the_image_says_nothing(model: System) -> None:
    text_only = model(batch_of(TEXTS))
    assert torch.equal(model(batch_of(TEXTS, objects=[[], [], []])), text_only)
    assert torch.equal(model(batch_of(TEXTS, objects=[[], [], []], wider=2))[:, :8], text_only)
    beside = model(batch_of(TEXTS, objects=OBJECTS))
    assert torch.allclose(beside[1], text_only[1], atol=1e-12)
    assert not torch.allclose(beside[0], text_only[0], atol=1e-3)


def test_what_an_absent_object_is_called_changes_nothing(model: System) -> None:
    batch = batch_of(TEXTS, objects=OBJECTS)
    expected = model(batch)
    other = replace(batch, object_labels=torch.where(batch.object_mask, batch.object_labels, 3))
    assert torch.equal(model(other), expected)
    with torch.no_grad():
        model.objects.weight[0] = 7.0
    assert torch.equal(model(batch), expected)


def test_the_order_of_objects_changes_nothing(model: System) -> None:
    turned = [ids[::-1] for ids in OBJECTS]
    one, other = (model(batch_of(TEXTS, objects=ids)) for ids in (OBJECTS, turned))
    assert torch.allclose(one, other, atol=1e-12)


def test_the_label_of_a_present_object_changes_emissions(model: System) -> None:
    one = model(batch_of(TEXTS, objects=OBJECTS))
    other = model(batch_of(TEXTS, objects=[[2, 3], [], [3, 3, 4]]))
    assert not torch.allclose(one[0], other[0], atol=1e-4)
    assert torch.allclose(one[1:], other[1:], atol=1e-12)


def test_padding_changes_nothing(model: System) -> None:
    for wider, junk in ((0, 0), (3, 0), (3, 1)):
        got = model(batch_of(TEXTS, objects=OBJECTS, wider=wider, junk=junk))
        for b, text in enumerate(TEXTS):
            alone = model(batch_of([text], objects=[OBJECTS[b]]))[0]
            assert torch.allclose(got[b, : len(text)], alone, atol=1e-12)


def test_attention_is_explained_word_by_word_over_present_objects(model: System) -> None:
    found = model.explain(batch_of(TEXTS, objects=OBJECTS))
    assert found.over == "objects"
    assert found.gates is None
    assert found.attention.shape == (1, 3, 2, 8, 3)
    assert found.present.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    sums = found.attention.sum(-1)
    assert torch.allclose(sums[:, [0, 2]], torch.ones(1).double())
    assert not sums[:, 1].any()
    assert not found.attention[:, 0, ..., 2].any()


def test_statistics_are_those_of_the_real_words() -> None:
    torch.manual_seed(2)
    layer = WordNorm(4).double().train()
    states = torch.randn(2, 5, 4).double()
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    got = layer(states, mask)
    real = states[mask].numpy()
    expected = (real - real.mean(0)) / np.sqrt(real.var(0) + 1e-5)
    assert np.abs(got[mask].detach().numpy() - expected).max() < 1e-9
    assert not got[~mask].any()
    assert np.abs(layer.norm.running_mean.numpy() - 0.1 * real.mean(0)).max() < 1e-9
    assert np.abs(layer.norm.running_var.numpy() - (0.9 + 0.1 * real.var(0, ddof=1))).max() < 1e-9


def test_a_batch_of_a_single_word_is_normalised_by_the_words_so_far() -> None:
    torch.manual_seed(2)
    layer = WordNorm(4).double().train()
    states = torch.randn(1, 1, 4).double()
    layer(torch.randn(1, 5, 4).double(), torch.ones(1, 5, dtype=torch.bool))
    before = layer.norm.running_mean.clone()
    trained = layer(states, torch.tensor([[True]]))
    assert torch.equal(layer.norm.running_mean, before)
    assert torch.equal(trained, layer.eval()(states, torch.tensor([[True]])))


def test_labels_are_the_mean_of_their_words_vectors_and_frozen_or_else_learned() -> None:
    rows = {"traffic": [2.0] * 8, "light": [4.0] * 8, "bus": [1.0] * 8, "the": [0.5] * 8}
    vectors = Vectors(8, {word: np.array(row, np.float32) for word, row in rows.items()})
    with_file: Any
    without: Any
    with_file, without = ocsga(vectors), ocsga()
    assert isinstance(with_file, OCSGA)
    assert with_file.objects.weight[:, 0].tolist() == [
        0,
        0,
        1,
        0,
        3,
    ]  # none, unknown, bus, person, traffic light
    for model, learns in ((with_file, False), (without, True)):
        model.train()
        model.loss(batch_of(TEXTS, objects=OBJECTS, labels=[[0] * 8] * 3)).backward()
        assert (model.objects.weight.grad is not None) == learns
        assert model.objects.weight.requires_grad == learns
    assert without.objects.weight.grad[2:].abs().sum(1).gt(0).all()
    assert not without.objects.weight.grad[0].any()
    assert not without.objects.weight[:2].any()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("lengths", [(3, 1, 2), (1, 0, 0)])
def test_a_gpus_way_of_normalising_words_is_that_of_the_real_ones_alone(
    training: bool, lengths: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    layers = [WordNorm(4).double().train(training) for _ in range(2)]
    layers[0].norm.running_mean.normal_()
    layers[1].load_state_dict(layers[0].state_dict())
    mask = torch.arange(3)[None] < torch.tensor(lengths)[:, None]
    states = torch.randn(3, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 3, 4, dtype=torch.float64)
    ours, theirs = normalised_words(layers[0].norm, states, mask), layers[1](states, mask)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for one, other in zip(layers[0].state_dict().values(), layers[1].state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    gradients = [
        torch.autograd.grad((made * weight).sum(), [states, *layer.parameters()])
        for made, layer in zip((ours, theirs), layers, strict=True)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
