"""Tables for people."""

import statistics
from typing import Any

from hmnet_pipe.pipeline.report.text import score_table, trials_table


def metrics(system: str, valid: float, test: float | None) -> dict[str, Any]:
    return {"system": system, "valid": {"f1": valid}, "test": None if test is None else {"f1": test}}


def test_seeds_are_summed_up_as_mean_and_sample_deviation() -> None:
    lines = trials_table(
        [metrics("hmnet", 0.5, 0.25), metrics("hmnet", 0.75, 0.5), metrics("bert-crf", 0.5, None)]
    ).splitlines()
    deviation = f"{statistics.stdev([0.5, 0.75]):.4f}"
    assert lines[2].split() == ["hmnet", "2", "0.6250", deviation, "0.3750", deviation]
    assert lines[3].split() == ["bert-crf", "1", "0.5000", "-", "-", "-"]
    assert len({len(line) for line in lines}) == 1


def test_scores_are_shown_overall_per_type_and_per_group() -> None:
    row = {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "support": 4}
    lines = score_table({**row, "per_type": {"PER": row}, "per_group": {"vision": row}}).splitlines()
    assert [line.split()[:-4] for line in lines[2:]] == [["overall"], ["PER"], ["group", "vision"]]
    assert all(line.split()[-4:] == ["1.0000", "0.5000", "0.6667", "4"] for line in lines[2:])
