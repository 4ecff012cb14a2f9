"""The command line as a user meets it: exit codes, and what is printed on which stream."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hmnet_pipe.pipeline.cli import main

from ...running import hmnet

# What a command says of its reading and writing, where it is not "Reads" and "Writes".
SAYS = {"status": "writes nothing"}
COMMANDS = sorted(name for name, command in main.commands.items() if not command.hidden)


def here(*arguments: object, **environment: str) -> Result:
    """Run a command in this process: quicker than starting one, and the same once the command is reached."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=environment)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a prepared run without images."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "text").mkdir()
    rows = [{"tokens": ["Ada", "is", "here"], "tags": ["B-PER", "O", "O"]}]
    (folder / "text/train.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    done = hmnet("prepare", folder / "run", "--task", "ner", "--text", folder / "text")
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_is_read_and_written_with_an_example(command: str) -> None:
    done = here(command, "--help")
    assert done.exit_code == 0
    for word in ("Reads", SAYS.get(command, "Write"), f"Example: hmnet-pipe {command}"):
        assert word in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prepare", "RUN/new"], ["--text"]),
        (["prepare", "RUN/new", "--task", "ner", "--text", "no/such/folder"], ["no/such/folder"]),
        (["prepare", "RUN/new", "--text", "RUN"], ["--task"]),
        (
            ["prepare", "RUN/new", "--preset", "mnre", "--task", "ner", "--text", "RUN"],
            ["--preset mnre is for --task re"],
        ),
        (["prepare", "RUN/new", "--preset", "twitter2016", "--text", "RUN"], ["twitter2016", "twitter2015"]),
        (["train", "RUN", "--system", "hmnett"], ["hmnett", "bert-crf"]),
        (["train", "RUN", "--system", "mtb"], ["mtb", "bert-crf"]),
        (
            ["train", "RUN", "--system", "bert-crf", "--encoder", "./no-encoder"],
            ["./no-encoder is not a folder"],
        ),
        (["train", "RUN", "--epochs", "0"], ["epochs", "at least 1"]),
        (["detect", "RUN", "--detector", "yolo"], ["yolo", "fasterrcnn_resnet50_fpn_v2"]),
        (["extract", "RUN", "--dtype", "int8"], ["int8", "float16"]),
        (["detect", "RUN", "--device", "cuda:99"], ["cuda:99", "--device cpu"]),
    ],
)
def test_wrong_usage_exits_2_with_one_sentence_and_no_traceback(
    run: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    config = run / "run.toml"
    before = config.read_text()
    done = here(*(argument.replace("RUN", str(run)) for argument in arguments))
    config.write_text(before)
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code == 2
    for word in words:
        assert word in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_run_that_is_not_there_is_a_stage_before_its_time(tmp_path: Path) -> None:
    done = here("detect", tmp_path / "nowhere")
    assert done.exit_code == 1
    assert f"{tmp_path / 'nowhere'} is not a run" in done.stderr
    assert "hmnet-pipe prepare" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_typo_in_an_option_is_answered_with_the_option(run: Path) -> None:
    done = hmnet("train", run, "--epoch", 3)
    assert done.returncode == 2
    assert "--epochs" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_stage_before_its_time_names_the_command_to_run_first(run: Path, tiny_encoder: Path) -> None:
    done = hmnet("evaluate", run)
    assert done.returncode == 2
    assert done.stderr.strip().endswith(f"run `hmnet-pipe train {run} --system hmnet --seed 1` first")
    done = hmnet("train", run, "--encoder", tiny_encoder)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("index.parquet does not exist; run `hmnet-pipe extract` first")


def test_an_unknown_key_in_run_toml_is_an_error_that_names_it(run: Path) -> None:
    config = run / "run.toml"
    before = config.read_text()
    config.write_text(before.replace("epochs =", "epoch ="))
    done = hmnet("status", run)
    config.write_text(before)
    assert done.returncode == 2
    assert "unknown key 'epoch' in [train]" in done.stderr


@pytest.mark.slow
def test_an_option_is_written_into_run_toml(run: Path) -> None:
    assert hmnet("detect", run, "--objects", 2).returncode == 0
    assert "objects = 2" in (run / "run.toml").read_text()
    hmnet("detect", run, "--objects", 3)


@pytest.mark.slow
def test_json_is_the_only_thing_on_stdout(run: Path) -> None:
    done = hmnet("status", run, "--json")
    assert done.returncode == 0
    stages = {row["stage"]: row["state"] for row in json.loads(done.stdout)["stages"]}
    assert stages["prepare"] == "fresh"
    assert set(json.loads(hmnet("prepare", run, "--json").stdout)) >= {
        "stage",
        "state",
        "done",
        "skipped",
        "failed",
        "seconds",
        "details",
    }


@pytest.mark.slow
def test_missing_weights_name_the_file_its_address_and_its_place(tmp_path: Path, data: Path) -> None:
    pairs = data / "twitter2015_pairs"
    hmnet(
        "prepare", tmp_path / "run", "--preset", "twitter2015", "--text", pairs, "--images", pairs / "images"
    )
    done = hmnet("detect", tmp_path / "run", environment={"TORCH_HOME": str(tmp_path / "torch")})
    assert done.returncode == 2
    for word in ("fasterrcnn_resnet50_fpn_v2_coco", "https://", str(tmp_path / "torch"), "--weights FILE"):
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run/detections.parquet").exists()


def test_importing_the_package_and_its_commands_loads_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "dask", "sklearn")
    code = f"import sys, hmnet_pipe.pipeline.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
