"""The model against tests/oracle.py: every equation of the paper, in float64, for every system, with views
and words missing.
"""

import copy
import itertools
import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.stages.systems.batch import Batch, ModelConfig
from hmnet_pipe.stages.systems.build import build_system
from hmnet_pipe.stages.systems.fusion import as_sequence
from hmnet_pipe.stages.systems.heads import bio_crf
from hmnet_pipe.stages.text.encoders.attention import seeing
from hmnet_pipe.stages.text.encoders.bert import encode, encoder_from_config
from hmnet_pipe.stages.text.prefix import LayerPrefix
from hmnet_pipe.stages.vision.backbones import backbone_info
from hmnet_pipe.stages.vision.backbones.torchvision import ResNetBackbone
from hmnet_pipe.stages.vision.pooling import pooled_and_joined
from torchvision.models.feature_extraction import create_feature_extractor

from ... import oracle

HIDDEN, HEADS, LAYERS, CHANNELS, SIDE = 12, 2, 4, (3, 5, 2, 4), 2
VISUAL = ("hmnet", "hmnet-single", "hmnet-flat", "hmnet-1v3", "hmnet-onlyobj", "hmnet-onlyglobal")
GATED = ("hmnet", "hmnet-onlyobj", "hmnet-onlyglobal")
TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
RELATIONS = ("None", "/per/loc", "/per/org")
# The third sample has no view at all, the fourth no object, the fifth no global view.
PRESENT = [
    [True, True, True, True],
    [True, True, False, False],
    [False] * 4,
    [True, False, False, False],
    [False, True, False, True],
]
LENGTHS = [7, 5, 6, 3, 4]
WORDS = [[1, 2, 4, 5], [1, 3], [2, 3, 4], [1], [1, 2]]  # the first sub-word of each word
MARKERS = [[0, 1, 4], [0, 3, 1], [0, 2, 3], [0, 1, 1], [0, 2, 1]]


def close(actual: torch.Tensor, expected: np.ndarray) -> None:
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=0, atol=1e-9)


def seen_by(system: str) -> slice:
    """Return the views that a system looks at."""
    return {"hmnet-onlyobj": slice(1, None), "hmnet-onlyglobal": slice(1)}.get(system, slice(None))


def encoder_config(kind: str) -> dict[str, Any]:
    return {
        "model_type": kind,
        "vocab_size": 30,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 20,
        "max_position_embeddings": 16,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1 if kind == "roberta" else 0,
    }


