"""Runs driven by `make`: what -n announces is what runs, nothing runs without need, and all of it resumes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.pipeline.run.presets import preset
from hmnet_pipe.pipeline.run.runner import run_stage
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.demo.corpus import write_demo_corpus

from .running import hmnet, wait_until

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("make") is None or not (Path(sys.executable).parent / "hmnet-pipe").is_file(),
        reason="needs make and the command",
    ),
]


class Run:
    """`make` in the project's folder on one run of a small corpus."""

    def __init__(self, folder: Path, encoder: Path) -> None:
        self.folder = folder / "run"
        self.corpus = folder / "corpus"
        self.first = [
            f"TEXT={self.corpus}",
            f"IMAGES={self.corpus / 'images'}",
            "PRESET=demo",
            "TASK=ner",
            f"ENCODER={encoder}",
            "DETECT=--workers 1",
            "EXTRACT=--workers 1",
            "TRAIN=--epochs 1 --first-evaluation 1",
        ]

    def command(self, *arguments: str) -> list[str]:
        goal = [] if any(not word.startswith("-") and "=" not in word for word in arguments) else ["run"]
        # Of a test run under make itself nothing must reach the one that is tested.
        return [
            "make",
            "--no-print-directory",
            "-C",
            str(ROOT),
            f"BIN={Path(sys.executable).parent}",
            f"RUN={self.folder}",
            *goal,
            *arguments,
        ]

    def make(self, *arguments: str) -> str:
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, check=False, env=environment()
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def announced(self, *arguments: str) -> list[str]:
        """Return the stages that `make -n` says would run."""
        return stages_in(self.make("-n", *arguments))

    def ran(self, *arguments: str) -> list[str]:
        return stages_in(self.make(*arguments))

    def times(self) -> dict[str, int]:
        """Return when each output was written."""
        tables = [
            *self.folder.glob("*.parquet"),
            *self.folder.glob("features/*/*"),
            *self.folder.glob("models/**/model.safetensors"),
        ]
        return {str(path): path.stat().st_mtime_ns for path in tables}


