"""Whatever a file of a run has become, reading it ends in one sentence that names it.

READERS is every function that reads a file of a run; SPOILERS is every way in which a file can be spoilt.
That READERS is complete is read from the code: a module that reads files is in it, or says here why not.
"""

import ast
import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomlkit
import torch
from click.testing import CliRunner
from hmnet_pipe import FeatureCache
from hmnet_pipe.cache.reader import read_index, write_index
from hmnet_pipe.cache.shards import Shard, write_shard
from hmnet_pipe.cache.spec import FeatureSpec, Transform
from hmnet_pipe.manifests.errors import HmnetPipeError, InputError, StageError
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import OUTCOMES
from hmnet_pipe.manifests.tables import read_batches, read_table, table_digest, table_of, write_table
from hmnet_pipe.pipeline.checks.verify import mend_run, verify_run
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.reproduce.lock import read_lock
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.presets import preset
from hmnet_pipe.pipeline.run.runner import run_stage
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.evaluate.recorded import Evaluation
from hmnet_pipe.stages.learning.causes import training_progress
from hmnet_pipe.stages.learning.checkpoint import Checkpoints, Progress
from hmnet_pipe.stages.learning.metrics import read_metrics
from hmnet_pipe.stages.learning.opened import open_model
from hmnet_pipe.stages.systems.batch import ModelConfig
from hmnet_pipe.stages.systems.build import new_system
from hmnet_pipe.stages.text.encoders.bert import load_encoder, load_tokenizer
from hmnet_pipe.stages.text.encoders.files import encoder_digest, resolve_encoder
from hmnet_pipe.stages.text.subwords import Subwords

from ..running import Demos, stage_of
from ..spoilers import SPOILERS, absent, anothers, empty, huge, link_loop, pipe

ROOT = Path(__file__).resolve().parents[2]

FEW = {"train": 4, "valid": 2, "test": 2}
SCORES = {"f1": 0.5, "precision": 0.5, "recall": 0.5}
STAGE = {
    "schema_version": 1,
    "environment": 1,
    "parameters": {"seed": 1},
    "inputs": {},
    "outputs": {"a": "b"},
}
LOCK: dict[str, Any] = {
    "format": 2,
    "task": "ner",
    "config": {"train": {"epochs": 3}},
    "data": {"train": {"samples": 1, "with_image": 0, "digest": "0"}, "images": {"usable": 0, "digest": "0"}},
    "stages": {"train-hmnet-seed-1": STAGE},
    "scores": {"train-hmnet-seed-1": {"seed": 1, "test": SCORES}},
    "environments": {"1": {"python": "3", "versions": {"torch": "2"}}},
    "probes": {"extract": {"features": [{"key": "a"}]}},
}
METRICS: dict[str, Any] = {"system": "hmnet", "seed": 1, "best_epoch": 1, "valid": None, "test": SCORES}
RECORD = StageRecord("detect", 1, {"objects": 3}, {"images": "a"}, {}, {"detections": "b"}, {"counts": {}})


@dataclass(frozen=True)
class Reader:
    """A function that reads a file, the file's name, how a sound one is written, and the modules behind."""

    name: str
    write: Callable[[Path], None]
    read: Callable[[Path], Any]
    modules: tuple[str, ...]
    absent: type[HmnetPipeError] | None = StageError  # None: nothing is there, which is no fault
    spoilt: type[HmnetPipeError] | None = StageError  # None: it is only shown, and left out


def write_config(path: Path) -> None:
    preset("custom", task="ner", text=path.parent, images=None, format="auto").write(path)


def write_lock(path: Path) -> None:
    path.write_text(tomlkit.dumps(LOCK))


def write_cache(path: Path) -> None:
    """Write a shard of one image and its index; `path` is one of the two."""
    spec = FeatureSpec("demo_resnet", "0", Transform(8, (0.5,), (0.5,), "BICUBIC"), (2,), 1, 1, "float32")
    shard = path.parent / "shard-00000.h5"
    rows = write_shard(
        shard,
        unit="u",
        spec=spec,
        keys=["a"],
        view_mask=np.ones((1, 1), np.bool_),
        pyramid=np.ones((1, *spec.row_shape), np.float32),
    )
    assert rows is not None or shard.is_file()
    write_index(path.parent, spec, [])