class Rig:
    """One system with random weights in float64, the same for the oracle, and a batch of five texts."""

    def __init__(self, system: str, kind: str = "bert") -> None:
        torch.manual_seed(1)
        levels = CHANNELS if system in VISUAL else ()
        self.system, self.kind = system, kind
        config = ModelConfig(system, "ner", TAGS, levels, "markers", 16, {}, None)
        self.model = build_system(config, encoder_from_config(encoder_config(kind))).double().eval()
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                # Large enough that no softmax is near uniform and no gate near its kink for all views.
                parameter.normal_(1.0 if "LayerNorm.weight" in name else 0.0, 0.5)
        self.pad = encoder_config(kind)["pad_token_id"]
        ids = torch.randint(5, 30, (len(LENGTHS), max(LENGTHS)))
        mask = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]
        # What is absent or padding is not zero here: only a mask may keep it out.
        pyramid = torch.randn(len(LENGTHS), len(PRESENT[0]), sum(CHANNELS), SIDE, SIDE, dtype=torch.float64)
        width = max(map(len, WORDS))
        self.batch = Batch(
            input_ids=ids.masked_fill(~mask, self.pad),
            attention_mask=mask,
            positions=torch.tensor([[*row, *[0] * (width - len(row))] for row in WORDS]),
            position_mask=torch.tensor([[i < len(row) for i in range(width)] for row in WORDS]),
            labels=None,
            views=pyramid if levels else None,
            view_mask=torch.tensor(PRESENT) if levels else None,
            ids=list(range(len(LENGTHS))),
        )
        self.weights = {name: value.numpy() for name, value in self.model.encoder.state_dict().items()}
        self.fusion = self._fusion_weights()

    def _fusion_weights(self) -> oracle.Fusion:
        if self.system not in VISUAL:
            return oracle.Fusion({})
        state = {name: value.numpy() for name, value in self.model.fusion.state_dict().items()}
        names = {name.removesuffix(".weight") for name in state if name.endswith(".weight")}
        pairs = {name: (state[f"{name}.weight"], state[f"{name}.bias"]) for name in names}

        def numbered(kind: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
            return {
                int(name.split(".")[1]): pair for name, pair in pairs.items() if name.startswith(f"{kind}.")
            }

        projection = {
            level: (weight.reshape(HIDDEN, CHANNELS[level]), bias)
            for level, (weight, bias) in numbered("projections").items()
        }
        return oracle.Fusion(projection, numbered("gates"), numbered("phi"))

    def views(self, sample: int) -> list[list[np.ndarray]]:
        return [oracle.split_levels(view.numpy(), CHANNELS) for view in self.batch.views[sample]]

    @cache  # noqa: B019  (the rigs live as long as the tests do)
    def prefixes(self, sample: int) -> list[tuple[np.ndarray, np.ndarray] | None]:
        if self.system not in VISUAL:
            return [None] * LAYERS
        views = self.views(sample)
        return [
            oracle.prefix_of(self.system, layer, views, PRESENT[sample], self.fusion, LAYERS)
            for layer in range(LAYERS)
        ]

    @cache  # noqa: B019
    def states(self, sample: int) -> list[np.ndarray]:
        """Return the oracle's embedding and layer outputs of the real tokens of one text."""
        length = LENGTHS[sample]
        ids = self.batch.input_ids[sample, :length].tolist()
        first = self.pad + 1 if self.kind == "roberta" else 0
        positions = range(first, first + length)
        return oracle.encode(
            ids, positions, self.prefixes(sample), self.weights, head_count=HEADS, epsilon=1e-5
        )


@cache
def rig_of(system: str, kind: str = "bert") -> Rig:
    return Rig(system, kind)


@pytest.fixture(params=VISUAL)
def rig(request: pytest.FixtureRequest) -> Rig:
    return rig_of(request.param)


@pytest.fixture(params=[*VISUAL, "bert-crf"])
def any_rig(request: pytest.FixtureRequest) -> Rig:
    return rig_of(request.param)


# Pooling, equation 2.


@pytest.mark.parametrize(("size", "side"), [(64, 2), (72, 2), (72, 3), (40, 2)])
def test_pyramid_is_the_four_stages_in_eval_mode_adaptively_pooled(size: int, side: int) -> None:
    """At 72 pixels the maps have sides 18, 9, 5 and 3: bins overlap.

    At 40 the last, of 2 cells, comes after one of 3.
    """
    torch.manual_seed(0)
    resnet = torchvision.models.resnet18(weights=None).double()
    for module in resnet.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    names = {f"layer{number}": str(number) for number in (1, 2, 3, 4)}
    stages = create_feature_extractor(copy.deepcopy(resnet).eval(), names)
    pyramid = ResNetBackbone(backbone_info("resnet18"), resnet)
    pyramid.train()
    before = {name: value.clone() for name, value in pyramid.state_dict().items()}
    views = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        actual, maps = pooled_and_joined(pyramid(views), side), stages(views)
    assert pyramid.info.levels == (64, 128, 256, 512)
    for view in range(2):
        expected = np.concatenate([oracle.adaptive_pool(maps[level][view].numpy(), side) for level in "1234"])
        close(actual[view], expected)
    assert not any(module.training for module in pyramid.modules())
    assert all(torch.equal(before[name], value) for name, value in pyramid.state_dict().items())


# Projection, gate and prefix, equations 1 to 8.


def test_projection_is_equations_1_and_2(rig: Rig) -> None:
    maps = rig.model.fusion.project(rig.batch.views)
    used = {
        level for layer in range(LAYERS) for level in oracle.layer_levels(rig.system, layer, LAYERS) or ()
    }
    assert set(maps) == used
    for level, actual in maps.items():
        expected = [
            [oracle.project(view[level], *rig.fusion.projection[level]) for view in rig.views(i)]
            for i in range(len(LENGTHS))
        ]
        close(actual, np.array(expected))


@pytest.mark.parametrize("system", GATED)
def test_gate_is_equations_3_and_4_for_each_view_and_layer(system: str) -> None:
    rig = rig_of(system)
    gates = rig.model.fusion.gate_probabilities(rig.model.fusion.project(rig.batch.views))
    assert len(gates) == LAYERS
    expectations = []
    for layer, actual in enumerate(gates):
        expected = [
            [oracle.gate_of(system, layer, view, rig.fusion, LAYERS) for view in rig.views(i)]
            for i in range(len(LENGTHS))
        ]
        close(actual, np.array(expected))
        expectations.append(np.array(expected))
    # Otherwise the comparison would not tell a layer's or a view's gate from another's.
    assert np.ptp(np.array(expectations), axis=0).max() > 0.1
    assert np.ptp(expectations[0], axis=1).max() > 0.1


def test_systems_without_a_gate_have_none(rig: Rig) -> None:
    assert bool([*rig.model.fusion.gates.parameters()]) == (rig.system in GATED)
    assert set(rig.fusion.prefixes) == {
        layer for layer in range(LAYERS) if oracle.layer_levels(rig.system, layer, LAYERS)
    }


def test_prefix_is_equations_5_to_8_in_the_order_of_views_then_cells_row_by_row(rig: Rig) -> None:
    prefixes = rig.model.fusion(rig.batch.views, rig.batch.view_mask)
    assert len(prefixes) == LAYERS
    for sample, layer in itertools.product(range(len(LENGTHS)), range(LAYERS)):
        expected, prefix = rig.prefixes(sample)[layer], prefixes[layer]
        if oracle.layer_levels(rig.system, layer, LAYERS) is None:
            assert prefix is None
            continue
        cells = SIDE * SIDE
        present = PRESENT[sample][seen_by(rig.system)]
        assert (
            prefix.keys.shape
            == prefix.values.shape
            == (len(LENGTHS), HEADS, len(present) * cells, HIDDEN // HEADS)
        )
        assert prefix.mask[sample].tolist() == [there for there in present for _ in range(cells)]
        # The oracle leaves absent views out: what the mask lets through must be its rows, in its order.
        for actual, wanted in zip((prefix.keys, prefix.values), expected or ([], []), strict=True):
            values = actual[sample][:, prefix.mask[sample]]
            for head, rows in enumerate(oracle.heads(np.array(wanted), HEADS) if len(wanted) else []):
                close(values[head], rows)


def test_visual_sequence_keeps_views_in_order_and_cells_row_by_row() -> None:
    maps = torch.arange(2 * 3 * 5 * 2 * 2, dtype=torch.float64).reshape(2, 3, 5, 2, 2)
    expected = [oracle.visual_sequence(list(sample.numpy())) for sample in maps]
    close(as_sequence(maps), np.array(expected))


@pytest.mark.parametrize("layers", [8, 12])
def test_each_level_of_1v3_reaches_l_over_4_layers(layers: int) -> None:
    values = {**encoder_config("bert"), "num_hidden_layers": layers}
    model = build_system(
        ModelConfig("hmnet-1v3", "ner", TAGS, CHANNELS, "markers", 16, {}, None), encoder_from_config(values)
    )
    expected = [oracle.layer_levels("hmnet-1v3", layer, layers) for layer in range(layers)]
    assert [[level] for level in model.fusion.level_of_layer] == expected


def test_stored_half_precision_is_computed_on_in_the_precision_of_the_weights() -> None:
    rig = rig_of("hmnet")
    half = rig.batch.views.half()
    prefixes, expected = (rig.model.fusion(pyramid, rig.batch.view_mask) for pyramid in (half, half.double()))
    for prefix, wanted in zip(prefixes, expected, strict=True):
        assert prefix.keys.dtype == torch.float64
        assert torch.equal(prefix.keys, wanted.keys)
        assert torch.equal(prefix.values, wanted.values)


# Attention and encoder, equations 7 and 9.


def forward_prefix(rig: Rig) -> list[LayerPrefix | None] | None:
    return rig.model.fusion(rig.batch.views, rig.batch.view_mask) if rig.system in VISUAL else None


def test_attention_is_equation_9_in_every_layer(any_rig: Rig) -> None:
    calls: dict[int, Any] = {}
    encoder: Any = any_rig.model.encoder.encoder
    hooks = [
        layer.attention.self.register_forward_hook(
            lambda module, args, kwargs, output, index=index: calls.update(
                {index: ((args or (kwargs["hidden_states"],))[0], output[0])}
            ),
            with_kwargs=True,
        )
        for index, layer in enumerate(encoder.layer)
    ]
    encode(
        any_rig.model.encoder, any_rig.batch.input_ids, any_rig.batch.attention_mask, forward_prefix(any_rig)
    )
    for hook in hooks:
        hook.remove()
    assert sorted(calls) == list(range(LAYERS))
    for sample, length in enumerate(LENGTHS):
        for index, (inputs, outputs) in calls.items():
            rows = inputs[sample, :length].detach().numpy()
            name = f"encoder.layer.{index}.attention.self"
            close(
                outputs[sample, :length],
                oracle.attention(rows, any_rig.prefixes(sample)[index], name, any_rig.weights, HEADS),
            )


def test_every_layer_of_the_encoder_is_the_oracles(any_rig: Rig) -> None:
    prefix = forward_prefix(any_rig)
    with seeing(prefix):
        output = any_rig.model.encoder(
            input_ids=any_rig.batch.input_ids,
            attention_mask=any_rig.batch.attention_mask,
            output_hidden_states=True,
        )
    last = encode(any_rig.model.encoder, any_rig.batch.input_ids, any_rig.batch.attention_mask, prefix)
    for sample, length in enumerate(LENGTHS):
        expected = any_rig.states(sample)
        for actual, wanted in zip([*output.hidden_states, last], [*expected, expected[-1]], strict=True):
            close(actual[sample, :length], wanted)


@pytest.mark.parametrize("system", ["hmnet", "hmnet-single", "bert-crf"])
def test_a_roberta_encoder_is_the_oracles_with_its_positions(system: str) -> None:
    rig = rig_of(system, "roberta")
    last = encode(rig.model.encoder, rig.batch.input_ids, rig.batch.attention_mask, forward_prefix(rig))
    for sample, length in enumerate(LENGTHS):
        close(last[sample, :length], rig.states(sample)[-1])


def test_the_prefix_changes_what_the_oracle_says_it_does(rig: Rig) -> None:
    """Guards the comparisons above: a sample with views differs from the plain text, one without does not."""
    for sample, present in enumerate(PRESENT):
        ids, length = rig.batch.input_ids[sample, : LENGTHS[sample]].tolist(), LENGTHS[sample]
        text = oracle.encode(
            ids, range(length), [None] * LAYERS, rig.weights, head_count=HEADS, epsilon=1e-5
        )[-1]
        assert np.allclose(text, rig.states(sample)[-1], atol=1e-6) != any(present[seen_by(rig.system)])


# Entity head, equation 10.


def emissions_of(rig: Rig, sample: int) -> np.ndarray:
    weight, bias = rig.model.classifier.weight.detach().numpy(), rig.model.classifier.bias.detach().numpy()
    return oracle.linear(rig.states(sample)[-1][WORDS[sample]], weight, bias)


def chain_of(crf: torch.nn.Module) -> oracle.Chain:
    """Return the scores as they are trained, before BIO forbids any."""
    state = {
        name.removeprefix("parametrizations.").removesuffix(".original"): value
        for name, value in crf.state_dict().items()
    }
    return oracle.Chain(
        *(state[name].numpy() for name in ("start_transitions", "transitions", "end_transitions"))
    )


def a_valid_path(length: int, generator: np.random.Generator) -> tuple[int, ...]:
    paths = list(oracle.valid_sequences(TAGS, length))
    return paths[generator.integers(len(paths))]


def test_emissions_loss_and_prediction_of_every_system_are_the_oracles(any_rig: Rig) -> None:
    model, generator = any_rig.model, np.random.default_rng(0)
    gold = [a_valid_path(len(words), generator) for words in WORDS]
    width = max(map(len, WORDS))
    labels = torch.tensor([[*path, *[0] * (width - len(path))] for path in gold])
    batch = Batch(**{**vars(any_rig.batch), "labels": labels})
    scores = model(batch)
    expected = [emissions_of(any_rig, sample) for sample in range(len(WORDS))]
    for sample, wanted in enumerate(expected):
        close(scores[sample, : len(wanted)], wanted)
    chain = chain_of(model.crf)
    likelihoods = [
        oracle.log_likelihood(path, wanted, chain, TAGS) for path, wanted in zip(gold, expected, strict=True)
    ]
    close(model.loss(batch), np.array(-math.fsum(likelihoods) / len(likelihoods)))
    assert model.predict(batch) == [
        [TAGS[tag] for tag in oracle.best_path(wanted, chain, TAGS)] for wanted in expected
    ]


@pytest.mark.parametrize("scale", [0.5, 3.0, 30.0])
def test_crf_is_the_enumeration_of_all_valid_sequences(scale: float) -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        crf = bio_crf(TAGS).double()
        with torch.no_grad():
            for parameter in crf.parameters():
                parameter.copy_(torch.from_numpy(generator.normal(0, scale, parameter.shape)))
        chain = chain_of(crf)
        lengths = [1, *generator.integers(1, 5, 3).tolist(), 5]
        width = max(lengths)
        emissions = generator.normal(0, scale, (len(lengths), width, len(TAGS)))
        mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
        gold = [a_valid_path(length, generator) for length in lengths]
        tags = torch.tensor([[*path, *generator.integers(0, len(TAGS), width - len(path))] for path in gold])
        actual = crf(torch.from_numpy(emissions), tags, mask=mask, reduction="none")
        rows = [rows[:length] for rows, length in zip(emissions, lengths, strict=True)]
        expected = [
            oracle.log_likelihood(path, row, chain, TAGS) for path, row in zip(gold, rows, strict=True)
        ]
        close(actual, np.array(expected))
        decoded = crf.decode(torch.from_numpy(emissions), mask=mask)
        assert decoded == [oracle.best_path(row, chain, TAGS) for row in rows]


def test_decoding_never_gives_invalid_bio_whatever_the_scores() -> None:
    torch.manual_seed(0)
    for trial in range(300):
        crf = bio_crf(TAGS)
        emissions = torch.randn(4, 9, len(TAGS)) * 10 ** (trial % 4)
        # Scores that beg for I- tags, at the start and after every other tag.
        emissions[..., 2] += 5 * (trial % 7) * 10 ** (trial % 3)
        with torch.no_grad():
            crf.parametrizations.transitions.original.normal_(0, 30)
        mask = torch.arange(9)[None] < torch.randint(1, 10, (4,))[:, None]
        mask[0] = True
        for path in crf.decode(emissions, mask=mask):
            names = [None, *(TAGS[tag] for tag in path)]
            assert all(oracle.may_follow(before, tag) for before, tag in itertools.pairwise(names))


def test_forbidden_transitions_are_forbidden_after_training_them() -> None:
    """The gradient of a forbidden score is zero, so that no training can bring it back."""
    crf = bio_crf(TAGS).double()
    mask = torch.ones(2, 4, dtype=torch.bool)
    loss = -crf(
        torch.randn(2, 4, len(TAGS), dtype=torch.float64),
        torch.tensor([[1, 2, 0, 3], [0, 0, 1, 2]]),
        mask=mask,
    )
    loss.backward()
    gradient = crf.parametrizations.transitions.original.grad
    for before, after in itertools.product(range(len(TAGS)), repeat=2):
        if not oracle.may_follow(TAGS[before], TAGS[after]):
            assert gradient[before, after] == 0
    assert gradient.abs().max() > 0


def test_a_task_without_entities_still_has_a_crf() -> None:
    assert bio_crf(("O",)).decode(torch.randn(1, 3, 1), mask=torch.ones(1, 3, dtype=torch.bool)) == [
        [0, 0, 0]
    ]


# Relation heads, equation 11.


@pytest.mark.parametrize("head", ["cls", "markers"])
@pytest.mark.parametrize("system", [*VISUAL, "mtb"])
def test_relation_logits_loss_and_prediction_are_the_oracles(system: Any, head: str) -> None:
    rig = rig_of(system if system != "mtb" else "bert-crf")
    config = ModelConfig(system, "re", RELATIONS, rig.model.config.levels, head, 16, {}, None)
    torch.manual_seed(2)
    model = build_system(config, rig.model.encoder).double().eval()
    if system in VISUAL:
        model.fusion = rig.model.fusion
    torch.nn.init.normal_(model.classifier.bias)
    labels = [1, 0, 2, 1, 0]
    changed = {
        "positions": torch.tensor(MARKERS),
        "position_mask": torch.ones(5, 3, dtype=torch.bool),
        "labels": torch.tensor(labels),
    }
    batch = Batch(**{**vars(rig.batch), **changed})
    weights = model.classifier.weight.detach().numpy(), model.classifier.bias.detach().numpy()
    expected = []
    for sample, (_, first, second) in enumerate(MARKERS):
        states = rig.states(sample)[-1]
        if system == "mtb":
            read = np.concatenate([states[first], states[second]]) if head == "markers" else states[0]
            pair = oracle.linear(read[None], *(value.detach().numpy() for value in model.pair.parameters()))
            expected.append(oracle.cls_logits(pair, *weights))
        elif head == "markers":
            expected.append(oracle.marker_logits(states, first, second, *weights))
        else:
            expected.append(oracle.cls_logits(states, *weights))
    close(model(batch), np.array(expected))
    losses = [oracle.cross_entropy(logits, label) for logits, label in zip(expected, labels, strict=True)]
    close(model.loss(batch), np.array(math.fsum(losses) / len(losses)))
    assert model.predict(batch) == [[RELATIONS[int(np.argmax(logits))]] for logits in expected]


def test_a_gradient_reaches_every_part_of_every_system(any_rig: Rig) -> None:
    """Whatever is trained must matter: a weight that the forward pass does not read has no gradient."""
    model = copy.deepcopy(any_rig.model)
    batch = Batch(**{**vars(any_rig.batch), "labels": torch.zeros_like(any_rig.batch.positions)})
    model.loss(batch).backward()
    idle = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 0
    ]
    assert idle == []


# What a model looked at, for figures.


def test_explained_gates_and_attention_are_the_oracles(rig: Rig) -> None:
    before = rig.model(rig.batch)
    explained = rig.model.explain(rig.batch)
    assert torch.equal(rig.model(rig.batch), before)
    seen = seen_by(rig.system)
    for sample, (present, length) in enumerate(zip(PRESENT, LENGTHS, strict=True)):
        for layer in range(LAYERS):
            views = rig.views(sample)[seen]
            for number, view in enumerate(views):
                if rig.system in GATED:
                    entering = view if present[seen][number] else [np.zeros_like(level) for level in view]
                    close(
                        explained.gates[layer, sample, number],
                        np.array(oracle.gate_of(rig.system, layer, entering, rig.fusion, LAYERS)),
                    )
            expected = np.zeros((HEADS, length, len(views)))
            if (phi := rig.prefixes(sample)[layer]) is not None:
                rows, name = rig.states(sample)[layer], f"encoder.layer.{layer}.attention.self"
                sides = {
                    part: (rig.weights[f"{name}.{part}.weight"], rig.weights[f"{name}.{part}.bias"])
                    for part in ("query", "key")
                }
                queries, keys = (oracle.linear(rows, *sides[part]) for part in ("query", "key"))
                visible = [number for number, there in enumerate(present[seen]) if there]
                for head in range(HEADS):
                    parts = [oracle.heads(matrix, HEADS)[head] for matrix in (queries, phi[0], keys)]
                    for word in range(length):
                        scores = [
                            float(parts[0][word] @ key) / math.sqrt(HIDDEN // HEADS)
                            for key in [*parts[1], *parts[2]]
                        ]
                        weights = oracle.softmax(scores)
                        for place, number in enumerate(visible):
                            expected[head, word, number] = sum(
                                weights[place * SIDE**2 : (place + 1) * SIDE**2]
                            )
            close(explained.attention[layer, sample, :, :length], expected)
    if rig.system not in GATED:
        assert explained.gates is None


def test_what_is_explained_in_bf16_still_are_probabilities() -> None:
    rig = rig_of("hmnet")
    model = copy.deepcopy(rig.model).float()
    assert rig.batch.views is not None
    batch = replace(rig.batch, views=rig.batch.views.float())
    with torch.autocast("cpu", torch.bfloat16):
        explained = model.explain(batch)
    exact = model.explain(batch)
    assert explained.gates is not None
    assert exact.gates is not None
    assert not torch.equal(explained.gates, exact.gates)  # it was bf16
    torch.testing.assert_close(
        explained.gates.sum(dim=-1), torch.ones_like(explained.gates[..., 0]), atol=1e-6, rtol=0
    )
    assert explained.attention.dtype == torch.float32
    torch.testing.assert_close(explained.attention, exact.attention, atol=0.02, rtol=0)


def test_a_text_only_system_has_nothing_to_explain() -> None:
    with pytest.raises(InputError, match="no gate and no attention"):
        rig_of("bert-crf").model.explain(rig_of("bert-crf").batch)
