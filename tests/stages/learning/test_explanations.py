"""The table of explanations holds of each sample what its model looked at, at the sample's own positions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hmnet_pipe.stages.learning.explanations import explanations_table
from hmnet_pipe.stages.learning.splits import Split
from hmnet_pipe.stages.text.limits import EncodedText

from ... import rigs
from ...rigs import LENGTHS, MARKERS, PRESENT, WORDS

SAMPLES = range(len(LENGTHS))


class Images:
    """The views of a batch of tests/rigs.py, by the number of the sample."""

    def __init__(self, batch: Any) -> None:
        self._views, self._mask = batch.views.numpy(), batch.view_mask.numpy()

    def __contains__(self, key: object) -> bool:
        return True

    def gather(self, keys: Sequence[str | None]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        numbers = [int(key) for key in keys if key is not None]
        return self._views[numbers], self._mask[numbers]


def split_of(batch: Any, task: str) -> Split:
    names = [str(i) for i in SAMPLES]
    tokens = [[f"word-{word}" for word in row] for row in WORDS]
    positions = WORDS if task == "ner" else MARKERS
    texts = [
        EncodedText(batch.input_ids[i, : LENGTHS[i]].tolist(), list(positions[i]), len(WORDS[i]))
        for i in SAMPLES
    ]
    return Split("test", names, tokens, [[] for _ in names], [[] for _ in names], [*names], texts)


@pytest.mark.parametrize(
    ("system", "task", "over", "gates"),
    [
        ("adapcoatt-bert-crf", "ner", "cells", ["visual", "filtration"]),
        ("umt", "ner", "cells", ["visual"]),
        ("umt", "re", "cells", ["visual"]),
        ("umgf", "ner", "objects", []),
        ("umgf", "re", "objects", []),
    ],
)
def test_a_row_is_what_the_model_explains_of_its_sample(
    system: str, task: str, over: str, gates: list[str]
) -> None:
    model, batch = rigs.model_of(rigs.config_of(system, task)), rigs.batch_of(task)
    explained = model.explain(batch)
    table = explanations_table(
        model, split_of(batch, task), visuals=Images(batch), pad_id=0, precision="fp32", batch_size=2
    )
    for sample, row in enumerate(table.to_pylist()):
        at = list(WORDS[sample] if task == "ner" else MARKERS[sample])
        words = [f"word-{word}" for word in WORDS[sample]]
        assert row["positions"] == (words if task == "ner" else ["[CLS]", "[E1]", "[E2]"])
        assert row["over"] == over
        there = PRESENT[sample][0:1] * 4 if over == "cells" else PRESENT[sample][1:]
        assert row["views"] == list(there)
        assert row["gates"] is None
        expected = explained.attention[:, sample][:, :, at].mean(dim=1)
        np.testing.assert_allclose(row["attention"], expected, atol=1e-6)
        assert [name for name, _ in row["word_gates"]] == gates
        for name, values in row["word_gates"]:
            np.testing.assert_allclose(values, explained.word_gates[name][sample, at], atol=1e-6)