def as_json(value: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(json.dumps(value))

    return write


READERS = [
    Reader("run.toml", write_config, RunConfig.read, ("pipeline/run/config.py",), StageError, InputError),
    Reader(
        "hmnet-pipe.lock",
        write_lock,
        read_lock,
        ("pipeline/reproduce/lock.py",),
        InputError,
        InputError,
    ),
    Reader("detect.json", RECORD.write, StageRecord.read, ("manifests/record.py",), absent=None),
    Reader(
        "metrics.json",
        as_json(METRICS),
        lambda path: read_metrics(path.parent),
        ("stages/learning/metrics.py",),
    ),
    Reader(
        "evaluation-test.json",
        Evaluation("hmnet", "test", False, dict(SCORES)).write,
        Evaluation.read,
        ("stages/evaluate/recorded.py",),
    ),
    Reader(
        "progress.json",
        as_json({"epoch": 1, "epochs": 2, "step": 3, "steps": 4}),
        lambda path: training_progress(path.parent),
        ("stages/learning/causes.py",),
        None,
        None,
    ),
    Reader(
        "detect.parquet",
        lambda path: write_table(path, table_of(OUTCOMES, [{"image_key": "a", "status": "done"}])),
        lambda path: (
            read_table(path, OUTCOMES),
            list(read_batches(path, OUTCOMES)),
            table_digest(path, OUTCOMES),
        ),
        ("manifests/tables.py",),
    ),
    Reader("index.parquet", write_cache, lambda path: read_index(path.parent), ("cache/reader.py",)),
    Reader("shard-00000.h5", write_cache, Shard, ("cache/shards.py", "cache/archive.py")),
]

# Modules that read files, and are not walked here.
ELSEWHERE = {
    "manifests/files.py": "read_text is what the readers of small files call",
    "manifests/machine.py": "reads what Linux says of control groups; test_machine.py writes them",
    "manifests/fingerprint.py": "digests whatever a stage has checked to be a file",
    "stages/base/arithmetic.py": "reads /proc/cpuinfo",
    "stages/vision/images.py": "test_images.py spoils images",
    "stages/vision/weights.py": "test_visual.py spoils weights",
    "stages/base/hub.py": "FOLDERS spoils encoders; test_detectors.py and test_other_backbones.py the others",
    "stages/vision/backbones/other.py": "loads a backbone through those of its library",
    "stages/vision/backbones/outside.py": "test_other_backbones.py spoils what is remembered of a backbone",
    "stages/systems/folder.py": "FOLDERS spoils models",
    "stages/dependencies/parsers.py": "test_dependencies.py has parsers without a model",
    "stages/detect/boxes.py": "test_boxes.py spoils files of boxes",
    "stages/scenes/benchmark.py": "test_scenes.py spoils files of scene graphs",
    "stages/scenes/features.py": "test_scenes.py spoils files of scene graphs",
    "stages/scenes/records.py": "test_scenes.py spoils files of scene graphs",
    "stages/text/vocabulary.py": "test_vocabulary.py spoils vocabularies",
    "stages/vision/copies.py": "test_copies.py spoils its list of failures, and tar files",
    "stages/prepare/formats/rows.py": "test_prepare_readers.py spoils texts",
    "stages/prepare/formats/voc.py": "test_mention_boxes.py spoils files of boxes",
    "stages/prepare/formats/brat.py": "test_brat.py spoils documents",
    "stages/prepare/formats/huggingface.py": "test_huggingface.py spoils data sets",
    "stages/evaluate/examined.py": "test_occlusion.py spoils kept cases",
    "stages/learning/checkpoint.py": "FOLDERS spoils checkpoints",
    "stages/learning/made_by.py": "FOLDERS spoils config.json, which it reads for a digest",
    "stages/learning/calibration.py": "test_calibration.py spoils temperatures",
    "stages/learning/card.py": "test_card.py spoils cards",
    "stages/evaluate/given.py": "test_given.py spoils predictions",
    "pipeline/experiment/grid.py": "test_grid.py spoils grids",
    "pipeline/experiment/cells.py": "shows the first line of a reason of its own",
    "stages/predict/inputs.py": "test_inputs.py spoils posts",
    "stages/systems/hub.py": "reads config.json of a folder that load_system has read",
    "stages/learning/loop.py": "loads checkpoints through checkpoint.py",
    "pipeline/checks/doctor.py": "reads constraints.txt and a file of its own",
    "pipeline/reproduce/reproduce.py": "copies the lock once read_lock has read it",
    "pipeline/predict/part.py": "puts together the pieces that it has written and finds whole",
    "pipeline/serve/app.py": "reads the files of its page",
    "pipeline/run/new.py": "reads run.toml again once RunConfig has read it",
    "pipeline/run/locks.py": "test_locks.py spoils the note of who holds a lock",
}


def written(reader: Reader, place: Path) -> Path:
    path = place / reader.name
    reader.write(path)
    reader.read(path)  # a sound one is read
    return path


def said_of(reader: Reader, path: Path, kind: type[HmnetPipeError] | None) -> None:
    """Read a spoilt file, and check that the reader raises one sentence of this kind that names it."""
    if kind is None:
        assert reader.read(path) is None
        return
    with pytest.raises(HmnetPipeError, match=r"\S") as caught:
        reader.read(path)
    assert isinstance(caught.value, kind), repr(caught.value)
    text = str(caught.value)
    assert path.name in text or (path.name == "run.toml" and "is not a run" in text)
    assert len(text) < 1000
    assert "\n" not in text


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_a_spoilt_file_is_one_sentence(tmp_path: Path, reader: Reader, spoil: Callable[[Path], None]) -> None:
    path = written(reader, tmp_path)
    spoil(path)
    if path.suffix == ".h5" and spoil is huge:  # its pyramid is mapped, and whatever follows does no harm
        reader.read(path)
        return
    said_of(reader, path, reader.spoilt)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_an_absent_file_is_one_sentence_or_nothing(tmp_path: Path, reader: Reader) -> None:
    path = written(reader, tmp_path)
    absent(path)
    said_of(reader, path, reader.absent)


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of an encoder's folder that may be taken for a model's tokenizer too."""
    return Path(shutil.copytree(tiny_encoder, tmp_path_factory.mktemp("encoder") / "encoder"))


@pytest.fixture(scope="module")
def model(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model, as a training writes it."""
    folder = tmp_path_factory.mktemp("model") / "model"
    config = ModelConfig("bert-crf", "ner", ("O", "B-PER", "I-PER"), (), "markers", 32, {}, None)
    new_system(tiny_encoder, config).save_pretrained(folder, Subwords.of_encoder(tiny_encoder, "ner"))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoint") / "checkpoint"
    kept = Checkpoints(folder)
    kept.keep_best(1, {"weight": torch.ones(300)})
    kept.save({"model": {"weight": torch.ones(300)}, "progress": Progress(1).dumps()}, 1, {"epoch": 1})
    return folder


def read_encoder(folder: Path) -> None:
    found = resolve_encoder(str(folder))
    encoder_digest(found)
    load_tokenizer(found)
    load_encoder(found)


def read_checkpoint(folder: Path) -> None:
    kept = Checkpoints(folder)
    kept.load()
    kept.best(1)


# The readers of folders: how one is read, its files, and what some of them may be without harm.
FOLDERS: dict[str, tuple[Callable[[Path], Any], list[str], dict[str, list[Callable[[Path], None]]]]] = {
    "encoder": (
        read_encoder,
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"],
        {"tokenizer_config.json": [absent, anothers]},
    ),
    "model": (
        lambda folder: open_model(folder, device="cpu"),
        ["config.json", "model.safetensors", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"],
        {"tokenizer/tokenizer_config.json": [absent, anothers]},
    ),
    "checkpoint": (read_checkpoint, ["checkpoint.pt", "best-1.safetensors"], {"checkpoint.pt": [absent]}),
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, (_, names, _) in FOLDERS.items() for name in names]
)
@pytest.mark.parametrize("spoil", [absent, *SPOILERS], ids=lambda spoil: spoil.__name__)
def test_a_spoilt_file_of_a_folder_is_one_sentence(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, name: str, spoil: Callable[[Path], None]
) -> None:
    folder = Path(shutil.copytree(request.getfixturevalue(kind), tmp_path / kind))
    read, _, spared = FOLDERS[kind]
    spoil(folder / name)
    if spoil in spared.get(name, ()):
        read(folder)
        return
    with pytest.raises(HmnetPipeError) as caught:
        read(folder)
    said = str(caught.value)
    # What lacks a file, or has one that is sound as such, is named as a whole.
    assert str(folder if spoil in (absent, anothers) else folder / name) in said
    assert "\n" not in said
    assert len(said) < 1000


def test_every_file_of_a_sound_folder_is_walked(encoder: Path, model: Path, checkpoint: Path) -> None:
    for kind, folder in (("encoder", encoder), ("model", model), ("checkpoint", checkpoint)):
        read, names, _ = FOLDERS[kind]
        read(folder)
        there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert there - {"progress.json"} == {*names}


def wrongly_typed(value: Any) -> list[Any]:
    """Return copies of a structure, each with one value in it of another type, or left out."""
    if not isinstance(value, dict):
        return []
    found: list[Any] = []
    for key, part in value.items():
        others: list[Any] = ["text", 3, [1], {"a": 1}, True, float("nan")]
        found += [{**value, key: other} for other in others if type(other) is not type(part)]
        found += [{name: other for name, other in value.items() if name != key}]
        found += [{**value, key: inner} for inner in wrongly_typed(part)]
    return found


@pytest.mark.parametrize(
    ("value", "reader"),
    [(LOCK, READERS[1]), (METRICS, READERS[3])],
    ids=["lock", "metrics"],
)
def test_values_of_wrong_types_are_one_sentence_or_make_no_difference(
    tmp_path: Path, value: Any, reader: Reader
) -> None:
    refused = 0
    path = tmp_path / reader.name
    for wrong in wrongly_typed(value):
        path.write_text(json.dumps(wrong) if path.suffix == ".json" else tomlkit.dumps(wrong))
        with suppress(HmnetPipeError):
            reader.read(path)
            continue
        refused += 1
    assert refused > 20


@pytest.mark.parametrize("value", ["text", 3, [1], [{"a": 1}], True])
@pytest.mark.parametrize("table", ["prepare", "train", "features", "task", "preset"])
def test_what_is_no_table_where_run_toml_has_one_is_one_sentence(
    tmp_path: Path, table: str, value: Any
) -> None:
    write_config(tmp_path / "run.toml")
    document: Any = tomlkit.parse((tmp_path / "run.toml").read_text())
    document[table] = value
    with pytest.raises(InputError, match=rf"run\.toml: .*{table}"):
        RunConfig.of_values(document.unwrap(), tmp_path / "run.toml")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("stages", "train-hmnet-seed-1", "parameters", "seed"), "one", "parameters.seed"),
        (("scores", "train-hmnet-seed-1", "test", "f1"), "high", "test.f1"),
        (("data", "train", "samples"), "many", "data.train.samples"),
        (("environments", "1", "versions"), 3, "environments.1.versions"),
        (("stages", "train-hmnet-seed-1", "outputs"), {"a": 3}, "outputs"),
        (("probes", "extract", "features"), [3], "probes.extract.features"),
    ],
)
def test_a_lock_that_was_edited_is_answered_with_the_place(
    tmp_path: Path, place: tuple[str, ...], value: Any, words: str
) -> None:
    edited = json.loads(json.dumps(LOCK))
    table = edited
    for key in place[:-1]:
        table = table[key]
    table[place[-1]] = value
    (tmp_path / "a.lock").write_text(tomlkit.dumps(edited))
    with pytest.raises(InputError, match=rf"a\.lock has .*{words}.*; make it again"):
        read_lock(tmp_path / "a.lock")