def environment() -> dict[str, str]:
    """Return the environment without what a make that runs these tests passes to the tested one."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "GNUMAKEFLAGS")
    }


def stages_in(output: str) -> list[str]:
    """Return the hmnet-pipe commands that make printed, of trainings with their system."""
    found = []
    for line in output.splitlines():
        words = line.split()
        if words and words[0].endswith("/hmnet-pipe"):
            found.append(words[1] if words[1] != "train" else f"train {words[words.index('--system') + 1]}")
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Run:
    """Return a finished run, made by the functions that the commands wrap. Tests leave it up to date."""
    run = Run(tmp_path_factory.mktemp("make"), tiny_encoder)
    write_demo_corpus(run.corpus, "ner", sizes={"train": 8, "valid": 4, "test": 4})
    config = preset("demo", task="ner", text=run.corpus, images=run.corpus / "images", format="auto")
    config = config.override("train", {"encoder": str(tiny_encoder), "epochs": 1, "first_evaluation": 1})
    folder = RunFolder(run.folder)
    assert run.announced(*run.first) == ["prepare", "detect", "extract", "train hmnet"]
    assert not run.folder.exists()
    config.write(folder.config)
    for name in ("prepare", "detect", "extract", "train"):
        run_stage(config.stage(name, folder), SILENT)
    return run


def test_a_second_run_does_nothing_and_says_so_with_the_same_words_or_with_none(made: Run) -> None:
    before = made.times()
    assert "Nothing to be done for 'run'" in made.make(*made.first)
    assert "Nothing to be done for 'run'" in made.make()
    assert made.announced(*made.first) == []
    assert made.times() == before


def test_a_touched_image_is_looked_at_again_recomputes_nothing_and_leaves_make_satisfied(made: Run) -> None:
    before = made.times()
    min((made.corpus / "images").iterdir()).touch()
    announced = made.announced()
    assert announced == ["prepare", "detect", "extract", "train hmnet"]
    assert made.ran() == announced
    assert made.times() == before
    assert made.announced() == []


def test_a_fresh_stage_that_is_run_by_hand_disturbs_nothing(made: Run) -> None:
    assert "up to date" in hmnet("extract", made.folder).stdout
    assert made.announced() == []


def test_a_table_trains_each_subset_beside_the_full_training_and_nothing_twice(
    made: Run,
) -> None:
    output = made.make("-n", "table", "SYSTEMS=bert-crf hmnet", "SHOTS=0 2", "SUBSETS=1 3")
    commands = [line.split("hmnet-pipe ")[1].split() for line in output.splitlines() if "hmnet-pipe " in line]
    found = [" ".join(words[2:]) for words in commands if words[0] == "train"]
    assert found == [
        "--system bert-crf --seed 1",
        "--system bert-crf --seed 1 --shots 2 --subset-seed 1",
        "--system bert-crf --seed 1 --shots 2 --subset-seed 3",
        "--system hmnet --seed 1 --shots 2 --subset-seed 1",
        "--system hmnet --seed 1 --shots 2 --subset-seed 3",
    ], output
    assert commands[-1][0] == "table"
    output = made.make("-n", "table", "SYSTEMS=bert-crf", "RECIPES=run as-published", "SHOTS=2")
    commands = [line.split("hmnet-pipe ")[1].split() for line in output.splitlines() if "hmnet-pipe " in line]
    assert [" ".join(words[2:]) for words in commands if words[0] == "train"] == [
        "--system bert-crf --seed 1 --shots 2 --subset-seed 1",
        "--system bert-crf --seed 1 --shots 2 --subset-seed 1 --recipe as-published",
    ], output


def test_a_recipe_of_the_runs_own_has_a_target_of_its_own_and_a_grid_has_a_command(made: Run) -> None:
    config = made.folder / "run.toml"
    before = config.read_text()
    config.write_text(f"{before}\n[recipes.few]\nepochs = 2\n")
    output = made.make("-n", "table", "SYSTEMS=hmnet", "RECIPES=run few")
    config.write_text(before)
    commands = [line.split("hmnet-pipe ")[1].split() for line in output.splitlines() if "hmnet-pipe " in line]
    trained = [" ".join(words[2:]) for words in commands if words[0] == "train"]
    assert trained == ["--system hmnet --seed 1 --recipe few"], output
    lines = made.make("-n", "experiment", "GRID=table1", "JOBS=2").splitlines()
    assert [line.split("hmnet-pipe ")[1] for line in lines if "hmnet-pipe experiment" in line] == [
        "experiment run table1 --jobs 2",
        "experiment table table1",
    ]


def test_a_changed_option_runs_exactly_what_depends_on_it(made: Run) -> None:
    """Given by variable or in run.toml; asking what would happen changes nothing."""
    config = made.folder / "run.toml"
    before = config.read_text()
    assert made.announced("DETECT=--min-score 0.5") == ["detect", "extract", "train hmnet"]
    assert made.announced("EXTRACT=--pooled 1", "SYSTEMS=bert-crf") == ["train bert-crf"]
    assert made.announced("TRAIN=--epochs 2") == ["train hmnet"]
    assert made.announced() == []
    assert config.read_text() == before
    config.write_text(before.replace("max_length = 128", "max_length = 64"))
    assert made.announced() == ["train hmnet"]
    assert made.ran() == ["train hmnet"]
    assert made.announced() == []
    record = json.loads(RunFolder(made.folder).record("train-hmnet-seed-1").read_text())
    assert record["parameters"]["max_length"] == 64
    # An option that was given once is kept in run.toml: without it nothing is to be done, with another value
    # it is.
    assert made.announced("TRAIN=--max-length 64") == []
    assert made.announced("TRAIN=--max-length 128") == ["train hmnet"]


def test_a_setting_that_changes_no_result_is_asked_about_once(made: Run) -> None:
    before = made.times()
    assert made.announced("TRAIN=--tensorboard") == made.ran("TRAIN=--tensorboard") == ["train hmnet"]
    assert made.times() == before
    assert made.announced() == []


def test_an_output_that_is_gone_is_made_again(made: Run) -> None:
    detections = made.folder / "detections.parquet"
    detections.rename(made.folder / "elsewhere")
    assert made.announced() == ["detect", "extract", "train hmnet"]
    (made.folder / "elsewhere").rename(detections)
    model = made.folder / "models/hmnet/seed-1/model.safetensors"
    before = model.read_bytes()
    model.unlink()
    assert made.announced() == made.ran() == ["train hmnet"]
    assert model.read_bytes() == before
    assert made.announced() == []


def test_a_run_that_is_killed_goes_on_where_it_was(made: Run, tiny_encoder: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, tiny_encoder)
    shutil.copytree(made.corpus, run.corpus)
    words = [
        *run.first,
        "SYSTEM=bert-crf",
        "TRAIN=--epochs 100 --first-evaluation 100 --checkpoint-seconds 0",
    ]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(run.command(*words), start_new_session=True, env=environment(), **quiet)
    wait_until(lambda: list(run.folder.rglob("progress.json")) or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    record = RunFolder(run.folder).record("train-bert-crf-seed-1")
    assert not record.is_file()
    assert run.announced(*words) == ["train bert-crf"]
    output = run.make(*words)
    assert stages_in(output) == ["train bert-crf"]
    assert "resuming" in output
    assert run.announced(*words) == []


def test_a_stage_that_fails_keeps_the_record_from_before(made: Run) -> None:
    record = RunFolder(made.folder).record("detect")
    before, config = record.read_text(), (made.folder / "run.toml").read_text()
    done = subprocess.run(
        made.command("DETECT=--weights no-such-file.pth"),
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert done.returncode != 0
    assert "no-such-file.pth is not a file" in done.stderr
    assert record.read_text() == before
    (made.folder / "run.toml").write_text(config)
    assert made.announced() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["RUN=two words/run"], "make cannot carry a path with spaces: RUN=two words/run"),
        (["RUN=no-such-run"], "a new run needs RUN=, TEXT=, IMAGES= and PRESET= or TASK="),
        (["SYSTEMS=hmnett"], "did you mean hmnet?"),
        (["BIN=nowhere"], "run `make install` first"),
    ],
)
def test_what_make_cannot_do_is_one_sentence(made: Run, arguments: list[str], words: str) -> None:
    done = subprocess.run(
        [*made.command(), *arguments], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_two_systems_side_by_side_run_each_stage_once_and_make_one_table(
    made: Run, tiny_encoder: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path, tiny_encoder)
    shutil.copytree(made.folder, run.folder)
    shutil.copytree(made.corpus, run.corpus)
    config = RunFolder(run.folder).config
    config.write_text(config.read_text().replace(str(made.corpus), str(run.corpus)))
    shutil.rmtree(run.folder / "models")
    for record in (run.folder / "stages").glob("train-*"):
        record.unlink()
    (run.corpus / "test.jsonl").touch()
    grid = ["table", "SYSTEMS=bert-crf hmnet"]
    output = run.make("-j2", *grid)
    assert sorted(stages_in(output)) == ["detect", "extract", "prepare", "train bert-crf", "train hmnet"]
    rows = [line.split()[:2] for line in output.splitlines()[-2:]]
    assert rows == [["bert-crf", "1"], ["hmnet", "1"]]
    assert run.announced(*grid) == ["table"]
    # A cell of the grid that is missing is made alone.
    RunFolder(run.folder).record("train-bert-crf-seed-1").unlink()
    assert run.announced(*grid) == ["train bert-crf", "table"]
