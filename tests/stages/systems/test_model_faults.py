"""The ten faults of published code that docs/method.md names: each test bears the number of the fault that it
would find.

Fault 6 (low-resource samples drawn with replacement) is tested where samples are drawn:
tests/stages/train/test_training.py.
"""

import copy
import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hmnet_pipe.cache.reader import FeatureCache, IndexRow, write_index
from hmnet_pipe.cache.shards import write_shard
from hmnet_pipe.cache.spec import IMAGENET_MEAN, IMAGENET_STD, FeatureSpec, Transform
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.files import write_text
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import HISTORY, PREDICTIONS, SAMPLES
from hmnet_pipe.manifests.tables import read_table, table_of, write_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.learning import fit as training
from hmnet_pipe.stages.learning import loop
from hmnet_pipe.stages.learning.batches import batches
from hmnet_pipe.stages.learning.optimizer import parameter_groups
from hmnet_pipe.stages.learning.predictions import predict_split, score_split
from hmnet_pipe.stages.learning.recipe import TrainSettings
from hmnet_pipe.stages.learning.splits import Split, encode_split
from hmnet_pipe.stages.prepare.settings import PrepareSettings
from hmnet_pipe.stages.prepare.stage import Prepare
from hmnet_pipe.stages.systems.batch import Batch, ModelConfig
from hmnet_pipe.stages.systems.build import new_system
from hmnet_pipe.stages.systems.folder import load_system
from hmnet_pipe.stages.systems.system import System
from hmnet_pipe.stages.text.encoders.bert import encode, load_tokenizer
from hmnet_pipe.stages.text.limits import MARKERS
from hmnet_pipe.stages.text.subwords import Subwords
from hmnet_pipe.stages.train.stage import Train
from hmnet_pipe.stages.vision.backbones.build import build_backbone
from hmnet_pipe.stages.vision.pooling import pooled_and_joined
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel

TRANSFORM = Transform(224, IMAGENET_MEAN, IMAGENET_STD, "bilinear")
SPEC = FeatureSpec("resnet50", "w" * 64, TRANSFORM, (3, 5, 2, 4), 2, 4, "float16")
CELLS = SPEC.pooled**2
VISUAL = ("hmnet", "hmnet-single", "hmnet-flat", "hmnet-1v3", "hmnet-onlyobj", "hmnet-onlyglobal")
TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
SETTINGS = TrainSettings(batch_size=4, max_length=32, precision="fp32", device="cpu")


def model_of(encoder: Path, system: str, task: str = "ner", head: str = "markers") -> Any:
    """Return a new model in evaluation mode, whose visual part is large enough for single precision."""
    torch.manual_seed(0)
    labels = TAGS if task == "ner" else ("None", "/per/loc")
    levels = SPEC.levels if system in VISUAL else ()
    model = new_system(encoder, ModelConfig(system, task, labels, levels, head, 32, {}, None))
    for parameter in model.fusion.parameters() if system in VISUAL else ():
        nn.init.normal_(parameter, 0, 0.5)
    return model.eval()


