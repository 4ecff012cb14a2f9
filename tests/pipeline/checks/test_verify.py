"""`hmnet-pipe verify`: any damage is found and named, and --fix makes again only what is wrong."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from hmnet_pipe.cache.integrity import find_damage
from hmnet_pipe.cache.reader import FeatureCache, read_index, write_index
from hmnet_pipe.cache.shards import Shard, ShardError, write_shard
from hmnet_pipe.manifests.errors import StageError
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import DETECTIONS
from hmnet_pipe.manifests.tables import table_of, write_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.checks.verify import mend_run, rerun_run, verify_run
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.stages.base.stage import Rerun, sample_of
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.prepare.settings import PrepareSettings
from safetensors.numpy import load_file, save_file

from ...running import Demos, bring_up_to_date, hmnet, model_of, stage_of

SIZES = {"train": 16, "valid": 4, "test": 4}


@pytest.fixture(scope="module")
def finished(demos: Demos) -> Path:
    """Return a run with four shards."""
    return demos.run(sizes=SIZES, extract={"shard_rows": 6})


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(finished, tmp_path / "run")))


def damage(run: RunFolder, kind: str) -> Path:
    """Do one kind of damage and return the file that suffered it."""
    shard = sorted(run.features().glob("shard-*.h5"))[1]
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
        other = sorted(run.features().glob("shard-*.h5"))[2]
        shard.write_bytes(other.read_bytes())
    elif kind == "of another set":
        own = Shard(shard)
        spec = replace(own.spec, pooled=own.spec.pooled - 1)
        write_shard(
            shard,
            unit=own.unit,
            spec=spec,
            keys=own.keys,
            view_mask=own.view_mask,
            pyramid=own.pyramid[..., :1, :1].copy(),
        )
    elif kind == "foreign":
        shard = Path(shutil.copy(shard, run.features() / "shard-99999.h5"))
    return shard


KINDS = ("bit", "truncated", "missing", "exchanged", "of another set", "foreign")


def test_an_undamaged_run_is_as_recorded(run: RunFolder) -> None:
    assert find_damage(run.features()) == []
    assert verify_run(run) == []


@pytest.mark.parametrize("kind", KINDS)
def test_each_damage_is_named_and_only_it_is_mended(run: RunFolder, kind: str) -> None:
    whole = FeatureCache(run.features()).digest()
    before = {path: path.stat().st_mtime_ns for path in run.features().glob("shard-*.h5")}
    suffered = damage(run, kind)
    problems = verify_run(run)
    assert {problem.stage for problem in problems} == {"extract"}
    assert {problem.what for problem in problems} == {str(suffered)}
    mend_run(run, problems, Tools())
    assert verify_run(run) == []
    assert FeatureCache(run.features()).digest() == whole
    untouched = [path for path in before if path != suffered]
    assert [path for path in untouched if path.stat().st_mtime_ns != before[path]] == []


@pytest.mark.parametrize("kind", ["truncated", "missing", "exchanged", "of another set"])
def test_what_a_reader_refuses_extract_makes_again(run: RunFolder, kind: str) -> None:
    whole = FeatureCache(run.features()).digest()
    suffered = damage(run, kind)
    with pytest.raises(ShardError, match="hmnet-pipe extract") as refused:
        FeatureCache(run.features()).gather(list(FeatureCache(run.features())))
    assert str(suffered) in str(refused.value)
    report = bring_up_to_date(run.path, "extract")
    assert report.state == "done"
    assert report.done == 6
    cache = FeatureCache(run.features())
    assert cache.digest() == whole
    cache.gather(list(cache))
    assert verify_run(run) == []


def test_a_changed_table_is_named_and_made_again(run: RunFolder) -> None:
    content = run.detections.read_bytes()
    shutil.copy(run.outcomes("detect"), run.detections)
    problems = verify_run(run)
    assert [problem.stage for problem in problems] == ["detect"]
    mend_run(run, problems, Tools())
    assert run.detections.read_bytes() == content
    assert verify_run(run) == []


def test_outputs_without_their_records_are_not_as_recorded(run: RunFolder) -> None:
    whole = FeatureCache(run.features()).digest()
    run.record("detect").unlink()
    problems = verify_run(run)
    assert [(problem.stage, problem.what) for problem in problems] == [("detect", str(run.record("detect")))]
    assert "the record of how detections, outcomes came about is missing" in problems[0].reason
    shutil.rmtree(run.path / "stages")
    problems = verify_run(run)
    assert [problem.stage for problem in problems] == ["prepare", "detect", "extract"]
    mend_run(run, problems, Tools())
    assert verify_run(run) == []
    assert FeatureCache(run.features()).digest() == whole


def test_a_run_without_a_finished_stage_is_not_as_recorded(run: RunFolder, tmp_path: Path) -> None:
    new = RunFolder(tmp_path / "new")
    RunConfig.read(run.config).write(new.config)
    with pytest.raises(StageError, match=f"no stage of {new.path} has been finished; run `hmnet-pipe p"):
        verify_run(new)


@pytest.mark.slow
def test_the_command_exits_1_until_it_has_mended(run: RunFolder) -> None:
    suffered = damage(run, "bit")
    first = hmnet("verify", run.path)
    assert first.returncode == 1
    assert str(suffered) in first.stdout
    assert "does not match its checksum" in first.stdout
    mended = hmnet("verify", run.path, "--fix", "--json", "--workers", 1)
    assert mended.returncode == 0, mended.stderr
    assert json.loads(mended.stdout)["left"] == []
    assert "everything" in hmnet("verify", run.path).stdout


def rerun(run: RunFolder, share: float = 1.0) -> dict[str, Rerun]:
    return {result.stage: result for result in rerun_run(run, share, False, Tools())}


def test_stages_that_are_run_again_come_out_equal_and_change_nothing(run: RunFolder) -> None:
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    results = rerun(run)
    assert {stage: result.verdict for stage, result in results.items()} == dict.fromkeys(
        ("prepare", "detect", "extract"), "equal"
    )
    assert results["extract"].checked.startswith("4 shards")
    assert {
        path: path.read_bytes()
        for path in run.path.rglob("*")
        if path.is_file() and path.suffix not in (".lock", ".json")
    } == {path: content for path, content in before.items() if path.suffix not in (".lock", ".json")}
    assert not list(run.path.glob(".tmp-*"))


def test_a_small_share_is_one_unit_and_always_the_same(run: RunFolder) -> None:
    assert sample_of(range(1000), 0.01) == sample_of(range(1000), 0.01)
    assert (len(sample_of(range(1000), 0.01)), len(sample_of(range(3), 0.01)), sample_of(range(3), 1)) == (
        10,
        1,
        [0, 1, 2],
    )
    first = rerun(run, 0.01)
    assert first["extract"].checked.startswith("1 shards with 6 images")


def forge_record(run: RunFolder, stage: str, **facts: Any) -> None:
    """Make the record say what lies on disk, and of its making what `facts` say."""
    made = stage_of(run.path, stage)
    record = StageRecord.read(run.record(stage))
    assert record is not None
    replace(record, inputs=made.inputs(), outputs=made.outputs(), facts={**record.facts, **facts}).write(
        run.record(stage)
    )


@pytest.mark.parametrize(("shift", "verdict"), [(0.05, "close"), (20.0, "different")])
def test_boxes_that_are_not_what_the_detector_finds_are_told_with_their_distance(
    run: RunFolder, shift: float, verdict: str
) -> None:
    rows = pq.read_table(run.detections).to_pylist()
    rows[0]["x0"] += shift
    write_table(run.detections, table_of(DETECTIONS, rows))
    forge_record(run, "detect")
    result = rerun(run)["detect"]
    assert result.verdict == verdict
    assert result.distances["boxes (pixels)"] == pytest.approx(shift, rel=1e-3)
    assert result.distances["scores"] == 0
    assert "machine and versions are those of the record" in result.remarks[-1]


@pytest.mark.parametrize(("factor", "verdict"), [(1.001, "close"), (0.0, "different")])
def test_features_that_are_not_what_the_backbone_makes_are_told_by_level(
    run: RunFolder, factor: float, verdict: str
) -> None:
    path = sorted(run.features().glob("shard-*.h5"))[0]
    shard = Shard(path)
    levels = shard.spec.levels
    pyramid = np.array(shard.pyramid)
    second = pyramid[0, 0, levels[0] : levels[0] + levels[1]]
    change = float(np.abs(second.astype(np.float32) - (second * np.float16(factor)).astype(np.float32)).max())
    pyramid[0, 0, levels[0] : levels[0] + levels[1]] = second * np.float16(factor)
    checksums = write_shard(
        path, unit=shard.unit, spec=shard.spec, keys=shard.keys, view_mask=shard.view_mask, pyramid=pyramid
    )
    spec, rows = read_index(run.features())
    new = dict(zip(shard.keys, checksums, strict=True))
    write_index(
        run.features(), spec, [replace(row, checksum=new.get(row.image_key, row.checksum)) for row in rows]
    )
    versions = json.loads(run.record("extract").read_text())["facts"]["versions"]
    forge_record(run, "extract", versions={**versions, "torch": "0.1"})
    assert verify_run(run) == []
    result = rerun(run)["extract"]
    assert result.verdict == verdict
    assert result.distances["level 1"] == result.distances["level 4"] == 0
    assert result.distances["level 2"] == pytest.approx(change, rel=1e-3)
    assert result.remarks[-1].startswith("torch: 0.1 -> ")


def test_a_source_that_has_changed_since_prepare_is_named(run: RunFolder, tmp_path: Path) -> None:
    own = Path(shutil.copytree(RunConfig.read(run.config).of(PrepareSettings).text, tmp_path / "corpus"))
    config = RunConfig.read(run.config)
    config.override("prepare", {"text": own}).write(run.config)
    lines = (own / "test.jsonl").read_text().splitlines()
    (own / "test.jsonl").write_text("\n".join(lines[1:]) + "\n")
    result = rerun(run, 0.01)["prepare"]
    assert result.verdict == "different"
    assert "samples is not as recorded" in result.remarks
    assert any("inputs.text.test" in remark for remark in result.remarks)
    shutil.rmtree(own)
    assert rerun(run, 0.01)["prepare"].verdict == "not run"


@pytest.mark.slow
def test_a_training_is_repeated_on_demand_and_a_model_that_is_not_its_own_is_told(
    run: RunFolder, tiny_encoder: Path
) -> None:
    second = Trial("hmnet", 2)
    bring_up_to_date(run.path, "train", trial=second, encoder=str(tiny_encoder), epochs=1, first_evaluation=1)
    stage = stage_of(run.path, "train", second)
    assert rerun(run, 0.01)["train-hmnet-seed-2"].verdict == "not run"
    result = {one.stage: one for one in rerun_run(run, 0.01, True, Tools())}["train-hmnet-seed-2"]
    assert result.verdict == "equal"
    model = model_of(run.path, second) / "model.safetensors"
    state = load_file(model)
    name = max(name for name in state if state[name].dtype == np.float32)
    state[name] = state[name] + np.float32(0.25)
    save_file(state, model)
    record = StageRecord.read(run.record(stage.name))
    assert record is not None
    replace(record, outputs=stage.outputs()).write(run.record(stage.name))
    result = {one.stage: one for one in rerun_run(run, 0.01, True, Tools())}["train-hmnet-seed-2"]
    assert result.verdict == "different"
    assert result.distances["weights"] == pytest.approx(0.25, rel=1e-3)


@pytest.mark.slow
def test_the_command_exits_1_where_a_rerun_is_different(run: RunFolder) -> None:
    rows = pq.read_table(run.detections).to_pylist()
    write_table(run.detections, table_of(DETECTIONS, [{**row, "label": "someone else"} for row in rows]))
    forge_record(run, "detect")
    done = hmnet("verify", run.path, "--rerun", "--workers", 1, "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    verdicts = {one["stage"]: one["verdict"] for one in found["reruns"]}
    assert (verdicts["prepare"], verdicts["detect"]) == ("equal", "different")
    assert found["left"] == []
