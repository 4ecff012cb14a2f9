"""`hmnet-pipe verify`: any damage is found and named, and --fix makes again only what is wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from hmnet_pipe.cache.integrity import find_damage
from hmnet_pipe.cache.reader import FeatureCache
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.pipeline.config import preset
from hmnet_pipe.pipeline.runner import run_stage
from hmnet_pipe.pipeline.verify import mend_run, verify_run
from hmnet_pipe.stages.demo.corpus import write_demo_corpus
from hmnet_pipe.stages.stage import Tools


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run with four shards."""
    folder = tmp_path_factory.mktemp("verify")
    write_demo_corpus(folder / "corpus", "ner", sizes={"train": 16, "valid": 4, "test": 4})
    config = preset("demo", task="ner", text=folder / "corpus", images=folder / "corpus/images", format="jsonl")
    config = config.override("extract", {"shard_rows": 6})
    run = RunFolder(folder / "run")
    config.write(run.config)
    for name in ("prepare", "detect", "extract"):
        run_stage(config.stage(name, run), Tools())
    return run.path


@pytest.fixture
def run(finished, tmp_path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(finished, tmp_path / "run")))


def damage(run: RunFolder, kind: str) -> Path:
    """Do one kind of damage and return the file that suffered it."""
    shard = sorted(run.features.glob("shard-*.h5"))[1]
    with h5py.File(shard) as file:
        offset = file["pyramid"].id.get_offset()
    if kind == "bit":
        content = bytearray(shard.read_bytes())
        content[offset + 4321] ^= 4
        shard.write_bytes(content)
    elif kind == "truncated":
        shard.write_bytes(shard.read_bytes()[:-4096])
    elif kind == "missing":
        shard.unlink()
    elif kind == "exchanged":
        other = sorted(run.features.glob("shard-*.h5"))[2]
        shard.write_bytes(other.read_bytes())
    elif kind == "foreign":
        shard = Path(shutil.copy(shard, run.features / "shard-99999.h5"))
    return shard


KINDS = ("bit", "truncated", "missing", "exchanged", "foreign")


def test_an_undamaged_run_is_as_recorded(run):
    assert find_damage(run.features) == []
    assert verify_run(run) == []


@pytest.mark.parametrize("kind", KINDS)
def test_each_damage_is_named_and_only_it_is_mended(run, kind):
    whole = FeatureCache(run.features).digest()
    before = {path: path.stat().st_mtime_ns for path in run.features.glob("shard-*.h5")}
    suffered = damage(run, kind)
    problems = verify_run(run)
    assert {problem.stage for problem in problems} == {"extract"}
    assert {problem.what for problem in problems} == {str(suffered)}
    mend_run(run, problems, Tools())
    assert verify_run(run) == []
    assert FeatureCache(run.features).digest() == whole
    untouched = [path for path in before if path != suffered]
    assert [path for path in untouched if path.stat().st_mtime_ns != before[path]] == []


def test_a_changed_table_is_named_and_made_again(run):
    content = run.detections.read_bytes()
    shutil.copy(run.outcomes("detect"), run.detections)
    problems = verify_run(run)
    assert [problem.stage for problem in problems] == ["detect"]
    mend_run(run, problems, Tools())
    assert run.detections.read_bytes() == content
    assert verify_run(run) == []


def test_the_command_exits_1_until_it_has_mended(run):
    def verify(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hmnet_pipe.pipeline.cli", "verify", str(run.path), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    suffered = damage(run, "bit")
    first = verify()
    assert first.returncode == 1
    assert str(suffered) in first.stdout
    assert "does not match its checksum" in first.stdout
    mended = verify("--fix", "--json", "--workers", "1")
    assert mended.returncode == 0, mended.stderr
    assert json.loads(mended.stdout)["left"] == []
    assert "everything" in verify().stdout
