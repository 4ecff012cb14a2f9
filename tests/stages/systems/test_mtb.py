"""MTB: what its relation head reads, and that models from before its linear layer are trained again."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hmnet_pipe.manifests.errors import WeightsError
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import SAMPLES
from hmnet_pipe.manifests.tables import table_of, write_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.run.freshness import why_changed
from hmnet_pipe.stages.learning.batches import batches
from hmnet_pipe.stages.learning.recipe import TrainSettings
from hmnet_pipe.stages.learning.splits import Split
from hmnet_pipe.stages.systems.batch import Batch, ModelConfig
from hmnet_pipe.stages.systems.build import new_system
from hmnet_pipe.stages.systems.folder import load_system
from hmnet_pipe.stages.systems.registry import SYSTEMS
from hmnet_pipe.stages.text.encoders.bert import load_encoder
from hmnet_pipe.stages.text.limits import MARKERS
from hmnet_pipe.stages.text.subwords import Subwords
from hmnet_pipe.stages.train.stage import Train
from safetensors.torch import load_file, save_file

CONFIG = ModelConfig("mtb", "re", ("None", "/per/loc", "/per/org"), (), "markers", 64, {}, None)
WORDS = ["ada", "works", "in", "the", "red", "london"]
# Tail first, nested, next to each other, at the end of the sentence, and both the same.
PAIRS = [((3, 5), (0, 1)), ((1, 4), (2, 3)), ((0, 2), (2, 4)), ((0, 1), (4, 6)), ((2, 3), (2, 3))]


@pytest.fixture(scope="module")
def reader(tiny_encoder: Path) -> Subwords:
    return Subwords.of_encoder(tiny_encoder, "re")


@pytest.fixture(scope="module")
def model(tiny_encoder: Path, reader: Subwords) -> Any:
    torch.manual_seed(1)
    return new_system(tiny_encoder, CONFIG, reader).eval()


def batch_of(reader: Subwords, texts: list[list[str]], pairs: Any) -> Batch:
    count = len(texts)
    ids, gold = [str(i) for i in range(count)], [["None"]] * count
    split = Split("test", ids, texts, gold, [[]] * count, [None] * count)
    split.texts = reader.encode(texts, pairs, limit=64)
    (batch,) = batches(split, [range(count)], task="re", pad_id=reader.pad_id, label_ids=None, visuals=None)
    return batch


def test_the_head_reads_the_states_at_both_opening_markers_however_the_arguments_lie(
    model: Any, reader: Subwords
) -> None:
    batch = batch_of(reader, [WORDS] * len(PAIRS), PAIRS)
    states = model.states(batch)
    opening = reader.tokenizer.convert_tokens_to_ids(["[E1]", "[E2]"])
    for sample, ids in enumerate(batch.input_ids.tolist()):
        at = [ids.index(marker) for marker in opening]
        pair = torch.cat([states[sample, place] for place in at])
        expected = model.classifier(pair @ model.pair.weight.T + model.pair.bias)
        torch.testing.assert_close(model(batch)[sample], expected)


def test_swapping_head_and_tail_swaps_their_markers_and_nothing_else(reader: Subwords) -> None:
    head, tail = PAIRS[3]
    there, back = reader.encode([WORDS] * 2, [(head, tail), (tail, head)], limit=64)
    one, two = MARKERS[:2], MARKERS[2:]
    swapped = dict(zip((*one, *two), (*two, *one), strict=True))
    names = reader.tokenizer.convert_ids_to_tokens(there.input_ids)
    assert reader.tokenizer.convert_ids_to_tokens(back.input_ids) == [swapped.get(n, n) for n in names]
    assert there.positions == [back.positions[i] for i in (0, 2, 1)]


def test_markers_are_four_more_sub_words_and_filler_never_costs_one(reader: Subwords) -> None:
    (without,) = reader.encode([WORDS], None, limit=64)
    for text in reader.encode([WORDS] * len(PAIRS), PAIRS, limit=64):
        assert len(text.input_ids) == len(without.input_ids) + 4
    (long,) = reader.encode([["cat"] * 60 + WORDS], [((0, 1), (60, 61))], limit=20)
    names = reader.tokenizer.convert_ids_to_tokens(long.input_ids)
    assert [names.count(marker) for marker in MARKERS] == [1] * 4
    assert len(names) == 20


def test_padding_changes_nothing(model: Any, reader: Subwords) -> None:
    alone = batch_of(reader, [WORDS], PAIRS[:1])
    padded = batch_of(reader, [WORDS, ["cat"] * 40], [PAIRS[0], ((0, 1), (3, 4))])
    assert padded.input_ids.shape[1] > alone.input_ids.shape[1]
    torch.testing.assert_close(model(padded)[:1], model(alone), rtol=0, atol=1e-6)
    spoilt = replace(padded, input_ids=padded.input_ids.masked_fill(~padded.attention_mask, 7))
    torch.testing.assert_close(model(spoilt)[:1], model(alone), rtol=0, atol=1e-6)


def test_of_a_plain_bert_only_head_linear_layer_and_four_markers_are_new(
    model: Any, tiny_encoder: Path
) -> None:
    old = load_encoder(tiny_encoder).state_dict()
    now = model.encoder.state_dict()
    words = "embeddings.word_embeddings.weight"
    assert all(torch.equal(value, now[name]) for name, value in old.items() if name != words)
    assert now.keys() == old.keys()
    rows = len(old[words])
    assert torch.equal(now[words][:rows], old[words])
    assert len(now[words]) == rows + 4
    own = {name.split(".")[0] for name, _ in model.named_parameters()} - {"encoder"}
    assert own == {"pair", "classifier"}


def test_gradients_reach_the_linear_layer_and_everything_before_it(model: Any, reader: Subwords) -> None:
    batch = replace(batch_of(reader, [WORDS] * 5, PAIRS), labels=torch.tensor([0, 1, 2, 1, 0]))
    model.loss(batch).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())
    model.zero_grad()


def test_the_linear_layer_leaves_the_text_side_of_the_other_systems_as_it_is(
    tiny_encoder: Path, reader: Subwords
) -> None:
    drawn = []
    for name in ("mtb", "hmnet"):
        config = replace(CONFIG, system=name, levels=() if name == "mtb" else (3, 5, 2, 4))
        torch.manual_seed(4)
        system = new_system(tiny_encoder, config, reader)
        markers = system.encoder.get_input_embeddings().weight
        drawn.append([markers, system.classifier.weight, torch.rand(1)])
    for one, other in zip(*drawn, strict=True):
        assert torch.equal(one, other)


def stage_of(folder: Path, encoder: Path, system: str, task: str) -> Train:
    run = RunFolder(folder)
    facts: dict[str, Any] = {"task": task, "tokens": ["ada", "in", "paris"]}
    if task == "re":
        facts.update(head=(0, 1), tail=(2, 3), relation="/per/loc")
    else:
        facts.update(tags=["B-PER", "O", "B-LOC"])
    write_table(run.samples, table_of(SAMPLES, [{"id": "1", "split": "train", **facts}]))
    recipe = TrainSettings(encoder=str(encoder), precision="fp32", device="cpu")
    return Train(run, recipe, task, Trial(system))


def test_trainings_from_before_the_linear_layer_are_made_again_and_no_others(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    for (system, task), version in zip([("mtb", "re"), ("bert-crf", "ner")], (2, 1), strict=True):
        stage = stage_of(tmp_path / system, tiny_encoder, system, task)
        causes = stage.causes()
        assert causes.schema_version == version
        replace(causes, schema_version=1).write(stage.run.record(stage.name))
        changed = why_changed(stage)
        assert (changed == "schema_version: 1 -> 2") == (system == "mtb"), changed
    assert all(info.version == 1 for name, info in SYSTEMS.items() if name != "mtb")


def test_a_model_from_before_the_linear_layer_is_refused_with_the_remedy(
    model: Any, reader: Subwords, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path, reader)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("pair.")}
    save_file(kept, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"damaged or of another version .*; train it again"):
        load_system(tmp_path)


def test_every_argument_is_read_and_its_order_counts(model: Any, reader: Subwords) -> None:
    logits = model(batch_of(reader, [WORDS] * 4, PAIRS[:4]))
    for one, other in itertools.combinations(logits, 2):
        assert not torch.allclose(one, other)
