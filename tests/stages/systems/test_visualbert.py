"""VisualBERT: equal to transformers' own model and to loops, whatever is absent; and what it starts from."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hmnet_pipe.manifests.errors import InputError, WeightsError
from hmnet_pipe.pipeline.report.text import trials_table
from hmnet_pipe.stages.learning.optimizer import parameter_groups
from hmnet_pipe.stages.learning.recipe import TrainSettings
from hmnet_pipe.stages.systems.batch import Batch, ModelConfig
from hmnet_pipe.stages.systems.build import build_system, new_system
from hmnet_pipe.stages.systems.folder import load_system
from hmnet_pipe.stages.text.encoders.bert import encode, load_encoder, load_tokenizer
from hmnet_pipe.stages.text.subwords import Subwords
from transformers import VisualBertConfig, VisualBertForPreTraining, VisualBertModel

from ... import loops, oracle

LEVELS, SIDE, WIDTH = (3, 6), 2, 6
TAGS = ("O", "B-PER", "I-PER")
RELATIONS = ("None", "/per/loc", "/per/org")
LENGTHS = [6, 4, 3, 5]
# All views, two of them, none, and objects alone.
PRESENT = [[True] * 4, [True, True, False, False], [False] * 4, [False, True, False, True]]
HEADS, LAYERS, EPS = 2, 4, 1e-12


def config_of(task: str = "ner", head: str = "markers") -> ModelConfig:
    labels = TAGS if task == "ner" else RELATIONS
    return ModelConfig("visualbert", task, labels, LEVELS, head, 32, {}, None)


def model_of(folder: Path, task: str = "ner", head: str = "markers") -> Any:
    torch.manual_seed(3)
    return new_system(folder, config_of(task, head), Subwords.of_encoder(folder, task)).eval()


def batch_of(task: str = "ner") -> Batch:
    """Return texts and views in float64; what is absent or padding holds numbers too."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]
    words, markers = [[1, 2], [1, 2], [1, 1], [2, 3]], [[0, 1, 3], [0, 2, 1], [0, 1, 2], [0, 4, 1]]
    return Batch(
        input_ids=torch.randint(5, 60, mask.shape, generator=generator),
        attention_mask=mask,
        positions=torch.tensor(words if task == "ner" else markers),
        position_mask=torch.tensor([[True, True], [True, True], [True, False], [True, True]])
        if task == "ner"
        else torch.ones(4, 3, dtype=torch.bool),
        labels=torch.tensor([[0, 1], [1, 2], [0, 0], [1, 0]] if task == "ner" else [0, 1, 2, 1]),
        views=torch.randn(4, 4, sum(LEVELS), SIDE, SIDE, generator=generator, dtype=torch.float64),
        view_mask=torch.tensor(PRESENT),
        ids=list(range(4)),
    )


@pytest.fixture(scope="module")
def model(tiny_encoder: Path) -> Any:
    """Return a model for entities in float64 whose parts all matter."""
    return enlarged(model_of(tiny_encoder))


def enlarged(model: Any) -> Any:
    torch.manual_seed(2)
    model = model.double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "LayerNorm.weight" in name else 0.0, 0.4)
    return model


def vectors_of(batch: Batch) -> torch.Tensor:
    """Return the mean of the last level's cells of every view, (B, V, WIDTH)."""
    assert batch.views is not None
    return batch.views[:, :, -WIDTH:].mean(dim=(-2, -1))


def loop_states(model: Any, batch: Batch, sample: int) -> np.ndarray:
    weights = {name: value.numpy() for name, value in model.encoder.state_dict().items()}
    ids = batch.input_ids[sample, : LENGTHS[sample]].tolist()
    views = vectors_of(batch)[sample][torch.tensor(PRESENT[sample])].numpy()
    return loops.visualbert(ids, views, weights, heads=HEADS, eps=EPS, layers=LAYERS)


