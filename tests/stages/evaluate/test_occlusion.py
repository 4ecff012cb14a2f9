"""What an answer depends on: each part of the image is taken away for good, and the model asked again."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hmnet_pipe.stages.evaluate.examined import IMAGE, LEVEL, VIEW, Examined, KeptCases
from hmnet_pipe.stages.evaluate.occlusion import examine
from hmnet_pipe.stages.learning.opened import OpenModel
from hmnet_pipe.stages.learning.splits import Split
from hmnet_pipe.stages.systems.marginals import span_types
from hmnet_pipe.stages.text.limits import EncodedText

from ... import rigs
from ...rigs import LENGTHS, MARKERS, PRESENT, RELATIONS, TAGS, WORDS

ANSWER = ("PER", 0, 0)
RELATION = ("/per/org", 0, 0)


class Images:
    """The views of a batch of tests/rigs.py, by the number of the sample."""

    def __init__(self, batch: Any) -> None:
        self._views, self._mask = batch.views.numpy(), batch.view_mask.numpy()

    def __contains__(self, key: object) -> bool:
        return key is not None

    def gather(self, keys: Sequence[str | None]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        numbers = [int(key or 0) for key in keys]
        there = np.array([key is not None for key in keys])
        return self._views[numbers], self._mask[numbers] & there[:, None]


class Reader:
    """Pads with 0, and reads nothing."""

    pad_id = 0


def examined(model: Any, batch: Any, task: str, answer: tuple[str, int, int]) -> list[Examined]:
    positions = WORDS if task == "ner" else MARKERS
    numbers = range(len(LENGTHS))
    texts = [
        EncodedText(batch.input_ids[i, : LENGTHS[i]].tolist(), list(positions[i]), len(WORDS[i]))
        for i in numbers
    ]
    names = [str(i) for i in numbers]
    split = Split("test", names, [["w"] * len(row) for row in WORDS], [[]] * 5, [[]] * 5, [*names], texts)
    reader: Any = Reader()
    opened = OpenModel(Path("nowhere"), model, reader, "fp32", False)
    return examine(opened, split, [answer] * len(names), Images(batch))


def probability(model: Any, batch: Any, sample: int, task: str) -> float:
    scored = model.scored(batch)
    if task == "re":
        return float(scored.probabilities[sample, RELATIONS.index(RELATION[0])])
    return float(scored.chain.spans(*span_types(TAGS)[ANSWER[0]])[sample, 0, 0])


def alone(batch: Any, sample: int, task: str) -> Any:
    words = len(WORDS[sample]) if task == "ner" else 3
    return rigs.only(batch, sample, length=LENGTHS[sample], words=words)


@pytest.mark.parametrize("task", ["ner", "re"])
@pytest.mark.parametrize("system", ["hmnet", "hmnet-onlyobj", "hmnet-onlyglobal", "umgf"])
def test_the_probability_without_a_part_is_that_of_a_sample_that_lacks_it(system: str, task: str) -> None:
    """The views of each sample are taken out of its arrays by hand, one sample at a time."""
    model, batch = rigs.model_of(rigs.config_of(system, task)), rigs.batch_of(task)
    seen = {"hmnet": range(4), "hmnet-onlyglobal": range(1)}.get(system, range(1, 4))
    for sample, found in enumerate(examined(model, batch, task, ANSWER if task == "ner" else RELATION)):
        one = alone(batch, sample, task)
        assert found.probability == pytest.approx(probability(model, one, 0, task), abs=1e-9)
        parts = {(each.what, each.number): each.probability for each in found.occluded}
        views = [view for view in seen if PRESENT[sample][view]]
        assert [number for what, number in parts if what == VIEW] == views
        gone = replace(one, view_mask=torch.zeros_like(one.view_mask))
        assert parts[IMAGE, 0] == pytest.approx(probability(model, gone, 0, task), abs=1e-9)
        for view in views:
            left = replace(one, view_mask=one.view_mask.clone(), views=one.views.clone())
            left.view_mask[0, view] = False
            left.views[0, view] = float("nan")
            assert parts[VIEW, view] == pytest.approx(probability(model, left, 0, task), abs=1e-9)
        levels = [number for what, number in parts if what == LEVEL]
        assert levels == (list(range(model.gated_levels)) if views else [])


def test_a_level_that_is_closed_counts_nothing_and_the_others_share_what_it_had() -> None:
    model, batch = rigs.model_of(rigs.config_of("hmnet")), rigs.batch_of()
    assert model.gated_levels == 2
    before = model(batch)
    open_gates = torch.stack(model.fusion.gates_of(batch.views, batch.view_mask))
    with model.without_level(0):
        closed = model(batch)
        gates = torch.stack(model.fusion.gates_of(batch.views, batch.view_mask))
        assert torch.equal(gates[..., 0], torch.zeros_like(gates[..., 0]))
        torch.testing.assert_close(gates[..., 1], torch.ones_like(gates[..., 1]))
        # The level is taken out of the gates' sum, and not out of the mean that they read.
        rest = open_gates[..., 1:] / open_gates[..., 1:].sum(dim=-1, keepdim=True)
        torch.testing.assert_close(gates[..., 1:], rest)
    assert not torch.equal(closed, before)
    assert torch.equal(model(batch), before)


def test_attention_is_that_of_the_answers_first_word_by_view_and_cell() -> None:
    model, batch = rigs.model_of(rigs.config_of("hmnet")), rigs.batch_of()
    explained = model.explain(batch)
    assert explained.cells is not None
    torch.testing.assert_close(explained.cells.sum(-1), explained.attention)
    for sample, found in enumerate(examined(model, batch, "ner", ANSWER)):
        assert found.looked is not None
        assert found.looked.present == list(PRESENT[sample])
        place = WORDS[sample][0]
        expected = explained.attention[:, sample, :, place].mean(dim=1)
        np.testing.assert_allclose(found.looked.attention, expected, atol=1e-6)
        cells = explained.cells[:, sample, :, place].mean(dim=1)
        np.testing.assert_allclose(found.looked.cells, cells, atol=1e-6)
        assert explained.gates is not None
        np.testing.assert_allclose(found.looked.gates, explained.gates[:, sample], atol=1e-6)
        assert (found.looked.first, found.looked.word) == (0, 0)


def test_what_a_model_cannot_answer_has_no_probability() -> None:
    model, batch = rigs.model_of(rigs.config_of("hmnet")), rigs.batch_of()
    for answer in (("NEW", 0, 0), ("PER", 7, 8)):
        found = examined(model, batch, "ner", answer)
        assert [each.probability for each in found] == [None] * 5
        assert {each.occluded for each in found} == {()}


def test_kept_cases_are_read_back_and_those_that_are_spoilt_or_of_another_model_are_not(
    tmp_path: Path,
) -> None:
    model, batch = rigs.model_of(rigs.config_of("hmnet")), rigs.batch_of()
    cases = {(str(i), one.answer): one for i, one in enumerate(examined(model, batch, "ner", ANSWER))}
    made_from, path = {"model": "a", "precision": "fp32"}, tmp_path / "cases-test.json"
    KeptCases(made_from, {"test": 1}, cases).write(path)
    found = KeptCases.known(path, made_from)
    assert found is not None
    assert (found.truncated, found.cases) == ({"test": 1}, cases)
    assert KeptCases.known(path, {**made_from, "model": "b"}) is None
    whole = path.read_text()
    for spoilt in ("", "[]", "{}", whole[:-20], whole.replace('"attention"', '"attentions"'), "[" * 100_000):
        path.write_text(spoilt)
        assert KeptCases.known(path, made_from) is None
    assert KeptCases.known(tmp_path / "nowhere", made_from) is None
