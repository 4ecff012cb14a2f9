"""Grids of trainings on tiny corpora: chosen, resumed, failed and tabled, each training made once."""

import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tomlkit
from click.testing import CliRunner
from hmnet_pipe.manifests.errors import InputError, StageError
from hmnet_pipe.manifests.fingerprint import digest_file
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import SAMPLES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.checks.status import run_status
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.experiment.cells import Experiment
from hmnet_pipe.pipeline.experiment.grid import read_grid
from hmnet_pipe.pipeline.experiment.results import results
from hmnet_pipe.pipeline.experiment.run import Summary, in_words, make_runs, run_experiment
from hmnet_pipe.pipeline.experiment.work import CellUnit, train_cell
from hmnet_pipe.pipeline.report.experiment import results_as, status_of
from hmnet_pipe.pipeline.report.text import trials_table
from hmnet_pipe.pipeline.reproduce.experiment import lock_experiment
from hmnet_pipe.pipeline.reproduce.lock import read_lock
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.locks import hold
from hmnet_pipe.pipeline.run.score import score_predictions
from hmnet_pipe.pipeline.run.trainings import finished_trainings
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.learning import fit
from hmnet_pipe.stages.learning.inputs import open_extras
from hmnet_pipe.stages.learning.metrics import read_metrics

from ...running import Demos, bring_up_to_date, configure, wait_until

pytestmark = pytest.mark.slow

SIZES = {"train": 12, "valid": 6, "test": 6}
GRID: dict[str, Any] = {
    "output": "out",
    "data": {"x": {"run": "x"}},
    "recipes": {"few": {"batch_size": 2}},
    "trainings": {
        "all": {
            "systems": ["bert-crf", "bert-labels"],
            "seeds": [1, 2],
            "search": {"learning_rate": [1e-3, 1e-2]},
        },
        "draws": {"systems": ["bert-crf"], "shots": [1, 2], "subset_seeds": [1, 2], "recipe": "few"},
    },
}
TRAININGS = 2 * 3 + 4


@pytest.fixture(scope="module")
def ready(demos: Demos, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run that can be trained on; never changed."""
    place = tmp_path_factory.mktemp("grid")
    shutil.copytree(demos.run(sizes=SIZES), place / "x")
    own = {"epochs": 1, "first_evaluation": 1, "batch_size": 4, "precision": "fp32", "learning_rate": 1e-3}
    configure(place / "x", "train", encoder=str(tiny_encoder), **own)
    return place


@pytest.fixture
def place(ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ready, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture(scope="module")
def finished(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder after the grid was run undisturbed; never changed."""
    folder = Path(shutil.copytree(ready, tmp_path_factory.mktemp("finished") / "place"))
    before = Path.cwd()
    os.chdir(folder)
    try:
        summary = run(GRID)
    finally:
        os.chdir(before)
    assert (summary.done, summary.made, summary.failed) == (TRAININGS, TRAININGS, {})
    return folder


def opened(grid: dict[str, Any]) -> Experiment:
    path = Path("grid.toml")
    path.write_text(tomlkit.dumps(grid))
    return Experiment(read_grid(path))


def run(grid: dict[str, Any], say: Callable[[str], None] = lambda line: None) -> Summary:
    experiment = opened(grid)
    wrong = make_runs(experiment, SILENT)
    return run_experiment(experiment, wrong, SILENT, say=say)


def weights_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("models/*/*/model.safetensors")
    }


def table_of(grid: dict[str, Any], form: str = "json") -> str:
    return results_as(form, results(opened(grid), ["bert-crf"]))