def test_entity_emissions_are_those_of_loops_with_absent_views_and_padding(model: Any) -> None:
    batch = batch_of()
    emissions = model(batch).detach().numpy()
    assert emissions.shape == (4, 2, len(TAGS))
    head = [value.detach().numpy() for value in model.classifier.parameters()]
    for sample in range(4):
        states = loop_states(model, batch, sample)
        expected = oracle.linear(states[batch.positions[sample].tolist()], *head)
        np.testing.assert_allclose(emissions[sample], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("head", ["markers", "cls"])
def test_relation_logits_are_those_of_loops(tiny_encoder: Path, head: str) -> None:
    model, batch = enlarged(model_of(tiny_encoder, "re", head)), batch_of("re")
    logits = model(batch).detach().numpy()
    weights = [value.detach().numpy() for value in model.classifier.parameters()]
    for sample in range(4):
        states = loop_states(model, batch, sample)
        _, first, second = batch.positions[sample].tolist()
        expected = (
            oracle.marker_logits(states, first, second, *weights)
            if head == "markers"
            else oracle.cls_logits(states, *weights)
        )
        np.testing.assert_allclose(logits[sample], expected, rtol=0, atol=1e-9)


def test_the_states_are_those_of_transformers_own_model(model: Any) -> None:
    batch = batch_of()
    theirs = (
        VisualBertModel(VisualBertConfig(**model.config.encoder), add_pooling_layer=False).double().eval()
    )
    theirs.load_state_dict(model.encoder.state_dict())
    expected = theirs(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask.long(),
        token_type_ids=torch.zeros_like(batch.input_ids),
        visual_embeds=torch.where(batch.view_mask[..., None], vectors_of(batch), 0.0),
        visual_attention_mask=batch.view_mask.long(),
        visual_token_type_ids=torch.ones(4, 4, dtype=torch.long),
    ).last_hidden_state[:, : max(LENGTHS)]
    assert torch.equal(model.states(batch), expected)


def test_without_any_view_it_is_bert_on_the_text_with_the_same_weights(tiny_encoder: Path) -> None:
    model, bert = model_of(tiny_encoder), load_encoder(tiny_encoder).eval()
    batch = replace(batch_of(), view_mask=torch.zeros(4, 4, dtype=torch.bool))
    text = encode(bert, batch.input_ids, batch.attention_mask, None)
    real = batch.attention_mask
    for one in (batch, replace(batch, views=None, view_mask=None)):
        torch.testing.assert_close(model.states(one)[real], text[real], rtol=0, atol=1e-5)


def test_what_an_absent_view_holds_is_irrelevant_and_a_present_one_counts(model: Any) -> None:
    batch = batch_of()
    expected = model(batch)
    for filling in (1e4, float("nan"), float("inf")):
        spoilt = torch.where(batch.view_mask[..., None, None, None], batch.views, filling)
        assert torch.equal(model(replace(batch, views=spoilt)), expected)
    for view in range(4):
        changed = batch.views.clone()
        changed[:, view] += 1.0
        moved = (model(replace(batch, views=changed)) - expected).abs().amax(dim=(1, 2)) > 1e-6
        assert moved.tolist() == [present[view] for present in PRESENT]


def test_views_have_no_order(model: Any) -> None:
    batch = batch_of()
    order = [3, 1, 0, 2]
    turned = replace(batch, views=batch.views[:, order], view_mask=batch.view_mask[:, order])
    torch.testing.assert_close(model(turned), model(batch), rtol=0, atol=1e-12)


def test_from_a_bert_the_text_side_is_its_own_and_the_visual_tables_are_copies(tiny_encoder: Path) -> None:
    old = load_encoder(tiny_encoder).state_dict()
    model = model_of(tiny_encoder)
    now = model.encoder.state_dict()
    assert all(torch.equal(now[name], value) for name, value in old.items())
    for table in ("token_type", "position"):
        copied = now[f"embeddings.visual_{table}_embeddings.weight"]
        assert torch.equal(copied, old[f"embeddings.{table}_embeddings.weight"])
    tables = model.encoder.embeddings
    assert tables.visual_token_type_embeddings.weight is not tables.token_type_embeddings.weight
    projection = tables.visual_projection
    assert projection.weight.shape == (32, WIDTH)
    assert 0.015 < projection.weight.std() < 0.025
    assert not projection.bias.any()
    assert model.config.qualifiers == ["bert-init"]
    metrics = {"system": "visualbert", "qualifiers": model.config.qualifiers, "valid": None, "test": None}
    assert "visualbert[bert-init]  " in trials_table([metrics])


def test_the_projection_follows_from_the_seed_and_the_rest_is_as_in_other_systems(tiny_encoder: Path) -> None:
    def made(seed: int, system: str = "visualbert") -> list[torch.Tensor]:
        torch.manual_seed(seed)
        config = replace(config_of("re"), system=system)
        model: Any = new_system(tiny_encoder, config, Subwords.of_encoder(tiny_encoder, "re"))
        words = model.encoder.get_input_embeddings().weight
        own = [model.encoder.embeddings.visual_projection.weight] if system == "visualbert" else []
        return [words, model.classifier.weight, torch.rand(1), *own]

    one, again, other = made(1), made(1), made(2)
    assert all(map(torch.equal, one, again))
    assert not torch.equal(one[-1], other[-1])
    assert all(map(torch.equal, one[:3], made(1, "hmnet")))


def test_the_markers_are_new_rows_of_the_embedding_and_nothing_else_changes(tiny_encoder: Path) -> None:
    entities, relations = (model_of(tiny_encoder, task).encoder.state_dict() for task in ("ner", "re"))
    words = "embeddings.word_embeddings.weight"
    rows = len(entities[words])
    assert len(relations[words]) == rows + 4
    assert torch.equal(relations[words][:rows], entities[words])
    assert all(torch.equal(relations[name], value) for name, value in entities.items() if name != words)


def visual_checkpoint(folder: Path, tokenizer: Path, **values: Any) -> Path:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    vocabulary = load_tokenizer(tokenizer)
    config = VisualBertConfig(
        **{**sizes, "vocab_size": len(vocabulary), "visual_embedding_dim": 9, "pad_token_id": 0, **values}
    )
    torch.manual_seed(9)
    VisualBertForPreTraining(config).save_pretrained(folder)
    vocabulary.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("width", [9, WIDTH])
def test_a_checkpoint_of_visualbert_is_loaded_as_it_is_but_for_the_projection(
    tmp_path: Path, tiny_encoder: Path, width: int
) -> None:
    folder = visual_checkpoint(tmp_path / "checkpoint", tiny_encoder, visual_embedding_dim=width)
    model = model_of(folder)
    theirs = VisualBertForPreTraining.from_pretrained(folder).visual_bert.state_dict()
    now = model.encoder.state_dict()
    name = "embeddings.visual_projection.weight"
    assert now[name].shape == (32, WIDTH)
    assert width != WIDTH or not torch.equal(now[name], theirs[name]), "its regions are not ours"
    kept = [name for name in now if "visual_projection" not in name]
    assert any("visual_position" in name for name in kept)
    assert all(torch.equal(now[name], theirs[name]) for name in kept)
    assert model.config.qualifiers == []
    model.save_pretrained(tmp_path / "model", Subwords.of_encoder(folder, "ner"))
    opened = load_system(tmp_path / "model")
    batch = replace(batch_of(), views=batch_of().views.float())
    assert torch.equal(opened(batch), model(batch))


def test_encoders_that_cannot_be_visualbert_are_refused_by_name(
    tmp_path: Path, tiny_encoder: Path, tiny_roberta: Path
) -> None:
    with pytest.raises(WeightsError, match=r"is of type roberta, whose embeddings and layers are not"):
        model_of(tiny_roberta)
    bypassing = visual_checkpoint(tmp_path / "bypassing", tiny_encoder, bypass_transformer=True)
    with pytest.raises(WeightsError, match=r"cannot be the text encoder: its views bypass the transformer"):
        model_of(bypassing)
    cut = visual_checkpoint(tmp_path / "cut", tiny_encoder)
    config = json.loads((cut / "config.json").read_text())
    (cut / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(
        WeightsError, match=r"lacks the weights of 16 tensors \(encoder.layer.2.*, which would be"
    ):
        model_of(cut)


def test_features_of_another_width_are_refused_with_both_numbers(tiny_encoder: Path) -> None:
    model = model_of(tiny_encoder)
    with pytest.raises(
        InputError, match=r"reads views of 6 numbers, and the features have 5; train it again"
    ):
        build_system(replace(model.config, levels=(3, 5)), model.encoder)


def test_the_projection_learns_at_the_rate_of_what_is_new_and_the_rest_at_the_encoders(
    tiny_encoder: Path,
) -> None:
    model, settings = model_of(tiny_encoder), TrainSettings()
    rates = {
        id(parameter): group["lr"]
        for group in parameter_groups(model, settings.rates, 0.01)
        for parameter in group["params"]
    }
    tables = model.encoder.embeddings
    assert rates[id(tables.visual_projection.weight)] == settings.fusion_learning_rate
    assert rates[id(tables.visual_position_embeddings.weight)] == settings.learning_rate
    assert rates[id(tables.word_embeddings.weight)] == settings.learning_rate
    assert rates[id(model.classifier.weight)] == settings.head_learning_rate


def test_what_is_explained_is_the_share_of_attention_that_goes_to_each_view(model: Any) -> None:
    batch = batch_of()
    explained = model.explain(batch)
    assert explained.gates is None
    assert explained.over == "views"
    assert explained.present.tolist() == PRESENT
    assert explained.attention.shape == (LAYERS, 4, HEADS, max(LENGTHS), 4)
    weights = {name: value.numpy() for name, value in model.encoder.state_dict().items()}
    own = loops.weights_of(weights, "encoder.layer.0.attention.self")
    for sample in range(4):
        length, shown = LENGTHS[sample], torch.tensor(PRESENT[sample])
        first = copy.deepcopy(model)
        first.encoder.encoder.layer = torch.nn.ModuleList()  # the states are then those that enter layer 0
        rows = first.states(batch)[sample, :length].detach().numpy()
        views = vectors_of(batch)[sample][shown]
        seen = first.encoder.embeddings(input_ids=batch.input_ids[:1], visual_embeds=views[None])
        rows = np.concatenate([rows, seen[0, max(LENGTHS) :].detach().numpy()])
        queries, keys = (loops.dense(rows, own, name) for name in ("query", "key"))
        for head, (asking, offered) in enumerate(
            zip(oracle.heads(queries, HEADS), oracle.heads(keys, HEADS), strict=True)
        ):
            scale = np.sqrt(queries.shape[1] / HEADS)
            for word in range(length):
                shares = loops.shares_of([float(asking[word] @ key) / scale for key in offered])
                found = explained.attention[0, sample, head, word]
                np.testing.assert_allclose(found[shown].numpy(), shares[length:], rtol=0, atol=1e-9)
                assert not found[~shown].any()


def test_every_parameter_gets_a_gradient(tiny_encoder: Path) -> None:
    for task in ("ner", "re"):
        model = enlarged(model_of(tiny_encoder, task))
        model.loss(batch_of(task)).backward()
        idle = [name for name, value in model.named_parameters() if not value.grad.abs().max() > 0]
        assert idle == []
