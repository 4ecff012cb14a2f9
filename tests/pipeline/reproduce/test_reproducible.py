"""The same inputs give the same numbers, a lock holds them, and `reproduce` reports every difference."""

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tomlkit
from hmnet_pipe.manifests.errors import InputError, StageError, WeightsError
from hmnet_pipe.manifests.fingerprint import digest_file, digest_table
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.cluster.dask import Cluster
from hmnet_pipe.pipeline.reproduce.lock import lock_run, read_lock
from hmnet_pipe.pipeline.reproduce.reproduce import Comparison, Reproduction, reproduce
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.presets import preset
from hmnet_pipe.pipeline.run.runner import run_stage
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.demo.corpus import write_demo_corpus
from hmnet_pipe.stages.extract.unit import ShardUnit
from safetensors.numpy import load_file, save_file

pytestmark = pytest.mark.slow

SIZES = {"train": 24, "valid": 8, "test": 8}
STAGES = ["prepare", "detect", "extract", "train-bert-crf-seed-1", "train-hmnet-seed-1"]


def make_run(folder: Path, encoder: Path, workers: int) -> RunFolder:
    """Make a corpus and a complete run on it from scratch, on a real Dask cluster."""
    write_demo_corpus(folder / "corpus", "ner", sizes=SIZES)
    run = RunFolder(folder / "run")
    config = preset(
        "demo", task="ner", text=folder / "corpus", images=folder / "corpus" / "images", format="auto"
    )
    config = config.override("detect", {"chunk": 8}).override(
        "extract", {"shard_rows": 8, "precision": "fp32"}
    )
    config = config.override("train", {"encoder": str(encoder), "epochs": 1, "first_evaluation": 1})
    config.write(run.config)
    with Cluster(None, workers, lambda line: None) as cluster:
        for name in ("prepare", "detect", "extract"):
            run_stage(config.stage(name, run), Tools(map=cluster.map))
    for system in ("bert-crf", "hmnet"):
        run_stage(config.stage("train", run, Trial(system)), Tools())
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("one"), tiny_encoder, workers=1)


def contents(run: RunFolder) -> dict[str, str]:
    """Return a digest of every table, shard, weight file and metric in a run, not using the records."""
    found = {}
    for path in sorted(run.path.rglob("*")):
        name = path.relative_to(run.path).as_posix()
        if path.name == "prepare.seen.parquet":  # times of files
            continue
        if path.name == "history.parquet":
            found[name] = digest_table(pq.read_table(path).drop_columns(["seconds", "samples_per_second"]))
        elif path.suffix == ".parquet":
            found[name] = digest_table(pq.read_table(path))
        elif path.suffix in (".h5", ".safetensors", ".jpg") or (
            path.parent.match("models/*/seed-*") and path.is_file()
        ):
            found[name] = digest_file(path)
    return found


def test_two_runs_from_scratch_are_equal_to_the_last_bit_whatever_the_number_of_workers(
    run: RunFolder, tmp_path: Path, tiny_encoder: Path
) -> None:
    one, two = contents(run), contents(make_run(tmp_path, tiny_encoder, workers=2))
    assert one == two
    assert len([name for name in one if name.endswith(".h5")]) > 2
    assert {
        "samples.parquet",
        "images.parquet",
        "detections.parquet",
        "stages/extract.parquet",
        "features/pyramid/index.parquet",
    } <= set(one)
    assert {
        f"models/{system}/seed-1/{name}"
        for system in ("bert-crf", "hmnet")
        for name in ("model.safetensors", "metrics.json")
    } <= set(one)


@pytest.fixture(scope="module")
def lock(run: RunFolder) -> Path:
    return lock_run(run)