@pytest.mark.parametrize("name", ["features/grid", "models/hmnet", "models/hmnet/seed-1"])
@pytest.mark.parametrize("spoil", [empty, link_loop, pipe], ids=lambda spoil: spoil.__name__)
def test_what_is_no_folder_where_a_stage_makes_one_is_one_sentence(
    demos: Demos, tmp_path: Path, name: str, spoil: Callable[[Path], None]
) -> None:
    run = RunFolder(Path(shutil.copytree(demos.run(), tmp_path / "run")))
    (run.path / name).parent.mkdir(exist_ok=True, parents=True)
    (run.path / name).touch()
    spoil(run.path / name)
    config = RunConfig.read(run.config)
    kind, member = ("extract", "grid") if name.startswith("features") else ("train", None)
    with pytest.raises(StageError, match=f"^{run.path / name} is not a folder, .*move it away or remove it"):
        run_stage(config.stage(kind, run, member), SILENT)
    for command in ("status", "evaluate"):
        done = CliRunner().invoke(main, [command, str(run.path)])
        assert done.exception is None or isinstance(done.exception, SystemExit), command


@pytest.mark.parametrize(
    "kind", ["prepare", "detect", "extract", "scenes", "dependencies", "train", "finetune"]
)
def test_a_folder_in_the_place_of_an_output_is_refused_before_anything_is_computed(
    demos: Demos, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    settings: dict[str, Any] = {"train": {"encoder": str(tiny_encoder)}, "finetune": {"start": "pretrained"}}
    run = Path(shutil.copytree(demos.run(sizes=FEW, **settings), tmp_path / "run"))
    stage = stage_of(run, kind)

    def compute(works: Any, tools: Any) -> Any:
        pytest.fail("it was begun")

    monkeypatch.setattr(type(stage), "compute_together", compute)
    assert stage.files
    for name in stage.files:
        path: Path = stage.output_path(name)
        path.unlink(missing_ok=True)
        path.mkdir(parents=True)
        with pytest.raises(StageError, match=f"^{re.escape(str(path))} is a folder"):
            run_stage(stage, SILENT)
        path.rmdir()
    if path.parent == run:
        return
    path.parent.rename(tmp_path / "away")
    path.parent.touch()
    with pytest.raises((StageError, InputError), match=f"^{re.escape(str(path.parent))} is not a folder"):
        run_stage(stage, SILENT)


def test_a_folder_in_the_place_of_a_shard_is_left_alone_and_its_images_are_extracted_again(
    demos: Demos, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(demos.run(sizes=FEW), tmp_path / "run"))
    run, stage = RunFolder(folder), stage_of(folder, "extract")
    shard = next(stage.place.glob("shard-*.h5"))
    rows = FeatureCache(stage.place).digest()
    shard.unlink()
    shard.mkdir()
    (shard / "mine").touch()
    (problem,) = [problem for problem in verify_run(run) if problem.what == str(shard)]
    mend_run(run, [problem], SILENT)
    assert verify_run(run) == []
    assert (shard / "mine").exists()
    assert FeatureCache(stage.place).digest() == rows


@pytest.mark.parametrize("name", ["stages", "features", "models", "crops", "logs", "refreshed"])
@pytest.mark.parametrize("spoil", [empty, link_loop, pipe], ids=lambda spoil: spoil.__name__)
def test_what_is_no_folder_where_a_run_keeps_one_is_one_sentence(
    tmp_path: Path, name: str, spoil: Callable[[Path], None]
) -> None:
    write_config(tmp_path / "run.toml")
    (tmp_path / name).touch()
    spoil(tmp_path / name)
    for command in ("status", "verify", "train", "detect", "table", "prepare", "evaluate", "lock"):
        done = CliRunner().invoke(main, [command, str(tmp_path)])
        assert isinstance(done.exception, SystemExit), command
        assert done.exit_code == 2
        assert f"{name} is not a folder" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_commands_on_a_spoilt_run_toml_end_with_one_line(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    write_config(tmp_path / "run.toml")
    spoil(tmp_path / "run.toml")
    again = ["--task", "ner", "--text", str(tmp_path)]
    for words in (["status"], ["detect"], ["train"], ["prepare"], ["prepare", *again], ["verify"], ["lock"]):
        done = CliRunner().invoke(main, [words[0], str(tmp_path), *words[1:]])
        assert isinstance(done.exception, SystemExit), words
        assert done.exit_code == 2
        assert str(tmp_path / "run.toml") in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    done = CliRunner().invoke(main, ["doctor", str(tmp_path)])
    assert isinstance(done.exception, SystemExit)
    assert "run.toml" in done.stdout


@pytest.mark.parametrize("spoil", [absent, *SPOILERS], ids=lambda spoil: spoil.__name__)
def test_table_of_a_training_whose_scores_are_spoilt_names_the_file(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    run = RunFolder(tmp_path)
    write_config(run.config)
    path = run.models / "hmnet/seed-1/metrics.json"
    path.parent.mkdir(parents=True)
    as_json(METRICS)(path)
    RECORD.write(run.record("train-hmnet-seed-1"))
    assert "0.5000" in CliRunner().invoke(main, ["table", str(tmp_path)]).stdout
    spoil(path)
    done = CliRunner().invoke(main, ["table", str(tmp_path)])
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code == 1
    assert (str(path) in done.stderr) == (spoil not in (absent, link_loop))
    assert len(done.stderr.strip().splitlines()) == 1


READING = {"read_text", "read_bytes", "load_file", "safe_open", "read_schema", "ParquetFile", "File", "load"}


def test_every_module_that_reads_files_is_walked_or_says_why_not() -> None:
    found = set()
    for room in ("cache", "manifests", "pipeline", "stages"):
        for path in (ROOT / room).rglob("*.py"):
            calls = {
                node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Call)
            }
            if calls & READING:
                found.add(str(path.relative_to(ROOT)))
    walked = {module for reader in READERS for module in reader.modules}
    assert found - walked == set(ELSEWHERE) & found
    assert set(ELSEWHERE) <= found | {"manifests/files.py", "manifests/fingerprint.py"}
