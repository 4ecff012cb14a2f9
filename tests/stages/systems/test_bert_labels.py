"""The control that reads an image as words: the labels of its objects behind the text, within the limit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.schemas import DETECTIONS
from hmnet_pipe.manifests.tables import table_of
from hmnet_pipe.stages.learning.batches import batches
from hmnet_pipe.stages.learning.extras import LabelText
from hmnet_pipe.stages.learning.splits import Split, shuffled_images
from hmnet_pipe.stages.systems.batch import Batch, ModelConfig
from hmnet_pipe.stages.systems.build import new_system
from hmnet_pipe.stages.systems.text_only import second_segments
from hmnet_pipe.stages.text.limits import EncodedText
from hmnet_pipe.stages.text.subwords import Subwords

WORDS = ["ada", "sat", "near", "paris"]
LABELS = {"a": ["cat", "red cat", "london"], "b": ["cat"], "c": []}
LIMIT = 40


def detections() -> Any:
    box = {"x0": 0.0, "y0": 0.0, "x1": 1.0, "y1": 1.0, "score": 0.5}
    rows = [
        {"image_key": key, "rank": rank, "label": label, **box}
        for key, labels in LABELS.items()
        for rank, label in reversed(list(enumerate(labels)))
    ]
    return table_of(DETECTIONS, rows)


@pytest.fixture(params=["tiny_encoder", "tiny_roberta"])
def encoder(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def extra_of(reader: Subwords, limit: int = LIMIT, most: int = 3) -> LabelText:
    return LabelText(detections(), reader, most=most, limit=limit)


def text_of(reader: Subwords, task: str = "ner") -> EncodedText:
    (text,) = reader.encode([WORDS], None if task == "ner" else [((0, 1), (3, 4))], limit=LIMIT)
    return text


def test_a_text_and_its_labels_are_what_the_tokenizer_makes_of_a_pair(encoder: Path) -> None:
    reader = Subwords.of_encoder(encoder, "ner")
    text = text_of(reader)
    pair = reader.tokenizer(" ".join(WORDS), "cat red cat london")
    found = extra_of(reader).text(text, "a")
    assert found.input_ids == pair["input_ids"]
    assert (found.positions, found.words) == (text.positions, text.words)
    ids = torch.tensor([[*found.input_ids, 0, 0]])
    mask = torch.arange(ids.shape[1])[None] < len(found.input_ids)
    segments = second_segments(ids, mask)[0, : len(found.input_ids)].tolist()
    if "token_type_ids" in pair and reader.tokenizer.sep_token == "[SEP]":
        first = text.input_ids
        assert segments == [0] * len(first) + [1] * (len(pair["input_ids"]) - len(first))
    for key in ("c", "unknown", None):
        assert extra_of(reader).text(text, key) is text
    assert not second_segments(torch.tensor([text.input_ids]), torch.ones(1, len(text.input_ids))).any()


def test_labels_stop_where_the_limit_is_and_never_cost_a_word(encoder: Path) -> None:
    reader = Subwords.of_encoder(encoder, "ner")
    text, whole = text_of(reader), extra_of(reader).text(text_of(reader), "a")
    lengths = set()
    for limit in range(len(text.input_ids), LIMIT):
        found = extra_of(reader, limit).text(text, "a").input_ids
        assert len(found) <= limit
        assert found[: len(text.input_ids)] == text.input_ids
        assert found[-1] == text.input_ids[-1]
        assert found == text.input_ids or found[:-1] == whole.input_ids[: len(found) - 1]
        lengths.add(len(found))
    assert len(lengths) == 4, "no label, one, two and three"
    assert extra_of(reader, most=1).text(text, "a") == extra_of(reader).text(text, "b")


def split_of(reader: Subwords, task: str, keys: list[str | None]) -> Split:
    count = len(keys)
    gold = [["B-PER", "O", "O", "B-LOC"] if task == "ner" else ["/per/loc"]] * count
    ids = [str(number) for number in range(count)]
    split = Split("test", ids, [WORDS] * count, gold, [[]] * count, keys)
    return replace(split, texts=[text_of(reader, task)] * count, extras=(extra_of(reader),))


def batch_of(split: Split, reader: Subwords, task: str) -> Batch:
    order = [range(len(split))]
    (batch,) = batches(split, order, task=task, pad_id=reader.pad_id, label_ids=None, visuals=None)
    return batch


@pytest.mark.parametrize("task", ["ner", "re"])
def test_labels_move_the_scores_and_without_any_it_is_the_system_on_text_alone(
    encoder: Path, task: str
) -> None:
    reader = Subwords.of_encoder(encoder, task)
    labels = ("O", "B-PER", "B-LOC") if task == "ner" else ("None", "/per/loc")
    config = ModelConfig("bert-labels", task, labels, (), "markers", LIMIT, {}, None)
    models: list[Any] = []
    for name in ("bert-labels", {"ner": "bert-crf", "re": "mtb"}[task]):
        torch.manual_seed(1)
        models.append(new_system(encoder, replace(config, system=name), reader).double().eval())
    batch = batch_of(split_of(reader, task, ["a", "b", "c", None]), reader, task)
    scores = models[0](batch)
    plain = models[1](batch_of(replace(split_of(reader, task, [None] * 4), extras=()), reader, task))
    torch.testing.assert_close(scores[2:], plain[2:], rtol=0, atol=1e-12)
    assert (scores[:2] - plain[:2]).abs().amax() > 1e-6
    assert not torch.allclose(scores[0], scores[1])
    with pytest.raises(InputError, match="bert-labels has no gate and no attention to an image"):
        models[0].explain(batch)


def test_a_shuffled_image_takes_its_labels_along(tiny_encoder: Path) -> None:
    reader = Subwords.of_encoder(tiny_encoder, "ner")
    split = split_of(reader, "ner", ["a", "b"])
    here, there = (batch_of(one, reader, "ner").input_ids for one in (split, shuffled_images(split, seed=1)))
    assert not torch.equal(here, there)
    assert torch.equal(here, there.flip(0))