def test_a_lock_holds_what_the_records_say_and_nothing_of_this_machines_places(
    run: RunFolder, lock: Path, tiny_encoder: Path
) -> None:
    values, text = read_lock(lock), lock.read_text()
    assert list(values["stages"]) == STAGES
    for name, stage in values["stages"].items():
        record = json.loads(run.record(name).read_text())
        for part in ("fingerprint", "schema_version", "parameters", "outputs"):
            assert stage[part] == record[part]
        for part in ("inputs", "weights"):
            assert stage.get(part, {}) == record[part]
    metrics = json.loads((run.model(Trial("hmnet", 1)) / "metrics.json").read_text())
    scores = values["scores"]["train-hmnet-seed-1"]
    assert (scores["system"], scores["seed"]) == ("hmnet", 1)
    for split in ("valid", "test"):
        assert scores[split] == pytest.approx(
            {name: metrics[split][name] for name in ("f1", "precision", "recall")}, abs=1e-6
        )
    assert {split: values["data"][split]["samples"] for split in SIZES} == SIZES
    assert (
        values["environments"]["1"]["versions"]["torch"]
        == json.loads(run.record("detect").read_text())["facts"]["versions"]["torch"]
    )
    first = pq.read_table(run.detections).to_pylist()[0]
    assert values["probes"]["detect"]["detections"][0]["box"] == pytest.approx(
        [first[side] for side in ("x0", "y0", "x1", "y1")], rel=1e-5
    )
    for place in (str(run.path.parent), str(tiny_encoder.parent), platform.node()):
        assert place not in text
    assert values["config"]["train"]["encoder"] == f"./{tiny_encoder.name}"


def test_locking_twice_gives_the_same_bytes(run: RunFolder, lock: Path, tmp_path: Path) -> None:
    assert lock_run(run, tmp_path / "paper" / "x.lock").read_bytes() == lock.read_bytes()


def test_what_is_stale_or_unfinished_is_not_locked_and_named_with_its_command(
    run: RunFolder, tmp_path: Path
) -> None:
    copy = RunFolder(Path(shutil.copytree(run.path, tmp_path / "run")))
    (copy.work("train-hmnet-seed-2") / "0123").mkdir(parents=True)
    with pytest.raises(StageError, match=r"train-hmnet-seed-2 of .* is not finished"):
        lock_run(copy, tmp_path / "x.lock")
    shutil.rmtree(copy.work("train-hmnet-seed-2"))
    RunConfig.read(copy.config).override("train", {"weight_decay": 0.5}).write(copy.config)
    with pytest.raises(
        StageError,
        match=r"is stale because of weight_decay: 0.01 -> 0.5; "
        r"run `hmnet-pipe train .*--system bert-crf --seed 1`",
    ):
        lock_run(copy, tmp_path / "x.lock")
    RunConfig.read(copy.config).override("train", {"weight_decay": 0.01}).write(copy.config)
    copy.record("detect").unlink()
    with pytest.raises(StageError, match=r"detect of .* is never run; run `hmnet-pipe detect "):
        lock_run(copy, tmp_path / "x.lock")
    assert not (tmp_path / "x.lock").exists()


def edited(lock: Path, folder: Path, edit: Callable[[Any], None]) -> Path:
    """Return a copy of the lock with something changed in it, as if it came from another run."""
    values = tomlkit.parse(lock.read_text())
    edit(values)
    path = folder / "edited.lock"
    path.write_text(tomlkit.dumps(values))
    return path


def state_of(result: Reproduction, group: str, what: str) -> Comparison:
    return next(finding for finding in result.comparisons if (finding.group, finding.what) == (group, what))


@pytest.fixture(scope="module")
def again(
    run: RunFolder, lock: Path, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path
) -> tuple[Reproduction, Path, list[str]]:
    """Return a reproduction elsewhere, stopped once: its outcome, folder and what the second attempt did."""
    folder = tmp_path_factory.mktemp("elsewhere")
    corpus = Path(shutil.copytree(run.path.parent / "corpus", folder / "texts"))
    encoder = Path(shutil.copytree(tiny_encoder, folder / "another-name"))

    def stop_in_extract(function: Callable[[Any], Any], units: list[Any]) -> Iterator[tuple[Any, Any]]:
        for number, unit in enumerate(units):
            if isinstance(unit, ShardUnit) and number == 1:
                raise KeyboardInterrupt
            yield unit, function(unit)

    states: list[str] = []
    arguments: dict[str, Any] = {"text": corpus, "images": corpus / "images", "encoder": str(encoder)}
    with pytest.raises(KeyboardInterrupt):
        reproduce(lock, RunFolder(folder / "run"), tools=Tools(map=stop_in_extract), **arguments)
    result = reproduce(
        lock,
        RunFolder(folder / "run"),
        tools=Tools(),
        report=lambda report: states.append(f"{report.stage} {report.state}"),
        **arguments,
    )
    return result, folder, states


