"""run.toml keeps the options of stages that start, and of no others."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hmnet_pipe.manifests.errors import InputError, StageError, WeightsError
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.checks.verify import Problem, Verification
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.new import write_options
from hmnet_pipe.pipeline.run.presets import preset
from hmnet_pipe.pipeline.run.runner import Report, run_stage
from hmnet_pipe.stages.base.stage import Progress
from hmnet_pipe.stages.base.tools import SILENT, Counts, Tools, counted
from hmnet_pipe.stages.prepare.stage import Prepare

from ...running import Demos, begin, bring_up_to_date


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Return a prepared run without images."""
    (tmp_path / "text").mkdir()
    row = {"tokens": ["Ada", "is", "here"], "tags": ["B-PER", "O", "O"]}
    (tmp_path / "text/train.jsonl").write_text(json.dumps(row) + "\n")
    run = RunFolder(tmp_path / "run")
    preset("custom", task="ner", text=tmp_path / "text", images=None, format="auto").write(run.config)
    bring_up_to_date(run.path, "prepare")
    return run


def train(run: RunFolder, *options: object) -> Result:
    return CliRunner().invoke(main, ["train", str(run.path), *map(str, options)])


def test_options_of_a_stage_that_cannot_start_are_not_kept(run: RunFolder, tiny_encoder: Path) -> None:
    before = run.config.read_bytes()
    for options, words in (
        (["--encoder", tiny_encoder, "--system", "hmnet"], "hmnet-pipe extract"),  # there are no features
        (["--encoder", "./nowhere", "--system", "bert-crf"], "./nowhere is not a folder"),
        (["--learning-rate", 1, "--system", "hmnett"], "hmnett"),
        (["--learning-rate", 1, "--device", "cuda:99", "--system", "bert-crf"], "cuda:99"),
    ):
        done = train(run, *options)
        assert done.exit_code in (1, 2)
        assert words in done.stderr
        assert run.config.read_bytes() == before


def test_an_option_that_a_stage_refuses_after_its_start_is_taken_back(
    run: RunFolder, tiny_encoder: Path
) -> None:
    before = run.config.read_bytes()
    done = train(run, "--system", "bert-crf", "--encoder", tiny_encoder, "--processes", 4)
    assert done.exit_code == 2
    assert "processes = 4" in done.stderr
    assert run.config.read_bytes() == before


def kept_after(run: RunFolder, error: type[BaseException], *, progress: bool, edit: bool = False) -> int:
    """Return epochs (30 before) in run.toml after a stage with epochs 40 has failed in its first moments."""

    class Failing(Prepare):
        def causes(self, tools: Tools = SILENT) -> StageRecord:
            return replace(super().causes(tools), schema_version=99)

        def compute(self, causes: StageRecord, tools: Tools) -> Counts:
            assert RunConfig.read(run.config).tables["train"].epochs == 40
            if edit:
                RunConfig.read(run.config).override("train", {"epochs": 41}).write(run.config)
            raise error("it failed")

        def progress(self, causes: StageRecord) -> Progress | None:
            return Progress(1, 2, "samples") if progress else None

    stage = Failing(run, RunConfig.read(run.config).tables["prepare"])
    with pytest.raises(error, match="it failed"):
        run_stage(stage, SILENT, accepted=partial(write_options, run, {"train": {"epochs": 40}}))
    epochs: int = RunConfig.read(run.config).tables["train"].epochs
    return epochs


@pytest.mark.parametrize("error", [StageError, InputError, WeightsError, RuntimeError])
def test_options_of_a_stage_that_keeps_nothing_are_taken_back(run: RunFolder, error: type[Exception]) -> None:
    assert kept_after(run, error, progress=False) == 30
    # What somebody has written since is left alone.
    assert kept_after(run, error, progress=False, edit=True) == 41


def test_options_stay_where_what_was_begun_with_them_is_kept_or_somebody_interrupts(run: RunFolder) -> None:
    assert kept_after(run, KeyboardInterrupt, progress=False) == 40
    assert kept_after(run, StageError, progress=True) == 40


def test_a_refusal_takes_options_back_whatever_is_kept(run: RunFolder) -> None:
    assert kept_after(run, InputError, progress=True) == 30


@pytest.mark.parametrize(("refuses", "lines"), [(True, 0), (False, 1)])
def test_why_a_stage_runs_again_is_not_said_of_one_that_refuses_to(
    run: RunFolder, refuses: bool, lines: int
) -> None:
    class Newer(Prepare):
        def causes(self, tools: Tools = SILENT) -> StageRecord:
            return replace(super().causes(tools), schema_version=99)

        def compute(self, causes: StageRecord, tools: Tools) -> Counts:
            if refuses:
                raise InputError("no")
            return Counts("samples", 0)

    said: list[str] = []
    with pytest.raises(InputError) if refuses else nullcontext():
        run_stage(Newer(run, RunConfig.read(run.config).tables["prepare"]), Tools(say=said.append))
    assert len(said) == lines
    assert all("prepare runs again because of" in line for line in said)


def test_options_beside_a_scheduler_that_does_not_answer_are_not_kept(demos: Demos, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    begin(folder, demos.corpus())
    bring_up_to_date(folder, "prepare")
    before = RunFolder(folder).config.read_bytes()
    words = ["detect", str(folder), "--min-score", "0.7", "--scheduler", "tcp://host.invalid:8786"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1
    assert "no Dask scheduler answers" in done.stderr
    assert RunFolder(folder).config.read_bytes() == before


def test_the_summary_of_a_training_says_what_was_counted_and_which_split_was_scored(
    run: RunFolder, tiny_encoder: Path
) -> None:
    text = RunConfig.read(run.config).tables["prepare"].text
    shutil.copy(text / "train.jsonl", text / "test.jsonl")
    assert bring_up_to_date(run.path, "prepare").lines()[0].startswith("prepare: 2 samples done")
    (text / "test.jsonl").unlink()
    assert bring_up_to_date(run.path, "prepare").lines()[0].startswith("prepare: 1 sample done")
    shutil.copy(text / "train.jsonl", text / "valid.jsonl")
    bring_up_to_date(run.path, "prepare")
    report = bring_up_to_date(
        run.path,
        "train",
        trial=Trial("bert-crf"),
        encoder=str(tiny_encoder),
        epochs=2,
        first_evaluation=1,
        max_length=32,
    )
    head, *lines = report.lines()
    assert head.startswith("train-bert-crf-seed-1: 2 sample passes done, ")
    assert "  epochs: 2 of 1 sample" in lines
    assert [line.split(":")[0].strip() for line in lines if "F1" in line] == ["validation F1"]
    assert not any(line.strip().startswith("f1") for line in lines)


def test_one_problem_is_a_problem(tmp_path: Path) -> None:
    problem = Problem("detect", "detections", "missing")
    verdict = Verification(RunFolder(tmp_path), False, [problem], [problem], []).verdict()
    assert verdict.startswith("verify: 1 problem found, 1 left; mend it with")
    assert counted(0, "samples") == "0 samples"
    assert counted(1, "sample passes") == "1 sample pass"


def test_a_summary_says_none_where_there_is_nothing_to_list(tmp_path: Path) -> None:
    details = {"mentions per split": {"train": {"PER": 7}, "valid": {}}, "images": 0}
    report = Report("prepare", "done", "samples", 1, 0, 0, 0.1, details=details)
    assert report.lines()[1:] == ["  mentions per split: train: PER 7; valid: none", "  images: 0"]
