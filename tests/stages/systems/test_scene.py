"""MEGA and BERT+SG are those of the loops, and what is absent, padding, or only an order has no influence."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.stages.systems.batch import Batch
from hmnet_pipe.stages.systems.system import System

from ... import loops, oracle, rigs
from ...rigs import CHANNELS, HIDDEN, LENGTHS, MARKERS, PRESENT, RELATED, RELATIONS, close

SAMPLES = range(len(LENGTHS))
OBJECTS = len(PRESENT[0]) - 1
WIDTH = 2 * HIDDEN
VOCABULARIES = {"object_labels": ["cat", "dog", "man"], "predicates": ["on", "under"]}

ENTRIES: dict[str, dict[str, Any]] = {
    "bert-sg": {},
    "bert-sg-att": {"fusion": "attention"},
    "bert-sg-edges": {"edges": True},
    "mega": {},
    "mega-unaligned": {"structural": "off"},
}
BERT_SG = [name for name in ENTRIES if name.startswith("bert")]


def model_of(system: str, **options: Any) -> Any:
    return rigs.model_of(rigs.config_of(system, "re", **VOCABULARIES, **{**ENTRIES[system], **options}))


def batch_of() -> Batch:
    """Return the texts and images of rigs with scenes; the second object of the last sample is in none."""
    generator = torch.Generator().manual_seed(11)
    batch = rigs.batch_of("re")
    shape = (len(LENGTHS), OBJECTS)
    mask = torch.ones(shape, dtype=torch.bool)
    mask[-1, 2] = False
    mask[0, 1] = False
    structure = torch.rand(*shape, max(LENGTHS), generator=generator, dtype=torch.float64)
    return replace(
        batch,
        object_mask=mask,
        object_labels=torch.randint(1, 5, shape, generator=generator),
        object_geometry=torch.rand(*shape, 8, generator=generator, dtype=torch.float64),
        object_edges=torch.randint(0, 4, (*shape, OBJECTS), generator=generator),
        structure=structure * (torch.rand(structure.shape, generator=generator) < 0.5),
    )


def objects_of(batch: Batch, sample: int) -> list[int]:
    """Return the objects of a sample that are in its scene and have features."""
    return [j for j in range(OBJECTS) if PRESENT[sample][1 + j] and bool(batch.object_mask[sample, j])]


def region(batch: Batch, sample: int, j: int) -> oracle.Array:
    level = rigs.last_level(batch, sample, 1 + j)
    side = level.shape[-1]
    return np.array(
        [sum(float(channel[a][b]) for a in range(side) for b in range(side)) / side**2 for channel in level]
    )


def added(*rows: oracle.Array) -> oracle.Array:
    return np.array([math.fsum(float(row[k]) for row in rows) for k in range(WIDTH)])


def scaled(one: oracle.Array, other: oracle.Array) -> float:
    return math.fsum(float(a) * float(b) for a, b in zip(one, other, strict=True)) / math.sqrt(WIDTH)


def pair_of(states: oracle.Array, sample: int) -> oracle.Array:
    _, head, tail = MARKERS[sample]
    return np.concatenate([states[head], states[tail]])


def bert_sg(model: Any, batch: Batch, states: oracle.Array, sample: int) -> oracle.Array:
    """Return v of BERT+SG."""
    weights, options = rigs.weights_of_module(model.objects), model.config.options
    there, pair = objects_of(batch, sample), pair_of(states, sample)
    found = []
    for j in there:
        parts = [loops.dense(region(batch, sample, j)[None], weights, "features")[0]]
        parts.append(weights["labels.weight"][int(batch.object_labels[sample, j])])
        parts.append(loops.dense(batch.object_geometry[sample, j].numpy()[None], weights, "geometry")[0])
        if options.get("edges"):
            into = [int(batch.object_edges[sample, i, j]) for i in there]
            into = [predicate for predicate in into if predicate]
            if into:
                parts.append(added(*(weights["predicates.weight"][p] for p in into)) / len(into))
        found.append(added(*parts))
    if options.get("fusion") == "attention":
        scores = [
            math.fsum(float(a) * float(b) for a, b in zip(pair, one, strict=True)) / math.sqrt(WIDTH)
            for one in found
        ]
        shares = loops.shares_of(scores)
    else:
        shares = [1 / len(found) for _ in found]
    return np.array(loops.mean_by(shares, np.array(found).reshape(-1, WIDTH), WIDTH))


def mega(model: Any, batch: Batch, states: oracle.Array, sample: int) -> oracle.Array:
    """Return v of MEGA."""
    weights = rigs.weights_of_module(model.objects)
    words = loops.dense(states, weights, "words")
    keys, values = (loops.dense(words, weights, name) for name in ("key", "value"))
    found = []
    for j in objects_of(batch, sample):
        visual = loops.dense(region(batch, sample, j)[None], weights, "regions")
        query = loops.dense(visual, weights, "query")[0]
        scores = [
            math.fsum(float(a) * float(b) for a, b in zip(query, key, strict=True)) / math.sqrt(WIDTH)
            for key in keys
        ]
        semantic = np.array(loops.mean_by(loops.shares_of(scores), values, WIDTH))
        if model.config.options.get("sigmoid", True):
            semantic = np.array([loops.sigmoid(float(value)) for value in semantic])
        structural = np.zeros(WIDTH)
        if batch.structure is not None:
            shares = [float(batch.structure[sample, j, k]) for k in range(LENGTHS[sample])]
            structural = np.array(loops.mean_by(shares, words, WIDTH))
        found.append(loops.dense(np.concatenate([semantic, structural])[None], weights, "aligned")[0])
    return added(*found) if found else np.zeros(WIDTH)


def logits_of(model: Any, batch: Batch, sample: int) -> oracle.Array:
    states = rigs.text_states(model, batch, sample)
    summary = (bert_sg if model.config.system in BERT_SG else mega)(model, batch, states, sample)
    weights = rigs.weights_of_module(model)
    joined = loops.dense(np.concatenate([pair_of(states, sample), summary])[None], weights, "joined")
    return loops.dense(joined, weights, "classifier")[0]


def batch_for(system: str) -> Batch:
    batch = batch_of()
    return replace(batch, structure=None) if system != "mega" else batch


@pytest.mark.parametrize("system", ENTRIES)
def test_logits_loss_and_prediction_are_those_of_the_loops(system: str) -> None:
    model, batch = model_of(system), batch_for(system)
    expected = [logits_of(model, batch, sample) for sample in SAMPLES]
    close(model(batch), np.array(expected))
    losses = [oracle.cross_entropy(row, label) for row, label in zip(expected, RELATED, strict=True)]
    close(model.loss(batch), math.fsum(losses) / len(losses))
    assert model.predict(batch) == [[RELATIONS[int(row.argmax())]] for row in expected]


@pytest.mark.parametrize("options", [{"sigmoid": False}])
def test_megas_sigmoid_is_a_switch(options: dict[str, Any]) -> None:
    model, batch = model_of("mega", **options), batch_of()
    close(model(batch), np.array([logits_of(model, batch, sample) for sample in SAMPLES]))
    assert not torch.allclose(model(batch), model_of("mega")(batch))


@pytest.mark.parametrize("switch", ["labels", "geometry"])
def test_what_an_object_is_made_of_can_be_left_out(switch: str) -> None:
    model = model_of("bert-sg", **{switch: False})
    assert not any(name.startswith(f"objects.{switch}.") for name in model.state_dict())
    assert model(batch_for("bert-sg")).isfinite().all()


@pytest.mark.parametrize("system", ENTRIES)
def test_without_objects_the_pair_goes_through_its_half_of_the_weights_exactly(system: str) -> None:
    model, batch = model_of(system), batch_for(system)
    pair = System.pooled(model, model.states(batch), batch)
    text = torch.nn.functional.linear(pair, model.joined.weight[:, : pair.shape[1]], model.joined.bias)
    expected = model.classifier(text)
    for nothing in (
        replace(batch, object_mask=torch.zeros_like(batch.object_mask)),
        rigs.without_views(batch),
        replace(batch, views=None, view_mask=None),
    ):
        assert torch.equal(model(nothing), expected)
    there = torch.tensor([bool(objects_of(batch, sample)) for sample in SAMPLES])
    assert ((model(batch) != expected).any(dim=1) == there).all()


@pytest.mark.parametrize("system", ENTRIES)
@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_what_is_absent_or_padding_has_no_influence(system: str, value: float) -> None:
    model, batch = model_of(system), batch_for(system)
    there = torch.tensor(PRESENT)[:, 1:] & batch.object_mask
    views = batch.views.clone()
    views[:, 1:][~there] = value
    padding = ~batch.attention_mask[:, None]
    changed = replace(
        rigs.spoilt(rigs.with_views(batch, views), value),
        object_labels=batch.object_labels.masked_fill(~there, 4),
        object_geometry=batch.object_geometry.masked_fill(~there[..., None], value),
        object_edges=batch.object_edges.masked_fill(~(there[:, :, None] & there[:, None]), 1),
        structure=None
        if batch.structure is None
        else batch.structure.masked_fill(~there[..., None] | padding, value),
    )
    assert torch.equal(model(changed), model(batch))


def test_absent_objects_and_padding_get_no_gradient() -> None:
    model, batch = model_of("mega"), batch_of()
    views, structure = (value.clone().requires_grad_() for value in (batch.views, batch.structure))
    words = model.states(batch).detach().requires_grad_()
    model.states = lambda batch: words
    model.loss(replace(batch, views=views, structure=structure)).backward()
    there = torch.tensor(PRESENT)[:, 1:] & batch.object_mask
    assert (views.grad[:, 1:][~there] == 0).all()
    assert (views.grad[:, 0] == 0).all()
    assert (structure.grad[~there] == 0).all()
    assert (words.grad[~batch.attention_mask] == 0).all()
    assert (views.grad[:, 1:, -CHANNELS[-1] :][there] != 0).any()


@pytest.mark.parametrize("system", ENTRIES)
def test_the_order_of_objects_does_not_count(system: str) -> None:
    model, batch = model_of(system), batch_for(system)
    order = torch.tensor([2, 0, 1])
    moved = replace(
        batch,
        views=torch.cat([batch.views[:, :1], batch.views[:, 1:][:, order]], dim=1),
        view_mask=torch.cat([batch.view_mask[:, :1], batch.view_mask[:, 1:][:, order]], dim=1),
        object_mask=batch.object_mask[:, order],
        object_labels=batch.object_labels[:, order],
        object_geometry=batch.object_geometry[:, order],
        object_edges=batch.object_edges[:, order][:, :, order],
        structure=None if batch.structure is None else batch.structure[:, order],
    )
    torch.testing.assert_close(model(moved), model(batch), rtol=0, atol=1e-12)


def test_an_absent_fourth_object_changes_nothing() -> None:
    model, batch = model_of("bert-sg-att"), batch_for("bert-sg-att")

    def more(value: torch.Tensor, axes: tuple[int, ...] = (1,)) -> torch.Tensor:
        for axis in axes:
            value = torch.cat([value, value.narrow(axis, 0, 1)], dim=axis)
        return value

    wider = replace(
        batch,
        views=more(batch.views),
        view_mask=more(batch.view_mask),
        object_mask=torch.cat([batch.object_mask, torch.zeros(len(LENGTHS), 1, dtype=torch.bool)], dim=1),
        object_labels=more(batch.object_labels),
        object_geometry=more(batch.object_geometry),
        object_edges=more(batch.object_edges, (1, 2)),
    )
    torch.testing.assert_close(model(wider), model(batch), rtol=0, atol=1e-12)


def test_of_one_object_attention_is_the_mean() -> None:
    batch = batch_for("bert-sg")
    mean, attention = model_of("bert-sg"), model_of("bert-sg-att")
    attention.load_state_dict(mean.state_dict())
    one = replace(batch, object_mask=torch.tensor([[True, False, False]] * len(LENGTHS)))
    torch.testing.assert_close(mean(one), attention(one), rtol=0, atol=1e-12)
    assert not torch.allclose(mean(batch), attention(batch))


def test_bert_sg_reads_relations_only_where_it_says_so() -> None:
    batch = batch_for("bert-sg")
    other = replace(batch, object_edges=3 - batch.object_edges)
    assert torch.equal(model_of("bert-sg")(batch), model_of("bert-sg")(other))
    assert not torch.allclose(model_of("bert-sg-edges")(batch), model_of("bert-sg-edges")(other))


def test_structure_moves_mega_by_the_words_that_it_aligns() -> None:
    model, batch = model_of("mega"), batch_of()
    moved = model(replace(batch, structure=1 - batch.structure))
    there = torch.tensor([bool(objects_of(batch, sample)) for sample in SAMPLES])
    assert ((moved != model(batch)).any(dim=1) == there).all()


def test_attention_to_objects_sums_to_one_and_the_mean_has_none_to_show() -> None:
    batch = batch_for("bert-sg-att")
    explained = model_of("bert-sg-att").explain(batch)
    assert explained.over == "objects"
    assert explained.attention.shape == (1, len(LENGTHS), 1, max(LENGTHS), OBJECTS)
    sums = explained.attention[0, :, 0].sum(dim=-1)
    assert sums[:, 0].tolist() == pytest.approx(
        [float(bool(objects_of(batch, sample))) for sample in SAMPLES]
    )
    assert torch.equal(explained.present, torch.tensor(PRESENT)[:, 1:] & batch.object_mask)
    with pytest.raises(InputError, match="bert-sg-att has one"):
        model_of("bert-sg").explain(batch)


def test_each_object_of_mega_shares_its_attention_out_among_sub_words() -> None:
    batch = batch_of()
    attention = model_of("mega").explain(batch).attention[0, :, 0]  # shape: (B, n, N)
    there = torch.tensor(PRESENT)[:, 1:] & batch.object_mask
    torch.testing.assert_close(attention.sum(dim=1), there.float())
    assert (attention[~batch.attention_mask] == 0).all()


@pytest.mark.parametrize("head", ["markers", "cls"])
@pytest.mark.parametrize("system", ENTRIES)
def test_both_relation_heads_fit(system: str, head: str) -> None:
    config = rigs.config_of(system, "re", **VOCABULARIES, **ENTRIES[system])
    model = rigs.model_of(replace(config, relation_head=head))
    assert model(batch_for(system)).shape == (len(LENGTHS), len(RELATIONS))


def test_features_of_the_image_alone_are_refused() -> None:
    config = replace(rigs.config_of("mega", "re", **VOCABULARIES), features={"regions": "image"})
    with pytest.raises(InputError, match="--features vector"):
        rigs.model_of(config)