def batch_of(present: list[list[bool]], lengths: list[int], pad: int = 0) -> Batch:
    """Return random texts and views; what is absent holds numbers too."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    ids = torch.randint(5, 60, mask.shape, generator=generator).masked_fill(~mask, pad)
    return Batch(
        input_ids=ids,
        attention_mask=mask,
        positions=torch.tensor([[1, 2]] * len(lengths)),
        position_mask=torch.ones(len(lengths), 2, dtype=torch.bool),
        labels=None,
        views=torch.randn(len(lengths), *SPEC.row_shape, generator=generator),
        view_mask=torch.tensor(present),
        ids=list(range(len(lengths))),
    )


def changed_view(batch: Batch, view: int) -> Batch:
    pyramid = batch.views.clone()
    pyramid[:, view] += 3.0
    return replace(batch, views=pyramid)


# 1. The backbone left in training mode.


def test_fault_1_the_backbone_keeps_its_statistics_and_uses_them_whatever_is_set_to_train() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("resnet18", "random")
    whole = nn.Sequential(nn.Identity(), nn.ModuleDict({"visual": backbone}))
    views = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2.0)
        alone = torch.cat([pooled_and_joined(backbone(view[None]), 2) for view in views])
        before = copy.deepcopy(backbone.state_dict())
        whole.train()
        backbone.train()
        assert whole.training
        together = pooled_and_joined(backbone(views), 2)
    assert not any(module.training for module in backbone.modules())
    # With a batch's own statistics a view's features would depend on the views beside it.
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert alone.std() > 0.1
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


# 2. Positions that are blocks of channels.


def test_fault_2_one_cell_of_one_view_is_one_position_of_the_visual_sequence(tiny_encoder: Path) -> None:
    fusion = model_of(tiny_encoder, "hmnet-flat").fusion
    batch = batch_of([[True] * 4], [4])
    before = fusion(batch.views, batch.view_mask)[0]
    for view in range(4):
        for row in range(2):
            for column in range(2):
                pyramid = batch.views.clone()
                pyramid[0, view, -1, row, column] += 3.0
                after = fusion(pyramid, batch.view_mask)[0]
                for old, new in ((before.keys, after.keys), (before.values, after.values)):
                    moved = (
                        (old != new).flatten(0, 1).any(dim=0).any(dim=-1)
                    )  # over heads and features, by position
                    assert moved.nonzero().flatten().tolist() == [view * CELLS + row * 2 + column]


# 3. Heads that see some views only.


def attention_by_head(model: System, batch: Batch, layer: int) -> Tensor:
    """Return what equation 9 gives for each head of one layer: (B, n, H, d/H)."""
    outputs: list[Tensor] = []
    encoder: Any = model.encoder.encoder
    module = encoder.layer[layer].attention.self
    hook = module.register_forward_hook(lambda module, args, output: outputs.append(output[0]))
    with torch.inference_mode():
        encode(
            model.encoder, batch.input_ids, batch.attention_mask, model.fusion(batch.views, batch.view_mask)
        )
    hook.remove()
    return outputs[0].unflatten(-1, (model.encoder.config.num_attention_heads, -1))


@pytest.mark.parametrize("system", VISUAL)
def test_fault_3_every_head_sees_every_view(tiny_encoder: Path, system: str) -> None:
    model = model_of(tiny_encoder, system)
    layer = 3 if system == "hmnet-single" else 0
    batch = batch_of([[True] * 4] * 2, [5, 3])
    before = attention_by_head(model, batch, layer)
    for view in range(4):
        after = attention_by_head(model, changed_view(batch, view), layer)
        moved = (before - after).abs().amax(dim=(0, 1, 3))  # by head
        if (system, view == 0) in (("hmnet-onlyobj", True), ("hmnet-onlyglobal", False)):
            assert moved.max() == 0
        else:
            assert moved.min() > 1e-3


def test_fault_3_a_head_has_its_own_features_of_every_position(tiny_encoder: Path) -> None:
    """Head h of keys and values is the h-th run of d/H outputs of W_phi, as it is of the text's query, key
    and value.
    """
    model = model_of(tiny_encoder, "hmnet-flat")
    batch = batch_of([[True] * 4], [4])
    fusion: Any = model.fusion
    config: Any = model.encoder.config
    hidden, heads = config.hidden_size, config.num_attention_heads
    before = model.fusion(batch.views, batch.view_mask)[0]
    for head in range(heads):
        changed = copy.deepcopy(fusion)
        with torch.no_grad():
            changed.phi["0"].bias[head * hidden // heads : (head + 1) * hidden // heads] += 1.0
        after = changed(batch.views, batch.view_mask)[0]
        moved = (after.keys - before.keys).abs().amax(dim=-1)[0]  # (H, P)
        assert torch.all(moved[head] > 0.5)
        assert torch.all(moved[[other for other in range(heads) if other != head]] == 0)
        assert torch.equal(before.values, after.values)


# 4. Absent objects attended.


@pytest.mark.parametrize("system", VISUAL)
def test_fault_4_what_an_absent_view_holds_changes_nothing(tiny_encoder: Path, system: str) -> None:
    model = model_of(tiny_encoder, system)
    batch = batch_of([[True, True, False, False], [True, False, False, False], [True] * 4], [5, 3, 4])
    garbage = replace(
        batch, views=torch.where(batch.view_mask[..., None, None, None], batch.views, torch.tensor(1000.0))
    )
    zeros = replace(
        batch, views=torch.where(batch.view_mask[..., None, None, None], batch.views, torch.tensor(0.0))
    )
    with torch.inference_mode():
        assert torch.equal(model(garbage), model(zeros))


@pytest.mark.parametrize("system", VISUAL)
def test_fault_4_absent_objects_are_as_if_they_had_never_been_there(tiny_encoder: Path, system: str) -> None:
    model = model_of(tiny_encoder, system).double()
    batch = batch_of([[True, True, False, False]] * 2, [5, 3])
    fewer = replace(batch, views=batch.views[:, :2], view_mask=batch.view_mask[:, :2])
    more = replace(batch, view_mask=torch.ones(2, 4, dtype=torch.bool))
    with torch.inference_mode():
        torch.testing.assert_close(model(batch), model(fewer), rtol=0, atol=1e-12)
        moved = (model(batch) - model(more)).abs().max()
    assert moved == 0 if system == "hmnet-onlyglobal" else moved > 1e-3


@pytest.mark.parametrize("lengths", [[6, 6, 6], [6, 3, 4]])
@pytest.mark.parametrize("system", VISUAL)
@pytest.mark.parametrize("kind", ["tiny_encoder", "tiny_roberta"])
def test_fault_4_without_a_view_the_model_is_the_plain_encoder_to_the_last_bit(
    request: pytest.FixtureRequest, kind: str, system: str, lengths: list[int]
) -> None:
    folder = request.getfixturevalue(kind)
    model = model_of(folder, system)
    plain = AutoModel.from_pretrained(folder, attn_implementation="sdpa", add_pooling_layer=False).eval()
    batch = batch_of([[False] * 4] * 3, lengths, plain.config.pad_token_id)
    with torch.inference_mode():
        states = plain(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        assert torch.equal(encode(model.encoder, batch.input_ids, batch.attention_mask, None), states)
        assert torch.equal(model(batch), model.classifier(states[:, [1, 2]]))
        # Beside a sample that has views, one without is still the plain text, as far as the order of sums
        # allows.
        mixed = replace(batch, view_mask=torch.tensor([[False] * 4, [False] * 4, [True] * 4]))
        scores = model(mixed)
        torch.testing.assert_close(scores[:2], model.classifier(states[:, [1, 2]])[:2], rtol=0, atol=2e-6)
        assert (scores[2] - model.classifier(states[2, [1, 2]])).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("system", "present"),
    [("hmnet-onlyobj", [True, False, False, False]), ("hmnet-onlyglobal", [False, True, True, True])],
)
def test_fault_4_a_system_that_looks_at_nothing_that_is_there_is_the_plain_text(
    tiny_encoder: Path, system: str, present: list[bool]
) -> None:
    """The system without the global view of an image without objects, and the other way round."""
    model = model_of(tiny_encoder, system)
    batch = batch_of([present] * 2, [5, 3])
    with torch.inference_mode():
        plain = model(replace(batch, view_mask=torch.zeros(2, 4, dtype=torch.bool)))
        assert torch.equal(model(batch), plain)


# A run with text, features and a tiny encoder: what the remaining faults need.

PEOPLE, PLACES = ("ada", "alan", "grace"), ("london", "paris")


def sentence(rng: random.Random) -> tuple[list[str], list[str]]:
    """Return words and tags that a small model learns in a few epochs: names are always what they are."""
    words, tags = [], []
    for _ in range(rng.randint(2, 4)):
        kind, name = rng.choice((("PER", rng.choice(PEOPLE)), ("LOC", rng.choice(PLACES))))
        words += [rng.choice(("the", "red", "cat")), name, rng.choice(("lives", "works", "sat"))]
        tags += ["O", f"B-{kind}", "O"]
    return words, tags


def ner_rows(count: int = 24, held_out: int = 8) -> list[dict[str, Any]]:
    rng = random.Random(0)
    rows: list[dict[str, Any]] = []
    for split, size in (("train", count), ("valid", held_out), ("test", held_out)):
        for number in range(size):
            words, tags = sentence(rng)
            key = f"{len(rows):064x}" if number % 3 else None
            rows.append(
                {
                    "id": f"{split}-{number}",
                    "split": split,
                    "task": "ner",
                    "tokens": words,
                    "tags": tags,
                    "image_key": key,
                }
            )
    return rows


def write_features(folder: Path, keys: list[str]) -> None:
    """Write features that show whose they are: all values of image i are i + 1.

    Every second image has one object, the others none.
    """
    values = np.stack([np.full(SPEC.row_shape, number + 1, np.float16) for number in range(len(keys))])
    mask = np.array([[True, number % 2 == 0, False, False] for number in range(len(keys))])
    values[~mask] = 0
    checksums = write_shard(
        folder / "shard-00000.h5", unit="u", spec=SPEC, keys=keys, view_mask=mask, pyramid=values
    )
    rows = [IndexRow(key, "shard-00000.h5", row, checksums[row], "i") for row, key in enumerate(keys)]
    write_index(folder, SPEC, rows)


def train(
    folder: Path,
    encoder: Path,
    rows: list[dict[str, Any]],
    system: str = "bert-crf",
    task: str = "ner",
    **settings: Any,
) -> Train:
    """Train in a run with these samples; returns the finished stage."""
    run = RunFolder(folder)
    write_table(run.samples, table_of(SAMPLES, rows))
    if system in VISUAL:
        write_features(run.features(), sorted({row["image_key"] for row in rows if row["image_key"]}))
    stage = Train(run, replace(SETTINGS, encoder=str(encoder), **settings), task, Trial(system))
    stage.compute(stage.causes(), Tools())
    return stage


def metrics_of(stage: Train) -> dict[str, Any]:
    return json.loads((stage.place / "metrics.json").read_text())


# 5. Parameters that nothing trains.


@pytest.mark.parametrize("task", ["ner", "re"])
@pytest.mark.parametrize("system", [*VISUAL, "text"])
def test_fault_5_every_trainable_parameter_is_in_exactly_one_group(
    tiny_encoder: Path, system: Any, task: str
) -> None:
    model = model_of(
        tiny_encoder, {"ner": "bert-crf", "re": "mtb"}[task] if system == "text" else system, task
    )
    model.encoder.embeddings.word_embeddings.weight.requires_grad_(False)
    groups = parameter_groups(model, SETTINGS.rates, SETTINGS.weight_decay)
    names = [group["name"] for group in groups]
    assert len(names) == len(set(names)) == len(groups)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    wanted = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(held) == len(set(held))
    assert set(held) == set(wanted)
    rate = {wanted[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}
    decay = {
        wanted[id(parameter)]: group["weight_decay"] for group in groups for parameter in group["params"]
    }
    for name in rate:
        part = name.split(".")[0]
        rates = {"encoder": SETTINGS.learning_rate, "fusion": SETTINGS.fusion_learning_rate}
        assert rate[name] == rates.get(part, SETTINGS.head_learning_rate)
        assert (decay[name] == 0) == (name.endswith("bias") or "LayerNorm" in name)


@pytest.mark.parametrize(
    ("system", "task"),
    [("hmnet", "ner"), ("hmnet-1v3", "ner"), ("bert-crf", "ner"), ("hmnet", "re"), ("mtb", "re")],
)
def test_fault_5_training_moves_every_part_of_the_model(
    tmp_path: Path, tiny_encoder: Path, system: str, task: str
) -> None:
    rows = ner_rows(8, 2)
    if task == "re":
        rng = random.Random(0)
        for number, row in enumerate(rows):
            changed = {"task": "re", "tags": None, "head": (1, 2), "tail": (4, 5)}
            row.update(
                changed, relation="None" if number < 2 else rng.choice(("None", "/per/loc", "/loc/loc"))
            )
    still = {"learning_rate": 0.0, "head_learning_rate": 0.0, "fusion_learning_rate": 0.0}
    first = train(tmp_path / "still", tiny_encoder, rows, system, task, epochs=1, **still)
    trained = train(tmp_path / "moved", tiny_encoder, rows, system, task, epochs=1)
    before, after = (load_file(stage.place / "model.safetensors") for stage in (first, trained))
    assert {name.split(".")[0] for name in before} == {
        "encoder",
        "classifier",
        *(["crf"] if task == "ner" else []),
        *(["fusion"] if system in VISUAL else []),
        *(["pair"] if system == "mtb" else []),
    }
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    # And the record says so: the groups hold as many numbers as the model.
    assert sum(group["parameters"] for group in metrics_of(trained)["parameter_groups"]) == sum(
        value.numel() for value in after.values()
    )


# 7. Markers lost.


def relation_text(
    encoder: Path, tokens: list[str], head: tuple[int, int], tail: tuple[int, int], limit: int
) -> tuple[list[str], list[int]]:
    tokenizer = load_tokenizer(encoder)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS)})
    row = {
        "id": "1",
        "split": "train",
        "task": "re",
        "tokens": tokens,
        "head": head,
        "tail": tail,
        "relation": "None",
    }
    text = encode_split(
        table_of(SAMPLES, [row]), "train", Subwords(tokenizer), task="re", max_length=limit
    ).texts[0]
    return tokenizer.convert_ids_to_tokens(text.input_ids), text.positions


@pytest.mark.parametrize("kind", ["tiny_encoder", "tiny_roberta"])
def test_fault_7_the_closing_marker_stays_when_the_entity_ends_the_sentence(
    request: pytest.FixtureRequest, kind: str
) -> None:
    names, _ = relation_text(request.getfixturevalue(kind), ["ada", "sat", "in", "paris"], (0, 1), (3, 4), 64)
    assert names[-2] == "[/E2]"
    assert [names.count(marker) for marker in MARKERS] == [1, 1, 1, 1]


@pytest.mark.parametrize("limit", [8, 12, 32])
def test_fault_7_no_sentence_is_too_long_for_its_markers(tiny_encoder: Path, limit: int) -> None:
    words = ["cat"] * 60
    words[40], words[59] = "ada", "paris"
    names, positions = relation_text(tiny_encoder, words, (59, 60), (40, 41), limit)
    assert len(names) <= limit
    assert [names.count(marker) for marker in MARKERS] == [1, 1, 1, 1]
    assert names[positions[1] : positions[1] + 3] == ["[E1]", "paris", "[/E1]"]
    assert names[positions[2] : positions[2] + 3] == ["[E2]", "ada", "[/E2]"]


@pytest.mark.parametrize("head", ["markers", "cls"])
def test_fault_7_a_relation_run_with_long_sentences_trains_and_predicts(
    tmp_path: Path, tiny_encoder: Path, head: str
) -> None:
    rows = []
    for number in range(9):
        words = ["cat"] * 40
        words[number], words[39] = "ada", "paris"
        split, relation = ("train", "valid", "test")[number // 3], ("None", "/per/loc")[number % 2]
        arguments = {"head": (39, 40), "tail": (number, number + 1), "relation": relation}
        rows.append({"id": str(number), "split": split, "task": "re", "tokens": words, **arguments})
    stage = train(tmp_path, tiny_encoder, rows, "mtb", "re", epochs=1, max_length=12, relation_head=head)
    predictions = read_table(stage.place / "predictions.parquet", PREDICTIONS).to_pylist()
    assert [row["gold"] for row in predictions] == [["None"], ["/per/loc"], ["None"]]


# 8. Gold lost to truncation, sentences joined, special labels.


def predictions_at(limit: int, tiny_encoder: Path) -> tuple[Split, list[list[str]]]:
    tokenizer = load_tokenizer(tiny_encoder)
    split = encode_split(
        table_of(SAMPLES, ner_rows()), "train", Subwords(tokenizer), task="ner", max_length=limit
    )
    return split, predict_split(
        model_of(tiny_encoder, "bert-crf"), split, visuals=None, pad_id=0, precision="fp32", batch_size=5
    )


@pytest.mark.parametrize("limit", [4, 7, 64])
def test_fault_8_gold_entities_beyond_the_limit_still_count(tiny_encoder: Path, limit: int) -> None:
    split, predicted = predictions_at(limit, tiny_encoder)
    gold = [row["tags"] for row in ner_rows() if row["split"] == "train"]
    assert split.gold == gold
    assert score_split(split, predicted, "ner")["support"] == sum(
        tag.startswith("B-") for tags in gold for tag in tags
    )
    assert [len(tags) for tags in predicted] == [len(tags) for tags in gold]
    # Each word of these texts is one sub-word.
    assert all(tag == "O" for tags in predicted for tag in tags[limit - 2 :])
    if limit == 64:
        assert any(tag != "O" for tags in predicted for tag in tags)


@pytest.mark.parametrize("limit", [6, 64])
def test_fault_8_each_sentence_is_a_text_of_its_own_with_the_tags_of_its_own_words(
    tiny_encoder: Path, limit: int
) -> None:
    tokenizer = load_tokenizer(tiny_encoder)
    rows = [row for row in ner_rows() if row["split"] == "train"]
    split = encode_split(table_of(SAMPLES, rows), "train", Subwords(tokenizer), task="ner", max_length=limit)
    made = list(
        batches(
            split,
            [[0, 1, 2], [3, 4]],
            task="ner",
            pad_id=0,
            label_ids={tag: i for i, tag in enumerate(TAGS)},
            visuals=None,
        )
    )
    for batch in made:
        for place, number in enumerate(batch.ids):
            words, tags = (
                rows[number]["tokens"][: limit - 2],
                rows[number]["tags"][: limit - 2],
            )  # each word is one sub-word
            ids = batch.input_ids[place][batch.attention_mask[place]].tolist()
            assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", *words, "[SEP]"]
            kept = batch.position_mask[place]
            assert [TAGS[label] for label in batch.labels[place][kept]] == tags
            assert (
                tokenizer.convert_ids_to_tokens(batch.input_ids[place][batch.positions[place][kept]]) == words
            )


def test_fault_8_only_labels_of_the_corpus_are_predicted(tmp_path: Path, tiny_encoder: Path) -> None:
    stage = train(tmp_path, tiny_encoder, ner_rows(8, 4), epochs=1)
    config = json.loads((stage.place / "config.json").read_text())
    assert config["labels"] == list(TAGS)
    assert load_file(stage.place / "model.safetensors")["classifier.weight"].shape[0] == len(TAGS)
    for row in read_table(stage.place / "predictions.parquet", PREDICTIONS).to_pylist():
        assert len(row["predicted"]) == len(row["tokens"])
        assert set(row["predicted"]) <= set(TAGS)


@pytest.mark.parametrize("texts", ["one", "all"])
def test_fault_8_a_text_whose_first_word_is_beyond_the_limit_counts_and_stops_nothing(
    tmp_path: Path, tiny_encoder: Path, texts: str
) -> None:
    rows = ner_rows(8, 4)
    for row in rows:
        if texts == "all" or row["id"].endswith("-0"):
            row["tokens"] = ["x" * 40, *row["tokens"][1:]]  # 40 sub-words of at most 30
    stage = train(tmp_path, tiny_encoder, rows, epochs=1)
    predictions = {
        row["id"]: row for row in read_table(stage.place / "predictions.parquet", PREDICTIONS).to_pylist()
    }
    assert set(predictions["test-0"]["predicted"][1:]) == {"O"}
    gold = [row["tags"] for row in rows if row["split"] == "test"]
    assert metrics_of(stage)["test"]["support"] == sum(tag.startswith("B-") for tags in gold for tag in tags)


def test_a_length_limit_beyond_the_encoders_positions_is_an_error_that_says_the_limit(
    tiny_encoder: Path, tiny_roberta: Path
) -> None:
    for encoder, positions in ((tiny_encoder, 160), (tiny_roberta, 158)):
        config = ModelConfig("bert-crf", "ner", TAGS, (), "markers", positions + 1, {}, None)
        with pytest.raises(
            InputError, match=rf"max_length {positions + 1} is above the {positions} sub-words"
        ):
            new_system(encoder, config)
        model = new_system(encoder, replace(config, max_length=positions)).eval()
        ids = torch.full((1, positions), 7)
        assert encode(model.encoder, ids, torch.ones_like(ids), None).shape[1] == positions


# 9. Images that belong to line numbers.


def write_corpus(folder: Path, order: list[int]) -> None:
    """Write a JSONL file of ten samples, each with its own image, in this order of lines."""
    (folder / "images").mkdir(parents=True)
    records = []
    for number in range(10):
        Image.new("RGB", (8, 6), (20 * number, 100, 50)).save(folder / "images" / f"{number}.png")
        records.append(
            {"tokens": ["cat", "abcdefghij"[number]], "tags": ["O", "B-PER"], "image": f"{number}.png"}
        )
    (folder / "text").mkdir()
    write_text(
        folder / "text" / "train.jsonl", "".join(json.dumps(records[number]) + "\n" for number in order)
    )


def prepare(run: RunFolder, folder: Path) -> None:
    """Prepare the corpus that lies in `folder`."""
    stage = Prepare(run, PrepareSettings(text=folder / "text", images=folder / "images", task="ner"))
    stage.compute(stage.causes(), Tools())


def features_by_text(folder: Path, encoder: Path) -> dict[str, float]:
    """Return, after prepare, the first feature of the image that training gives to each text.

    Features are those of the image's key.
    """
    run = RunFolder(folder / "run")
    prepare(run, folder)
    samples = read_table(run.samples, SAMPLES)
    write_features(run.features(), sorted(samples.column("image_key").to_pylist()))
    split = encode_split(samples, "train", Subwords(load_tokenizer(encoder)), task="ner", max_length=32)
    found = {}
    for batch in batches(
        split,
        [[3, 1, 0], [2, *range(4, 10)]],
        task="ner",
        pad_id=0,
        label_ids=None,
        visuals=FeatureCache(run.features()),
    ):
        for place, number in enumerate(batch.ids):
            assert batch.view_mask[place, 0]
            found[split.tokens[number][1]] = float(batch.views[place, 0, 0, 0, 0])
    return found


def test_fault_9_re_sorting_the_text_file_moves_no_image(tmp_path: Path, tiny_encoder: Path) -> None:
    order = list(range(10))
    write_corpus(tmp_path / "a", order)
    random.Random(0).shuffle(order)
    write_corpus(tmp_path / "b", order)
    sorted_, shuffled = (features_by_text(tmp_path / name, tiny_encoder) for name in "ab")
    assert len(set(sorted_.values())) == 10
    assert sorted_ == shuffled
    tables = [read_table(RunFolder(tmp_path / name / "run").samples, SAMPLES) for name in "ab"]
    assert tables[0].equals(tables[1])


def test_fault_9_a_text_has_the_image_whose_content_it_named(tmp_path: Path) -> None:
    write_corpus(tmp_path, [7, 2, 9, 0, 1, 3, 4, 5, 6, 8])
    run = RunFolder(tmp_path / "run")
    prepare(run, tmp_path)
    for row in read_table(run.samples, SAMPLES).to_pylist():
        image = tmp_path / "images" / f"{'abcdefghij'.index(row['tokens'][1])}.png"
        assert row["image_key"] == hashlib.sha256(image.read_bytes()).hexdigest()


# 10. Selection on the test split.


@pytest.mark.slow
def test_fault_10_the_test_split_decides_nothing(tmp_path: Path, tiny_encoder: Path) -> None:
    """Test tags that are all wrong, or absent, or of labels never seen, lead to the same epoch and the same
    weights.
    """
    rows = ner_rows()
    nothing = [{**row, "tags": ["O"] * len(row["tags"])} if row["split"] == "test" else row for row in rows]
    foreign = [
        {**row, "tags": ["B-ZZZ"] * len(row["tags"])} if row["split"] == "test" else row for row in rows
    ]
    absent = [row for row in rows if row["split"] != "test"]
    recipe: dict[str, Any] = {"epochs": 3, "learning_rate": 1e-3, "head_learning_rate": 1e-2}
    stages = [
        train(tmp_path / str(number), tiny_encoder, variant, **recipe)
        for number, variant in enumerate((rows, nothing, foreign, absent))
    ]
    results = [metrics_of(stage) for stage in stages]
    # On the wrong tests every epoch scores 0, so that selection by them would keep the first.
    assert results[0]["best_epoch"] > 1
    assert results[0]["test"]["f1"] > 0
    assert [result["test"] and result["test"]["f1"] for result in results[1:]] == [0, 0, None]
    histories = [
        read_table(stage.place / "history.parquet", HISTORY).drop(["seconds", "samples_per_second"])
        for stage in stages
    ]
    weights = [load_file(stage.place / "model.safetensors") for stage in stages]
    for result, history, weight in zip(results, histories, weights, strict=True):
        assert (result["best_epoch"], result["valid"]) == (results[0]["best_epoch"], results[0]["valid"])
        assert history.equals(histories[0])
        assert all(torch.equal(value, weights[0][name]) for name, value in weight.items())


def test_fault_10_the_kept_model_is_that_of_the_best_validation_epoch_and_test_is_scored_once_by_it(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[tuple[str, dict[str, Tensor]]] = []
    given = iter([0.3, 0.9, 0.9, 0.5])

    def predict(model: System, split: Split, **settings: Any) -> Any:
        scored.append((split.name, {name: value.clone() for name, value in model.state_dict().items()}))
        return predict_split(model, split, **settings)

    def score(split: Split, predicted: Any, *how: Any) -> Any:
        scores = score_split(split, predicted, *how)
        return {**scores, "f1": next(given)} if split.name == "valid" else scores

    monkeypatch.setattr(loop, "predict_split", predict)
    for module in (loop, training):
        monkeypatch.setattr(module, "score_split", score)
    stage = train(tmp_path, tiny_encoder, ner_rows(), epochs=4)
    assert [name for name, _ in scored] == ["valid"] * 4 + ["test"]
    assert metrics_of(stage)["best_epoch"] == 2  # the earlier of equals
    assert metrics_of(stage)["valid"]["f1"] == 0.9
    kept = load_file(stage.place / "model.safetensors")
    same = [all(torch.equal(value, state[name]) for name, value in kept.items()) for _, state in scored]
    assert same == [False, True, False, False, True]


def test_fault_10_the_saved_model_scores_what_was_said_of_it(tmp_path: Path, tiny_encoder: Path) -> None:
    stage = train(tmp_path, tiny_encoder, ner_rows(), epochs=2, learning_rate=1e-3, head_learning_rate=1e-2)
    model = load_system(stage.place)
    tokenizer = load_tokenizer(stage.place / "tokenizer")
    for name in ("valid", "test"):
        split = encode_split(
            read_table(stage.run.samples, SAMPLES), name, Subwords(tokenizer), task="ner", max_length=32
        )
        scores = score_split(
            split,
            predict_split(model, split, visuals=None, pad_id=tokenizer.pad_token_id, precision="fp32"),
            "ner",
        )
        assert scores == metrics_of(stage)[name]
        assert scores["f1"] > 0
