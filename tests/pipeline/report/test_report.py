"""Tables for people."""

import statistics
from typing import Any

from hmnet_pipe.pipeline.report.text import groups_table, score_table, trials_table


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


def test_groups_are_columns_of_means_and_deviations_over_seeds() -> None:
    def trained(system: str, **groups: float) -> dict[str, Any]:
        own = {name: {"f1": score} for name, score in groups.items()}
        return {"system": system, "valid": None, "test": {"f1": 0.5, "per_group": own}}

    lines = groups_table(
        [
            trained("hmnet", kind=0.5, scene=1.0),
            trained("hmnet", kind=0.75, scene=0.5),
            trained("mtb", kind=0.25),
            {"system": "untested", "valid": None, "test": None},
        ]
    ).splitlines()
    assert lines[0].split() == ["system", "trainings", "all", "kind", "scene"]
    spread = f"{100 * statistics.stdev([0.5, 0.75]):.1f}"
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[2:]]
    assert cells[0][:2] == ["hmnet", "2"]
    assert cells[0][3] == f"62.5 ± {spread}"
    assert cells[1] == ["mtb", "1", "50.0", "25.0", "-"]
    assert cells[2] == ["untested", "1", "-", "-", "-"]
