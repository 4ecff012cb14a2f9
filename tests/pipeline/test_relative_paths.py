"""Every command on a run given as a relative path, and on a run that was moved since it was made."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import h5py
import pytest
from hmnet_pipe import FeatureCache
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.pipeline.cli import main

from ..running import Demos, bring_up_to_date, configure, hmnet

pytestmark = pytest.mark.slow

RUN = "runs/x"
SIZES = {"train": 16, "valid": 4, "test": 4}
ENCODER = ("--encoder", "encoder", "--epochs", "1", "--first-evaluation", "1")
POSTS = ("--images", "corpus/images")
TEXTS = ("--text", "corpus", "--images", "corpus/images")

GRID = f"""
[data.x]
run = "{RUN}"
[trainings.a]
systems = ["bert-crf"]
seeds = [3]
"""
# Each is run in the folder that holds runs/, corpus/ and encoder/; "lock" leaves what "reproduce" needs.
COMMANDS: dict[str, Sequence[str]] = {
    "prepare": ("prepare", "runs/new", "--task", "ner", *TEXTS),
    "prepare again": ("prepare", RUN),
    "detect": ("detect", RUN, "--workers", "1", "--chunk", "3"),
    "extract": ("extract", RUN, "--workers", "1", "--pooled", "1"),
    "scenes": ("scenes", RUN),
    "dependencies": ("dependencies", RUN),
    "train": ("train", RUN, "--system", "bert-crf", "--seed", "2", *ENCODER),
    "finetune": ("finetune", RUN, "--from", "pretrained", "--epochs", "1", "--refresh"),
    "experiment": ("experiment", "run", "grid.toml"),
    "evaluate": ("evaluate", RUN, "--system", "hmnet"),
    "predict": ("predict", RUN, "corpus/test.jsonl", *POSTS, "--output", "runs/found", "--workers", "1"),
    "export": ("export", RUN, "--format", "doccano", "--output", "runs/exported"),
    "score": ("score", "given.jsonl", "--run", RUN),
    "push": ("push", f"{RUN}/models/hmnet/seed-1", "user/name", "--dry-run"),
    "table": ("table", RUN),
    "report": ("report", RUN),
    "status": ("status", RUN),
    "changed": ("changed", RUN, *["--", "prepare", "--", "detect", "--", "extract", "--", "train"]),
    "verify": ("verify", RUN, "--rerun"),
    "archive": ("archive", RUN),
    "doctor": ("doctor", RUN),
    "lock": ("lock", RUN, "--output", "x.lock"),
    "reproduce": ("reproduce", "x.lock", "--run", "runs/again", *TEXTS, "--encoder", "encoder"),
}
# The stages that these commands make.
MADE = {
    "detect": "detect",
    "extract": "extract",
    "scenes": "scenes",
    "dependencies": "dependencies",
    "train": "train-bert-crf-seed-2",
    "experiment": "train-bert-crf-seed-3",
    "finetune": "finetune-hmnet-seed-1",
}
# The demonstration trains for minutes; tests/pipeline/run/test_demo.py gives it a relative folder. `serve`
# goes on until a signal; tests/pipeline/serve/test_server.py gives it one. `systems` takes no folder.
ELSEWHERE = {"demo", "serve", "systems"}


@pytest.fixture(scope="module")
def finished(demos: Demos, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """Return a folder that holds a corpus, an encoder, and a finished run in runs/. Never changed."""
    place = tmp_path_factory.mktemp("finished")
    shutil.copytree(demos.corpus(sizes=SIZES), place / "corpus")
    shutil.copytree(tiny_encoder, place / "encoder")
    (place / "grid.toml").write_text(GRID)
    lines = (place / "corpus" / "test.jsonl").read_text().splitlines()
    (place / "given.jsonl").write_text("\n".join(lines))
    shutil.copytree(demos.run(sizes=SIZES, extract={"shard_rows": 6}), place / RUN)
    configure(place / RUN, "train", encoder=str(tiny_encoder), epochs=1, first_evaluation=1)
    bring_up_to_date(place / RUN, "train")
    return place


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of it: here the run is not where it was made."""
    return Path(shutil.copytree(finished, tmp_path / "place"))


def outside_runs(place: Path) -> set[str]:
    return {
        path.relative_to(place).as_posix()
        for path in place.rglob("*")
        if not path.is_relative_to(place / "runs")
    }


def test_every_command_is_here() -> None:
    assert {arguments[0] for arguments in COMMANDS.values()} | ELSEWHERE == set(main.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_works_on_a_relative_run_and_writes_nowhere_else(
    place: Path, tmp_path: Path, name: str
) -> None:
    if name == "reproduce":
        assert hmnet("lock", place / RUN, "--output", place / "x.lock").returncode == 0
    before = outside_runs(place)
    done = hmnet(*COMMANDS[name], cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert outside_runs(place) - before == ({"x.lock"} if name == "lock" else set())
    runs = {
        "prepare": {"x", "new"},
        "reproduce": {"x", "again"},
        "predict": {"x", "found"},
        "export": {"x", "exported"},
    }
    assert {path.name for path in (place / "runs").iterdir()} == runs.get(name, {"x"})
    assert not (place / RUN / "runs").exists()
    if name in MADE:  # and it is fresh from anywhere
        done = hmnet("status", place / RUN, cwd=tmp_path)
        states = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
        assert "fresh" in states[MADE[name]], done.stdout


def flip_a_bit(run: Path) -> Path:
    shard = min(RunFolder(run).features().glob("shard-*.h5"))
    with h5py.File(shard) as file:
        place = file["pyramid"].id.get_offset()
    content = bytearray(shard.read_bytes())
    content[place + 99] ^= 4
    shard.write_bytes(content)
    return shard


def test_verify_mends_a_flipped_bit_of_a_relative_run(place: Path) -> None:
    whole = FeatureCache(RunFolder(place / RUN).features()).digest()
    shard = flip_a_bit(place / RUN)
    found = hmnet("verify", RUN, cwd=place)
    assert found.returncode == 1
    assert shard.name in found.stdout
    mended = hmnet("verify", RUN, "--fix", "--workers", 1, cwd=place)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert FeatureCache(RunFolder(place / RUN).features()).digest() == whole
    assert hmnet("verify", RUN, cwd=place).returncode == 0


@pytest.mark.parametrize(
    "name",
    ["prepare again", "detect", "extract", "evaluate", "status", "verify", "archive", "lock"],
)
def test_a_moved_run_shows_where_its_outputs_are_now(
    demos: Demos, place: Path, finished: Path, name: str
) -> None:
    """Without changes of settings, so that what the records hold is what is shown."""
    moved = (place / RUN).rename(place / "runs" / "moved")
    command = COMMANDS[name][0]
    done = hmnet(command, "runs/moved", cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    for once in (str(demos.run(sizes=SIZES, extract={"shard_rows": 6})), str(finished), RUN):
        assert once not in done.stdout + done.stderr
    assert moved.is_dir()
