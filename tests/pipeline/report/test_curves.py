"""The figure of a grid: which trainings make a point, its interval, and a file that is the same each time."""

from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.pipeline.experiment.grid import Draw
from hmnet_pipe.pipeline.experiment.results import Result
from hmnet_pipe.pipeline.report.curves import panels_of, write_figure


def result(system: str, scores: list[float], draw: Draw | None = None, **more: Any) -> Result:
    metrics = [
        {"valid": None, "test": {"f1": score, "per_group": {"vision": {"f1": score / 2}}}} for score in scores
    ]
    count = len(scores)
    return Result("few", "x", system, system, draw or Draw(), {}, count, count, metrics, **more)


RESULTS = [
    result("hmnet", [0.5, 0.6, 0.7], Draw(5)),
    result("hmnet", [0.75], Draw(10)),
    result("mtb", [0.25, 0.5], Draw(5)),
    result("hmnet", [0.5], Draw(5, natural=True)),
    result("hmnet", [0.5], Draw(percent=20)),
    result("hmnet", [0.9]),
]


def test_draws_of_one_kind_share_a_panel_and_a_system_is_a_line() -> None:
    panels = panels_of(RESULTS)
    assert [(panel.title, panel.label) for panel in panels] == [
        ("x", "samples of each class"),
        ("x, natural share of nothing", "samples of each class"),
        ("x", "share of the samples, %"),
    ]
    hmnet, mtb = panels[0].curves
    assert (hmnet.name, hmnet.x) == ("hmnet", (5, 10))
    assert list(hmnet.mean) == pytest.approx([60, 75])
    # 4.303 and 12.706 are Student's quantiles of 0.975 with two degrees of freedom and one.
    assert list(hmnet.half) == pytest.approx([4.303 * stdev([50, 60, 70]) / 3**0.5, 0], rel=1e-3)
    assert list(mtb.half) == pytest.approx([12.706 * stdev([25, 50]) / 2**0.5], rel=1e-3)
    of_group = panels_of(RESULTS, "vision")[0].curves[0].mean
    assert list(of_group) == pytest.approx([mean([25, 30, 35]), 37.5])


def test_the_x_of_data_is_an_axis_of_its_own() -> None:
    shares = [
        result("hmnet", [0.9 - share / 200], x=float(share), x_label="random, %") for share in (0, 50, 100)
    ]
    [panel] = panels_of(shares)
    assert (panel.title, panel.label) == ("few", "random, %")
    assert panel.curves[0].x == (0, 50, 100)


@pytest.mark.parametrize("name", ["few.svg", "deep/few.pdf"])
def test_the_same_figure_is_the_same_file(tmp_path: Path, name: str) -> None:
    write_figure(panels_of(RESULTS), tmp_path / name)
    first = (tmp_path / name).read_bytes()
    write_figure(panels_of(RESULTS), tmp_path / name)
    assert (tmp_path / name).read_bytes() == first
    assert first[:4] in (b"%PDF", b"<?xm")


def test_what_cannot_be_drawn_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is nothing to draw: no finished training"):
        write_figure(panels_of(RESULTS[-1:]), tmp_path / "x.svg")
    with pytest.raises(InputError, match=r"must end in .svg or .pdf"):
        write_figure(panels_of(RESULTS), tmp_path / "x.jpg")