def test_the_rate_is_chosen_on_validation_by_the_first_seed_and_then_fixed(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    experiment = opened(GRID)
    for row in experiment.rows[:2]:
        scores = {
            recipe: read_metrics(RunFolder(finished / "x").model(cell.trial))["valid"]["f1"]
            for recipe, cell in experiment.first(row).items()
        }
        assert list(scores) == ["run", "lr_1e2"], "1e-3 is the rate of run.toml already"
        best = max(scores, key=lambda recipe: scores[recipe])
        assert experiment.chosen(row) == best
        trained = [cell.trial for cell in experiment.trained(row).values()]
        assert trained == [Trial(row.system, seed, recipe=best) for seed in (1, 2)]
    there = {path.parent.name for path in (finished / "x" / "models" / "bert-crf").glob("*/metrics.json")}
    assert len(there) == 3 + 4
    recipes = RunConfig.read(finished / "x" / "run.toml").recipes
    assert {name: dict(values) for name, values in recipes.items()} == {
        "few": {"batch_size": 2},
        "lr_1e2": {"learning_rate": 1e-2},
    }


def test_nothing_is_trained_twice(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("x/models/**/*")}
    said: list[str] = []
    summary = run(GRID, said.append)
    assert (summary.done, summary.made, said) == (TRAININGS, 0, [])
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_each_draw_has_samples_of_its_own_and_more_shots_have_more(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    subsets = {
        (one["shots"], one["subset_seed"]): one["subset"]
        for row in results(opened(GRID))
        for one in row.metrics
        if "shots" in one
    }
    assert len({subset["digest"] for subset in subsets.values()}) == 4
    assert subsets[1, 1]["samples"] < subsets[2, 1]["samples"]


@pytest.fixture(scope="module")
def forks() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def run_there(folder: Path) -> None:
    os.chdir(folder)
    run(GRID)


def test_a_grid_that_is_killed_goes_on_and_ends_in_the_same_table(
    place: Path, finished: Path, forks: ForkServerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = forks.Process(target=run_there, args=(place,))
    process.start()
    done = place / "x" / "stages"
    wait_until(lambda: len(list(done.glob("train-*.json"))) >= 3 or not process.is_alive())
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    begun = len(list(done.glob("train-*.json")))
    assert 3 <= begun < TRAININGS
    summary = run(GRID)
    assert (summary.done, summary.made) == (TRAININGS, TRAININGS - begun)
    assert weights_below(place) == weights_below(finished)
    table = table_of(GRID)
    monkeypatch.chdir(finished)
    assert table == table_of(GRID)


def test_a_training_that_fails_is_a_row_with_its_reason_and_the_rest_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = {**GRID, "trainings": {"all": {"systems": ["bert-crf", "umt", "hbilstm-crf"], "seeds": [1]}}}
    grid["data"] = {"x": {"run": "x", "train": {"vectors": "nowhere.txt"}}}
    said: list[str] = []
    summary = run(grid, said.append)
    assert (summary.done, summary.made) == (2, 2)
    [(title, reason)] = summary.failed.items()
    assert title == "x: hbilstm-crf seed 1"
    assert "nowhere.txt" in reason
    assert any(line.startswith("2 of 3  x: hbilstm-crf seed 1: failed: ") for line in said)
    found = status_of(opened(grid), 1)
    assert (found["done"], found["failed"], found["reasons"]) == (2, 1, summary.failed)
    lines = table_of(grid, "text").splitlines()
    assert [line.split()[1:5] for line in lines[2:5]] == [
        [name, str(done), "of", "1"] for name, done in (("bert-crf", 1), ("umt", 1), ("hbilstm-crf", 0))
    ]
    assert f"note: not trained: {title}: {reason}" in lines
    # With the remedy it is made, and the reason is forgotten.
    grid["data"] = {"x": {"run": "x", "train": {"vectors": ""}}}
    again = run(grid)
    assert (again.done, again.made, again.failed) == (3, 1, {})
    assert list(Path("out").rglob("*.txt")) == []


def test_a_fault_of_one_system_costs_its_own_trainings_and_leaves_a_trace(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = {**GRID, "trainings": {"all": {"systems": ["bert-crf", "bert-labels"], "seeds": [1]}}}

    def broken(*arguments: Any) -> Any:
        raise ZeroDivisionError("of a system")

    original = open_extras
    monkeypatch.setattr(
        fit, "open_extras", lambda info, *rest: (broken if info.objects else original)(info, *rest)
    )
    summary = run(grid)
    assert summary.failed == {"x: bert-labels seed 1": "of a system"}
    [trace] = Path("out").rglob("*.txt")
    assert "ZeroDivisionError" in trace.read_text()


def test_a_training_that_another_process_makes_is_left_to_it(place: Path) -> None:
    grid = {**GRID, "trainings": {"all": {"systems": ["bert-crf"], "seeds": [1, 2]}}}
    with hold(RunFolder(place / "x").lock("train-bert-crf-seed-1"), "it is being run"):
        summary = run(grid)
    assert (summary.done, summary.failed, summary.held) == (1, {}, ("x: bert-crf seed 1",))
    assert not Path("out").exists()


def test_the_runs_of_a_grid_are_made_where_they_are_not(
    tmp_path: Path, demos: Demos, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    corpus = demos.corpus(sizes=SIZES)
    train = {"encoder": str(tiny_encoder), "epochs": 1, "first_evaluation": 1}
    data = {
        "run": "new",
        "preset": "demo",
        "task": "ner",
        "text": str(corpus),
        "images": str(corpus / "images"),
        "train": train,
    }
    grid = {"data": {"new": data}, "trainings": {"a": {"systems": ["bert-crf", "umt"]}}}
    assert status_of(opened(grid), 1)["to do"] == 2
    assert not Path("new").exists(), "looking makes nothing"
    summary = run(grid)
    assert (summary.done, summary.failed) == (2, {})
    assert RunConfig.read(Path("new/run.toml")).tables["train"].epochs == 1
    assert {path.stem for path in Path("new/stages").glob("*.json") if not path.stem.startswith("train")} == {
        "prepare",
        "detect",
        "extract-grid",
    }


def test_data_that_are_not_here_cost_their_own_trainings(place: Path, tiny_encoder: Path) -> None:
    absent = {"run": "y", "preset": "twitter2015", "text": "nowhere", "images": "nowhere"}
    one = {"systems": ["bert-crf"], "seeds": [1]}
    grid = {"output": "out", "data": {"y": absent, "x": {"run": "x"}}, "trainings": {"all": one}}
    summary = run(grid)
    assert (summary.done, summary.made) == (1, 1)
    assert list(summary.failed) == ["y: bert-crf seed 1"]
    assert "nowhere" in summary.failed["y: bert-crf seed 1"]
    assert not (place / "y").exists()


def test_a_run_that_was_prepared_otherwise_is_not_taken_for_the_grids(place: Path) -> None:
    grid = {**GRID, "data": {"x": {"run": "x", "prepare": {"deal_images": 3}}}}
    with pytest.raises(InputError, match=r"has deal_images = 0 in \[prepare\], and the grid 3; name another"):
        run(grid)


def test_recipes_of_other_values_under_one_name_are_refused(place: Path) -> None:
    bring_up_to_date(place / "x", "prepare")
    run({**GRID, "trainings": {"draws": {**GRID["trainings"]["draws"], "shots": [1], "subset_seeds": [1]}}})
    other = {**GRID, "recipes": {"few": {"batch_size": 3}}}
    with pytest.raises(InputError, match=r"run.toml has other values in \[recipes.few\].*another name"):
        run(other)


def test_published_scores_stand_in_a_column_of_their_own(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    grid = {**GRID, "data": {"x": {"run": "x", "published": "Twitter-2015"}}}
    head, _, *rows = table_of(grid, "text").splitlines()
    assert head.split()[-3:] == ["published", "F1", "source"]
    assert rows[0].endswith("71.81  Yu et al. 2020; HMNeT, Table 1")
    assert "71.81" not in "".join(rows[1:]), "of all samples alone"
    assert [line.split(" | ")[-2:] for line in table_of(grid, "markdown").splitlines()[2:3]] == [
        ["71.81", "Yu et al. 2020; HMNeT, Table 1 |"]
    ]
    in_latex = table_of(grid, "latex").splitlines()
    assert in_latex[1].startswith(r"\begin{tabular}{lll")
    assert in_latex[5].startswith(r"all & x & bert-crf & all & learning\_rate 0.0")
    assert in_latex[5].endswith(r"71.81 & Yu et al. 2020; HMNeT, Table 1 \\")
    rows_of_csv = table_of(grid, "csv").splitlines()
    assert len(rows_of_csv) == 1 + 4 + 4
    values = json.loads(table_of(grid))
    assert values[0]["published"]["f1"] == 71.81
    assert values[1]["differences"]["bert-crf"]["seeds"] == 2
    assert values[0]["differences"] == {}


def test_predictions_that_were_given_are_rows_of_the_grids_table(
    place: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shutil.copytree(finished, place.parent / "given"))
    lines = [
        json.dumps({"id": row["id"], "tags": row["tags"]})
        for row in read_table(RunFolder(Path("x")).samples, SAMPLES).to_pylist()
        if row["split"] == "test"
    ]
    Path("gold.jsonl").write_text("\n".join(lines))
    score_predictions(Path("gold.jsonl"), RunFolder(Path("x")), name="gold")
    found = results(opened(GRID), ["bert-crf"])[-1]
    assert (found.name, found.table, found.done) == ("gold[given]", "all", 1)
    assert found.spread("test").mean == 1
    assert found.differences["bert-crf"].value > 0


def test_a_transfer_starts_each_seed_from_its_own_and_is_compared_with_a_control(
    place: Path, demos: Demos, tiny_encoder: Path
) -> None:
    shutil.copytree(demos.run("re", sizes=SIZES), place / "y")
    own = {"epochs": 1, "first_evaluation": 1, "batch_size": 4, "precision": "fp32"}
    configure(place / "y", "train", encoder=str(tiny_encoder), **own)
    lists = {"systems": ["hmnet"], "seeds": [1, 2]}
    grid = {
        "data": {"x": {"run": "x"}, "y": {"run": "y", "published": "MNRE-2"}},
        "trainings": {
            "transfer": {"data": "y", **lists, "start": "source", "against": ["control"]},
            "control": {"data": "y", **lists},
            "source": {"data": "x", **lists},
        },
    }
    first = opened(grid)
    assert {row.title: count for row, count in first.waiting().items()} == {"transfer, y: hmnet": 2}
    summary = run(grid)
    assert (summary.done, summary.made, summary.failed) == (6, 6, {})
    run_of = RunFolder(place / "y")
    there = {path.name for path in (run_of.models / "hmnet").iterdir()}
    tokens = {
        seed: digest_file(RunFolder(place / "x").model(Trial("hmnet", seed)) / "model.safetensors")[:8]
        for seed in (1, 2)
    }
    assert there == {"seed-1", "seed-2", *(f"seed-{seed}-from-{token}" for seed, token in tokens.items())}
    transfer, control, _ = results(opened(grid))
    assert (transfer.published.f1, control.published.f1) == (82.50, 81.85)
    assert transfer.differences["control"].seeds == 2
    assert control.differences == {}
    assert (run(grid).made, run_status(run_of).next_command) == (0, None)
    names = [line.split("  ")[0] for line in trials_table(finished_trainings(run_of)).splitlines()[2:]]
    assert names[0] == "hmnet"
    assert re.fullmatch(r"hmnet, from ner-[0-9a-f]{4}", names[1])
    done = CliRunner().invoke(
        main, ["evaluate", "y", "--system", "hmnet", "--start", "x/models/hmnet/seed-1", "--json"]
    )
    assert done.exit_code == 0, done.output
    lock_experiment(opened(grid), Path("paper"))
    corpus, name = demos.corpus("re", sizes=SIZES), f"hmnet-seed-1-from-{tokens[1]}"
    words = ["--text", corpus, "--images", corpus / "images", "--run", "again", "--only", name]
    done = CliRunner().invoke(main, ["reproduce", "paper/y.lock", *map(str, words)])
    assert done.exit_code == 2
    assert f"train-{name} starts from the model with the digest {tokens[1]}" in done.output
    assert not Path("again").exists(), "nothing is computed before it is asked for"


def test_a_grid_by_its_commands(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    opened(GRID)
    for words, expected in (
        (("run", "grid.toml", "--dry-run"), f"grid: {TRAININGS} trainings: {TRAININGS} done"),
        (("status", "grid.toml"), f"grid: {TRAININGS} trainings: {TRAININGS} done"),
        (("run", "grid.toml"), f"grid: {TRAININGS} trainings: {TRAININGS} done"),
        (("status", "grid.toml", "--system", "bert-labels"), "grid: 3 trainings: 3 done"),
        (("table", "grid.toml", "--against", "bert-crf"), "note: scores of runs in percent"),
    ):
        done = CliRunner().invoke(main, ["experiment", *words])
        assert done.exit_code == 0, done.output
        assert done.output.splitlines()[-1].startswith(expected), done.output
    wrong = CliRunner().invoke(main, ["experiment", "table", "grid.toml", "--against", "umt"])
    assert wrong.exit_code == 2
    assert "--against umt: grid.toml does not train it" in wrong.output


def test_trainings_at_once_in_processes_of_their_own(place: Path) -> None:
    opened({**GRID, "trainings": {"all": {"systems": ["bert-crf"], "seeds": [1, 2, 3]}}})
    done = CliRunner().invoke(main, ["experiment", "run", "grid.toml", "--jobs", "2", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["done"] == 3
    unit = CellUnit(next(iter(opened(GRID).cells())), place / "x")
    assert train_cell(unit).state == "done"


def test_a_grid_is_locked_and_one_training_of_it_is_made_again_equal_to_the_last_bit(
    finished: Path, demos: Demos, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "finished"))
    monkeypatch.chdir(folder)
    bring_up_to_date(folder / "x", "train", trial=Trial("bert-crf", 99))  # of no grid
    done = CliRunner().invoke(main, ["experiment", "lock", "grid.toml", "--output", str(tmp_path / "paper")])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "paper").iterdir()} == {"grid.toml", "x.lock"}
    assert read_grid(tmp_path / "paper" / "grid.toml").blocks == opened(GRID).grid.blocks
    stages = read_lock(tmp_path / "paper" / "x.lock")["stages"]
    assert {"prepare", "detect"} < set(stages)
    assert sum(name.startswith("train-") for name in stages) == TRAININGS
    corpus = demos.corpus(sizes=SIZES)
    name = "bert-crf-seed-1-shots-2-subset-2-by-few"
    words = ["--text", corpus, "--images", corpus / "images", "--run", tmp_path / "again"]
    words += ["--encoder", tiny_encoder, "--only", name]
    done = CliRunner().invoke(main, ["reproduce", str(tmp_path / "paper" / "x.lock"), *map(str, words)])
    assert done.exit_code == 0, done.output
    assert "reproduced, every result is equal" in done.output
    again, first = weights_below(tmp_path / "again"), weights_below(folder / "x")
    assert again == {f"models/bert-crf/{name.removeprefix('bert-crf-')}/model.safetensors": mock.ANY}
    assert again.items() <= first.items()
    assert not (tmp_path / "again" / "detections.parquet").exists(), "nothing that it does not read"
    words[-1] = "umt-seed-1"
    wrong = CliRunner().invoke(main, ["reproduce", str(tmp_path / "paper" / "x.lock"), *map(str, words)])
    assert wrong.exit_code == 2
    assert "--only 'umt-seed-1' is not one of bert-crf-seed-1" in wrong.output


def test_a_grid_that_is_not_done_has_no_lock(place: Path) -> None:
    with pytest.raises(
        StageError, match=r"10 trainings of grid.toml are not done \(x: bert-crf seed 1, .*\); run"
    ):
        lock_experiment(opened(GRID), Path("paper"))


def test_times_are_in_words() -> None:
    assert [in_words(seconds) for seconds in (3.4, 89, 90, 3600, 11_000)] == [
        "3 s",
        "89 s",
        "2 min",
        "60 min",
        "3 h 3 min",
    ]
