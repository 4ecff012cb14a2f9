"""Systems with random weights in float64, and batches of five texts and images with parts missing.

What is absent or padding is not zero in a batch: only a mask can keep it out.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from hmnet_pipe.stages.systems.batch import Batch, ModelConfig
from hmnet_pipe.stages.systems.build import build_system
from hmnet_pipe.stages.text.encoders.bert import encoder_from_config
from torch import nn

from . import oracle
from .loops import Weights

HIDDEN, HEADS, LAYERS, VOCABULARY, EPSILON = 16, 2, 2, 30, 1e-5
CHANNELS = (3, 6)
"""Of the two levels of the features; the systems here read the last."""

TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
RELATIONS = ("None", "/per/loc", "/per/org")
PRESENT = (
    (True, True, True, True),
    (True, True, False, False),
    (False,) * 4,
    (True, False, False, False),
    (False, True, False, True),
)
"""Of each sample, the whole image and its objects: the third has no view, the fourth no object, the fifth no
whole image.
"""
LENGTHS = (7, 5, 6, 3, 4)
WORDS = ((1, 2, 4, 5), (1, 3), (2, 3, 4), (1,), (1, 2))
"""The first sub-word of each word."""
GOLD = ((1, 2, 0, 3), (0, 3), (3, 4, 4), (0,), (1, 0))
MARKERS = ((0, 1, 4), (0, 3, 1), (0, 2, 3), (0, 1, 1), (0, 2, 1))
RELATED = (1, 0, 2, 1, 0)


def encoder_config() -> dict[str, Any]:
    return {
        "model_type": "bert",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 20,
        "max_position_embeddings": 16,
        "type_vocab_size": 2,
        "layer_norm_eps": EPSILON,
        "pad_token_id": 0,
    }


def config_of(system: str, task: str = "ner", **options: Any) -> ModelConfig:
    labels = TAGS if task == "ner" else RELATIONS
    features = {"regions": "all"}
    return ModelConfig(system, task, labels, CHANNELS, "markers", 16, encoder_config(), features, options)


def model_of(config: ModelConfig) -> Any:
    """Return a system in evaluation mode, in float64.

    Its weights are large enough that no softmax is near uniform and no gate near 1/2 for all.
    """
    torch.manual_seed(1)
    model = build_system(config, encoder_from_config(config.encoder)).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm.weight" in name.lower() else 0.0, 0.5)
    return model


def batch_of(task: str = "ner", *, side: int = 2) -> Batch:
    """Return five texts with their images, each of the whole and three objects, and with labels."""
    generator = torch.Generator().manual_seed(4)
    mask = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(5, VOCABULARY, mask.shape, generator=generator)
    views = torch.randn(
        len(LENGTHS), len(PRESENT[0]), sum(CHANNELS), side, side, generator=generator, dtype=torch.float64
    )
    width = max(map(len, WORDS))
    positions = torch.tensor([[*row, *[0] * (width - len(row))] for row in WORDS])
    position_mask = torch.tensor([[i < len(row) for i in range(width)] for row in WORDS])
    labels = torch.tensor([[*row, *[0] * (width - len(row))] for row in GOLD])
    if task == "re":
        positions, labels = torch.tensor(MARKERS), torch.tensor(RELATED)
        position_mask = torch.ones_like(positions, dtype=torch.bool)
    return Batch(
        input_ids=torch.where(mask, ids, 0),
        attention_mask=mask,
        positions=positions,
        position_mask=position_mask,
        labels=labels,
        views=views,
        view_mask=torch.tensor(PRESENT),
        ids=list(range(len(LENGTHS))),
    )


def text_with(views: torch.Tensor, mask: torch.Tensor) -> Batch:
    """Return one text of two words and its views. views: as the model takes them. mask: (1, V)."""
    ids = torch.tensor([[2, 5, 6, 3]])
    return Batch(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        positions=torch.tensor([[1, 2]]),
        position_mask=torch.ones(1, 2, dtype=torch.bool),
        labels=torch.tensor([[1, 2]]),
        views=views,
        view_mask=mask,
        ids=[0],
    )


def only(batch: Batch, sample: int, *, length: int, words: int) -> Batch:
    """Return one sample alone, cut to its own length: a batch without padding."""
    one = slice(sample, sample + 1)
    values: Mapping[str, Any] = {
        name: value[one] for name, value in vars(batch).items() if isinstance(value, torch.Tensor)
    }
    cut = {
        "input_ids": values["input_ids"][:, :length],
        "attention_mask": values["attention_mask"][:, :length],
        "positions": values["positions"][:, :words],
        "position_mask": values["position_mask"][:, :words],
    }
    return replace(batch, **{**values, **cut}, ids=[0])


def with_views(batch: Batch, views: torch.Tensor) -> Batch:
    return replace(batch, views=views)


def spoilt(batch: Batch, value: float = float("nan")) -> Batch:
    """Return the batch with another content of its absent views and its padding."""
    assert batch.views is not None
    assert batch.view_mask is not None
    views = batch.views.masked_fill(~batch.view_mask[:, :, None, None, None], value)
    ids = torch.where(batch.attention_mask, batch.input_ids, VOCABULARY - 1)
    positions = torch.where(batch.position_mask, batch.positions, 2)
    return replace(batch, views=views, input_ids=ids, positions=positions)


def without_views(batch: Batch) -> Batch:
    assert batch.view_mask is not None
    return replace(batch, view_mask=torch.zeros_like(batch.view_mask))


def weights_of_module(module: nn.Module) -> Weights:
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def text_states(model: Any, batch: Batch, sample: int) -> oracle.Array:
    """Return the encoder's states, in loops, of the real sub-words of a text: (n, d)."""
    ids = batch.input_ids[sample, : LENGTHS[sample]].tolist()
    encoder = weights_of_module(model.encoder)
    return oracle.encode(ids, range(len(ids)), [None] * LAYERS, encoder, head_count=HEADS, epsilon=EPSILON)[
        -1
    ]