def test_a_run_made_again_elsewhere_is_equal_in_every_field(
    again: tuple[Reproduction, Path, list[str]],
) -> None:
    result, _, _ = again
    assert result.reproduced
    # A model's config.json may name the place of its encoder, which is another one here.
    assert {finding.state for finding in result.comparisons if finding.what != "config.json"} == {"equal"}
    assert {finding.group for finding in result.comparisons} == {"data", "weights", *STAGES}
    assert "every result is equal" in result.lines()[-1]


def test_a_reproduction_that_was_stopped_goes_on_where_it_was(
    again: tuple[Reproduction, Path, list[str]],
) -> None:
    _, folder, states = again
    assert states == [
        "prepare fresh",
        "detect fresh",
        "extract done",
        "train-bert-crf-seed-1 done",
        "train-hmnet-seed-1 done",
    ]
    assert json.loads((folder / "run" / "reproduction.json").read_text())["reproduced"] is True


def test_the_commands_lock_and_reproduce_end_with_their_exit_codes(
    again: tuple[Reproduction, Path, list[str]], run: RunFolder, lock: Path, tmp_path: Path
) -> None:
    _, folder, _ = again

    def hmnet(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hmnet_pipe", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    locked = hmnet("lock", run.path, "--output", tmp_path / "x.lock")
    assert locked.returncode == 0, locked.stderr
    assert (tmp_path / "x.lock").read_bytes() == lock.read_bytes()
    options = ["--images", folder / "texts" / "images", "--encoder", folder / "another-name", "--run"]
    equal = hmnet("reproduce", tmp_path / "x.lock", "--text", folder / "texts", *options, folder / "run")
    assert equal.returncode == 0, equal.stderr
    assert "every result is equal" in equal.stdout
    other = Path(shutil.copytree(folder / "texts", tmp_path / "other"))
    (other / "test.jsonl").write_text(
        "".join((other / "test.jsonl").read_text().splitlines(keepends=True)[1:])
    )
    different = hmnet("reproduce", tmp_path / "x.lock", "--text", other, *options, tmp_path / "run", "--json")
    assert different.returncode == 1, different.stderr
    report = json.loads(different.stdout)
    assert report == json.loads((tmp_path / "run" / "reproduction.json").read_text())
    assert (report["reproduced"], report["complete"]) == (False, False)


def test_another_version_of_the_data_is_named_per_split_before_anything_is_computed(
    run: RunFolder, lock: Path, tmp_path: Path, tiny_encoder: Path
) -> None:
    corpus = Path(shutil.copytree(run.path.parent / "corpus", tmp_path / "corpus"))
    lines = (corpus / "train.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    first["tokens"][0] += "x"
    (corpus / "train.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]))
    here = RunFolder(tmp_path / "run")
    result = reproduce(
        lock, here, text=corpus, images=corpus / "images", encoder=str(tiny_encoder), tools=Tools()
    )
    assert not result.reproduced
    digest = read_lock(lock)["data"]["train"]["digest"]
    assert (
        f"not the data of the lock (24 samples, lock 24; digest {digest[:12]} -> "
        in state_of(result, "data", "train").text
    )
    assert [state_of(result, "data", split).state for split in SIZES] == ["different", "equal", "equal"]
    assert not here.samples.exists()


def test_other_images_are_named_before_the_detector_runs(
    run: RunFolder, lock: Path, tmp_path: Path, tiny_encoder: Path
) -> None:
    corpus = Path(shutil.copytree(run.path.parent / "corpus", tmp_path / "corpus"))
    next((corpus / "images").iterdir()).unlink()
    here = RunFolder(tmp_path / "run")
    result = reproduce(
        lock, here, text=corpus, images=corpus / "images", encoder=str(tiny_encoder), tools=Tools()
    )
    assert not result.reproduced
    usable = read_lock(lock)["data"]["images"]["usable"]
    assert (
        f"not the images of the lock ({usable - 1} usable, lock {usable};"
        in state_of(result, "data", "images").text
    )
    assert not here.detections.exists()


def test_other_weights_are_named_with_the_digest_that_is_wanted(
    run: RunFolder, lock: Path, tmp_path: Path, tiny_encoder: Path
) -> None:
    encoder = Path(shutil.copytree(tiny_encoder, tmp_path / "encoder"))
    state = load_file(encoder / "model.safetensors")
    name = sorted(state)[0]
    state[name] = state[name] + np.float32(1e-3)
    save_file(state, encoder / "model.safetensors", metadata={"format": "pt"})
    corpus = run.path.parent / "corpus"
    arguments: dict[str, Any] = {"text": corpus, "images": corpus / "images", "tools": Tools()}
    wanted = read_lock(lock)["stages"]["train-hmnet-seed-1"]["weights"]["encoder"]
    result = reproduce(lock, RunFolder(tmp_path / "a"), encoder=str(encoder), **arguments)
    assert [finding.what for finding in result.different] == ["encoder"]
    assert f"expected digest {wanted}" in result.different[0].text
    file = tmp_path / "other.safetensors"
    file.write_bytes(b"other weights")
    result = reproduce(
        lock, RunFolder(tmp_path / "b"), encoder=str(tiny_encoder), backbone_weights=str(file), **arguments
    )
    assert [finding.what for finding in result.different] == ["backbone"]
    assert not RunFolder(tmp_path / "b").samples.exists()
    with pytest.raises(
        WeightsError,
        match=f"the encoder of the lock, with the digest {wanted}, is not here; "
        "give it with --encoder FOLDER",
    ):
        reproduce(lock, RunFolder(tmp_path / "c"), **arguments)
    assert not (tmp_path / "c").exists()


def test_rounding_is_told_by_its_size_and_is_no_failure(
    again: tuple[Reproduction, Path, list[str]], lock: Path, tmp_path: Path
) -> None:
    """Features made again with bf16 have other numbers, and so has the model trained on them."""
    _, folder, _ = again

    def other_precision(values: Any) -> None:
        values["config"]["extract"]["precision"] = "bf16"

    result = reproduce(
        edited(lock, tmp_path, other_precision),
        RunFolder(tmp_path / "run"),
        text=folder / "texts",
        images=folder / "texts" / "images",
        encoder=str(folder / "another-name"),
        tolerance=1.0,
        tools=Tools(),
    )
    assert state_of(result, "environment", "precision") == Comparison(
        "environment", "precision", "noted", "fp32 -> bf16"
    )
    assert state_of(result, "detect", "detections").state == "equal"
    features = state_of(result, "extract", "features")
    assert features.state == "rounding"
    assert "64 sampled values are at most 0.0" in features.text
    assert state_of(result, "train-bert-crf-seed-1", "model.safetensors").state == "equal"
    assert state_of(result, "train-hmnet-seed-1", "model.safetensors").state == "rounding"
    assert result.reproduced
    assert "reproduced but for rounding" in result.lines()[-1]


def finished_again(lock: Path, folder: Path) -> Reproduction:
    """Compare the finished reproduction with another lock, without computing anything."""
    run = RunFolder(folder / "run")
    (run.path / "reproduces.lock").write_bytes(lock.read_bytes())
    texts = folder / "texts"
    return reproduce(
        lock, run, text=texts, images=texts / "images", encoder=str(folder / "another-name"), tools=Tools()
    )


@pytest.fixture
def copy(again: tuple[Reproduction, Path, list[str]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(again[1], tmp_path / "copy"))


def test_another_number_from_the_same_machine_and_versions_is_a_failure(
    lock: Path, copy: Path, tmp_path: Path
) -> None:
    def other_boxes(values: Any) -> None:
        values["stages"]["detect"]["outputs"]["detections"] = "0" * 64
        values["probes"]["detect"]["detections"][0]["box"][0] += 0.25

    result = finished_again(edited(lock, tmp_path, other_boxes), copy)
    assert [(finding.group, finding.what) for finding in result.different] == [("detect", "detections")]
    assert "at most 0.25 pixels" in result.different[0].text
    assert "nothing else differs that could explain it" in result.different[0].text


@pytest.mark.parametrize(("shift", "state"), [(0.25, "rounding"), (40.0, "different")])
def test_boxes_of_another_machine_may_lie_a_little_off_and_not_far(
    lock: Path, copy: Path, tmp_path: Path, shift: float, state: str
) -> None:
    def elsewhere(values: Any) -> None:
        values["environments"]["1"]["processor"] = "another"
        values["stages"]["detect"]["outputs"]["detections"] = "0" * 64
        for probe in values["probes"]["detect"]["detections"]:
            probe["box"] = [side + shift for side in probe["box"]]

    result = finished_again(edited(lock, tmp_path, elsewhere), copy)
    assert state_of(result, "detect", "detections").state == state
    assert state_of(result, "environment", "processor").text.startswith("another -> ")
    assert result.reproduced == (state == "rounding")


def test_features_that_rounding_cannot_explain_are_a_failure_on_any_machine(
    lock: Path, copy: Path, tmp_path: Path
) -> None:
    def other_features(values: Any) -> None:
        values["environments"]["1"]["processor"] = "another"
        values["stages"]["extract"]["outputs"]["features"] = "0" * 64
        for probe in values["probes"]["extract"]["features"]:
            probe["values"] = [1.2 * value for value in probe["values"]]

    result = finished_again(edited(lock, tmp_path, other_features), copy)
    assert [(finding.group, finding.what) for finding in result.different] == [("extract", "features")]


@pytest.mark.parametrize(("change", "state"), [(0.019, "rounding"), (0.021, "different")])
def test_scores_may_differ_by_the_stated_tolerance(
    lock: Path, copy: Path, tmp_path: Path, change: float, state: str
) -> None:
    def other_score(values: Any) -> None:
        values["environments"]["1"]["versions"]["torch"] = "0"
        scores = values["scores"]["train-hmnet-seed-1"]["test"]
        scores["f1"] = scores["f1"] + change

    result = finished_again(edited(lock, tmp_path, other_score), copy)
    scores = state_of(result, "train-hmnet-seed-1", "test scores")
    assert scores.state == state
    assert f"({-change:+.4f})" in scores.text
    assert result.reproduced == (state == "rounding")


def test_a_parameter_of_the_lock_that_this_version_computes_otherwise_is_a_failure(
    lock: Path, copy: Path, tmp_path: Path
) -> None:
    def other_version(values: Any) -> None:
        values["stages"]["extract"]["schema_version"] = 0
        values["stages"]["extract"]["parameters"]["transform"] = "centre crop"

    result = finished_again(edited(lock, tmp_path, other_version), copy)
    assert [(finding.group, finding.what) for finding in result.different] == [
        ("extract", "schema_version"),
        ("extract", "transform"),
    ]


def test_a_folder_that_holds_something_else_is_left_alone(run: RunFolder, lock: Path, tmp_path: Path) -> None:
    corpus = run.path.parent / "corpus"
    arguments: dict[str, Any] = {"text": corpus, "tools": Tools()}
    with pytest.raises(StageError, match="is not empty and no reproduction of"):
        reproduce(lock, run, images=corpus / "images", **arguments)
    with pytest.raises(InputError, match="is of a run with images; give their folder with --images"):
        reproduce(lock, RunFolder(tmp_path / "run"), images=None, **arguments)
    (tmp_path / "no.lock").write_text("x")
    with pytest.raises(InputError, match="is not valid TOML"):
        reproduce(tmp_path / "no.lock", RunFolder(tmp_path / "run"), images=None, **arguments)
    (tmp_path / "no.lock").write_text("format = 99\n")
    with pytest.raises(InputError, match="is not a lock of format 2"):
        reproduce(tmp_path / "no.lock", RunFolder(tmp_path / "run"), images=None, **arguments)
    broken = edited(lock, tmp_path, lambda values: values["stages"]["detect"].pop("parameters"))
    with pytest.raises(InputError, match=r"edited.lock lacks stages.detect.parameters; make it again"):
        reproduce(broken, RunFolder(tmp_path / "run"), images=None, **arguments)
    assert not (tmp_path / "run").exists()


def test_a_run_on_text_alone_is_locked_and_reproduced_without_images(
    run: RunFolder, tmp_path: Path, tiny_encoder: Path
) -> None:
    corpus = run.path.parent / "corpus"
    text_only = RunFolder(tmp_path / "run")
    config = preset("demo", task="ner", text=corpus, images=None, format="auto")
    config = config.override("train", {"encoder": str(tiny_encoder), "epochs": 1, "first_evaluation": 1})
    config.write(text_only.config)
    run_stage(config.stage("prepare", text_only), Tools())
    run_stage(config.stage("train", text_only, Trial("bert-crf", 3)), Tools())
    lock = lock_run(text_only)
    assert list(read_lock(lock)["stages"]) == ["prepare", "train-bert-crf-seed-3"]
    result = reproduce(
        lock,
        RunFolder(tmp_path / "again"),
        text=corpus,
        images=None,
        encoder=str(tiny_encoder),
        tools=Tools(),
    )
    assert result.reproduced
    with pytest.raises(InputError, match="is of a run on text alone; leave --images out"):
        reproduce(
            lock,
            RunFolder(tmp_path / "other"),
            text=corpus,
            images=corpus / "images",
            encoder=str(tiny_encoder),
            tools=Tools(),
        )
