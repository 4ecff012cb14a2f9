"""The table of trainings in every form: the same numbers, and names that no form reads as its own signs."""

import csv
import io
import json
import re
import statistics
from typing import Any

import pytest
from click.testing import CliRunner
from hmnet_pipe.manifests.printable import in_markdown
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.report.formats import TABLE_FORMATS, in_latex, trials_as

HOSTILE = r"a_b & 50% #1 {x} ~^\ [y] $z$ <script>|`\x1b"


def trained(system: str, seed: int, f1: float, **more: Any) -> dict[str, Any]:
    scores = {"f1": f1, "precision": f1 + 0.01, "recall": f1 - 0.01}
    return {"system": system, "seed": seed, "task": "ner", "valid": scores, "test": scores, **more}


METRICS = [trained("bert-crf", 1, 0.7), trained("hmnet", 1, 0.71), trained("hmnet", 2, 0.7456)]
DIFFERENCES = {"hmnet": {"value": 0.0278, "low": -0.001, "high": 0.05, "p": 0.03, "p_holm": 0.06, "seeds": 1}}
MEAN, DEVIATION = statistics.mean([0.71, 0.7456]), statistics.stdev([0.71, 0.7456])


def test_csv_and_json_have_all_digits() -> None:
    rows = list(csv.DictReader(io.StringIO(trials_as("csv", METRICS, DIFFERENCES))))
    assert [row["system"] for row in rows] == ["bert-crf", "hmnet"]
    assert float(rows[1]["test_f1"]) == MEAN
    assert float(rows[1]["test_f1_deviation"]) == DEVIATION
    assert rows[0]["test_f1_deviation"] == ""
    assert float(rows[1]["difference_low"]) == -0.001
    assert rows[0]["difference_p"] == ""
    assert json.loads(trials_as("json", METRICS)) == METRICS
    assert json.loads(trials_as("json", METRICS, DIFFERENCES))["differences"] == DIFFERENCES


def test_markdown_shows_percent_and_the_best_of_each_column_in_bold() -> None:
    lines = trials_as("markdown", METRICS, DIFFERENCES).splitlines()
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert lines[2] == "| bert-crf | 1 | 71.00 | 69.00 | 70.00 | - | - |"
    best = f"**{100 * MEAN:.2f}** ± {100 * DEVIATION:.2f}"
    assert lines[3].split(" | ")[4:] == [best, "+2.78 (-0.10 to +5.00)", "0.0600 |"]


def test_latex_is_a_booktabs_tabular_with_as_many_cells_in_each_row() -> None:
    text = trials_as("latex", METRICS, DIFFERENCES)
    columns = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)[0]
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [line.count(" & ") + 1 for line in rows] == [len(columns)] * 3
    assert rows[2].split(" & ")[4] == rf"$\mathbf{{{100 * MEAN:.2f}}}_{{\pm {100 * DEVIATION:.2f}}}$"
    assert r"difference (95\% interval)" in rows[0]
    assert r"$-$0.10" in rows[2]
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]


def test_one_row_alone_is_not_the_best_of_anything() -> None:
    assert "**" not in trials_as("markdown", METRICS[:1])
    assert r"\mathbf" not in trials_as("latex", METRICS[:1])


@pytest.mark.parametrize("form", TABLE_FORMATS)
def test_a_split_without_scores_is_an_empty_cell(form: str) -> None:
    untested = [{**METRICS[0], "test": None}]
    shown = {"text": "-", "markdown": "| - | - | - |", "latex": "-- & -- & --", "csv": ",,,", "json": "null"}
    assert shown[form] in trials_as(form, untested)


@pytest.mark.parametrize("form", TABLE_FORMATS)
def test_names_are_shown_as_they_are_and_steer_nothing(form: str) -> None:
    """A name with the signs of every form, in the one part of a setting that is a text of the user's."""
    shown = trials_as(form, [trained("hmnet", 1, 0.5, features=HOSTILE + "\x1b")])
    assert "\x1b" not in shown
    if form == "csv":
        assert next(csv.DictReader(io.StringIO(shown)))["system"] == rf"hmnet, on {HOSTILE}\x1b"
    if form == "markdown":
        assert "<script>" not in shown
        assert len(re.findall(r"(?<!\\)\|", shown.splitlines()[2])) == 6
    if form == "latex":
        row = shown.splitlines()[5]
        bare = re.sub(r"\\text\w+\{\}|\\[&%$#_{}]|\{[][]\}", "", row.split(" & ")[0])
        assert not set(bare) & set("\\~^&%$#_{}[]")


def test_what_means_something_to_latex_and_markdown_is_escaped() -> None:
    assert in_latex("50% of a_b & {c}") == r"50\% of a\_b \& \{c\}"
    assert in_latex("\\~^[x]") == r"\textbackslash{}\textasciitilde{}\textasciicircum{}{[}x{]}"
    assert in_markdown("a_b <b> | *x* _y_ &amp;") == r"a_b &lt;b> \| \*x\* \_y\_ &amp;amp;"


def test_a_form_that_there_is_not_is_one_sentence(tmp_path: Any) -> None:
    for words, said in (
        (["--format", "latx"], "did you mean latex?"),
        (["--format", "csv", "--json"], "two forms of one table"),
    ):
        shown = CliRunner().invoke(main, ["table", str(tmp_path), *words])
        assert shown.exit_code == 2
        assert said in shown.output