def last_level(batch: Batch, sample: int, view: int) -> oracle.Array:
    """Return the last level of one view: (C, p, p)."""
    assert batch.views is not None
    return batch.views[sample, view, -CHANNELS[-1] :].numpy()


def chain_of(crf: nn.Module) -> oracle.Chain:
    """Return the scores as they are trained, before BIO forbids any."""
    state = {
        name.removeprefix("parametrizations.").removesuffix(".original"): value
        for name, value in weights_of_module(crf).items()
    }
    return oracle.Chain(*(state[name] for name in ("start_transitions", "transitions", "end_transitions")))


def close(actual: torch.Tensor, expected: np.ndarray | float) -> None:
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=0, atol=1e-9)


def check_relations(system: str, head: str, states_of: Callable[[Any, Batch, int], oracle.Array]) -> None:
    """Compare logits, loss and prediction of relations with those of the loops.

    states_of: the states, in loops, of the real sub-words of a sample, of a model and a batch.
    """
    model = model_of(replace(config_of(system, "re"), relation_head=head))
    batch = batch_of("re")
    weights, logits = weights_of_module(model), model(batch)
    expected = []
    for sample in range(len(LENGTHS)):
        states = states_of(model, batch, sample)
        weight, bias = weights["classifier.weight"], weights["classifier.bias"]
        _, first, second = MARKERS[sample]
        expected.append(
            oracle.cls_logits(states, weight, bias)
            if head == "cls"
            else oracle.marker_logits(states, first, second, weight, bias)
        )
    close(logits, np.array(expected))
    losses = [oracle.cross_entropy(row, label) for row, label in zip(expected, RELATED, strict=True)]
    close(model.loss(batch), math.fsum(losses) / len(losses))
    assert model.predict(batch) == [[RELATIONS[int(row.argmax())]] for row in expected]


def check_absent_and_padding(model: Any, task: str) -> None:
    """Check that absent views and padding have no influence, and that a text says the same alone."""
    batch = batch_of(task)
    real = batch.position_mask if task == "ner" else ...
    before = model(batch)
    for value in (float("nan"), 1e4):
        assert torch.equal(model(spoilt(batch, value))[real], before[real])
    for sample, length in enumerate(LENGTHS):
        words = len(WORDS[sample]) if task == "ner" else 3
        alone = model(only(batch, sample, length=length, words=words))
        torch.testing.assert_close(alone[0], before[sample, :words] if task == "ner" else before[sample])


def check_whole_image_alone(model: Any) -> None:
    """Check that of the views the whole image alone counts, and that its cells have no order."""
    batch, there = batch_of(side=3), [row[0] for row in PRESENT]
    assert batch.views is not None
    before = model(batch)
    objects = batch.views.clone()
    objects[:, 1:] += 1
    assert torch.equal(model(with_views(batch, objects)), before)
    assert model.looks_at(batch.view_mask).tolist() == [[seen, False, False, False] for seen in there]
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    permuted = batch.views.flatten(-2)[..., order].unflatten(-1, (3, 3))
    torch.testing.assert_close(model(with_views(batch, permuted)), before)
    image = batch.views.clone()
    image[:, 0] += torch.randn_like(image[:, 0])
    changed = (model(with_views(batch, image)) != before).flatten(1).any(dim=1)
    assert changed.tolist() == there
