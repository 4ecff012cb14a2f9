"""The fingerprint of each stage over a fixed run: a change in what it is made of fails here, with the remedy.

python tests/test_golden.py    writes golden.json anew, once it is decided that the change is wanted
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hmnet_pipe.cache.reader import IndexRow, write_index
from hmnet_pipe.cache.shards import write_shard
from hmnet_pipe.cache.spec import IMAGENET_MEAN, IMAGENET_STD, FeatureSpec, Transform
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import DETECTIONS, IMAGES, SAMPLES
from hmnet_pipe.manifests.tables import table_of, write_table
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.graph import SETTINGS
from hmnet_pipe.pipeline.run.presets import preset

TRANSFORM = Transform(224, IMAGENET_MEAN, IMAGENET_STD, "bilinear")
GOLDEN = Path(__file__).with_name("golden.json")
KEY = hashlib.sha256(b"an image").hexdigest()


def make_folder(folder: Path) -> RunConfig:
    """Make texts, an image, weights and a run's tables from what stands here; return their configuration."""
    (folder / "images").mkdir()
    (folder / "images" / "1.jpg").write_bytes(b"an image")
    (folder / "train.txt").write_bytes(b"IMGID:1\nAda\tB-PER\nis\tO\n\nIMGID:2\nLondon\tI-LOC\n")
    (folder / "weights.pth").write_bytes(np.arange(4, dtype="<f4").tobytes())
    (folder / "encoder").mkdir()
    (folder / "encoder" / "config.json").write_bytes(b'{"model_type": "bert"}')
    (folder / "encoder" / "model.safetensors").write_bytes(np.arange(8, dtype="<f4").tobytes())
    (folder / "encoder" / "vocab.txt").write_bytes(b"[PAD]\nada\n")
    run = RunFolder(folder)
    ada = {
        "id": "1",
        "split": "train",
        "task": "ner",
        "tokens": ["Ada", "is"],
        "tags": ["B-PER", "O"],
        "image": "1.jpg",
        "image_key": KEY,
    }
    london = {
        "id": "2",
        "split": "train",
        "task": "ner",
        "tokens": ["London"],
        "tags": ["B-LOC"],
        "image": "2.jpg",
    }
    write_table(run.samples, table_of(SAMPLES, [ada, london]))
    write_table(
        run.images,
        table_of(IMAGES, [{"key": KEY, "path": "anywhere", "width": 4, "height": 3, "status": "ok"}]),
    )
    box = {"x0": 0.5, "y0": 0.0, "x1": 2.25, "y1": 3.0, "label": "person", "score": 0.75}
    write_table(run.detections, table_of(DETECTIONS, [{"image_key": KEY, "rank": 0, **box}]))
    spec = FeatureSpec("resnet50", "0" * 64, TRANSFORM, (2, 3), 1, 2, "float16")
    checksums = write_shard(
        run.features() / "shard-00000.h5",
        unit="0" * 64,
        spec=spec,
        keys=[KEY],
        view_mask=np.array([[True, False]]),
        pyramid=np.arange(10, dtype=np.float16).reshape(1, 2, 5, 1, 1),
    )
    write_index(run.features(), spec, [IndexRow(KEY, "shard-00000.h5", 0, checksums[0], "0" * 64)])
    config = preset("custom", task="ner", text=folder, images=folder / "images", format="auto")
    weights, arithmetic = {"weights": str(folder / "weights.pth")}, {"precision": "fp32", "device": "cpu"}
    for name in ("detect", "extract"):
        config = config.override(name, {**weights, **arithmetic})
    return config.override("train", {"encoder": str(folder / "encoder"), **arithmetic})


def records(folder: Path) -> dict[str, StageRecord]:
    """Return what each stage would record as its causes.

    A new stage of run.toml appears here by itself; `make_folder` gives it inputs.
    """
    config = make_folder(folder)
    return {name: config.stage(name, RunFolder(folder)).causes() for name in SETTINGS}


def golden() -> dict[str, dict[str, Any]]:
    values: dict[str, dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return values


def as_record(values: dict[str, Any]) -> StageRecord:
    return StageRecord(**{name: value for name, value in values.items() if name != "fingerprint"}, outputs={})


def causes(record: StageRecord) -> dict[str, Any]:
    return {
        name: getattr(record, name) for name in ("stage", "schema_version", "parameters", "inputs", "weights")
    }


@pytest.mark.parametrize("name", SETTINGS)
def test_a_fingerprint_is_the_golden_one(name: str, tmp_path: Path) -> None:
    found = records(tmp_path)[name]
    if "kernels" in found.parameters and found.parameters["kernels"] != "onednn":
        pytest.skip("the golden fingerprints of detect and extract are of x86 processors")
    remedy = (
        f"Every finished {name} of every run would be done again. If that is not wanted, undo the change. "
        f"If {name} can now make other numbers from the same inputs, raise its schema_version. "
        f"Then put the new one in: python tests/{Path(__file__).name}"
    )
    assert name in golden(), (
        f"{name} has no golden fingerprint yet; put it in: python tests/{Path(__file__).name}"
    )
    old = as_record(golden()[name])
    changes = old.changes(found) or [
        f"the fingerprint: {golden()[name]['fingerprint'][:12]} -> {found.fingerprint[:12]}"
    ]
    assert found.fingerprint == golden()[name]["fingerprint"], (
        f"{name} changed in {'; '.join(changes)}. {remedy}"
    )


def test_a_golden_fingerprint_is_the_sha256_of_the_canonical_json_beside_it() -> None:
    """Computed apart from the package, so that the rule itself is written down twice."""
    for values in golden().values():
        content = {name: value for name, value in values.items() if name != "fingerprint"}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        assert values["fingerprint"] == hashlib.sha256(canonical.encode()).hexdigest()


def test_the_golden_digests_are_those_of_the_bytes_that_are_written_here() -> None:
    weights = hashlib.sha256(np.arange(4, dtype="<f4").tobytes()).hexdigest()
    assert golden()["detect"]["weights"] == {"detector": weights}
    assert golden()["extract"]["weights"] == {"backbone": weights}
    text = hashlib.sha256(b"IMGID:1\nAda\tB-PER\nis\tO\n\nIMGID:2\nLondon\tI-LOC\n").hexdigest()
    named = hashlib.sha256(json.dumps(["train.txt", text], separators=(",", ":")).encode()).hexdigest()
    assert golden()["prepare"]["inputs"]["text.train"] == named
    images = [["train", "1.jpg", KEY, None], ["train", "2.jpg", None, "not in the image folder"]]
    looked_up = hashlib.sha256(json.dumps(images, separators=(",", ":")).encode()).hexdigest()
    assert golden()["prepare"]["inputs"]["images"] == looked_up


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        ("prepare", lambda folder: (folder / "train.txt").write_bytes(b"IMGID:1\nAda\tB-PER\n")),
        ("prepare", lambda folder: (folder / "images" / "1.jpg").write_bytes(b"another image")),
        ("detect", lambda folder: (folder / "weights.pth").write_bytes(b"others")),
        ("extract", lambda folder: (folder / "weights.pth").write_bytes(b"others")),
        ("train", lambda folder: (folder / "encoder" / "vocab.txt").write_bytes(b"[PAD]\nalan\n")),
    ],
)
def test_another_input_gives_another_fingerprint(
    stage: str, change: Callable[[Path], object], tmp_path: Path
) -> None:
    config = make_folder(tmp_path)
    change(tmp_path)
    found = config.stage(stage, RunFolder(tmp_path)).causes()
    assert found.fingerprint != golden()[stage]["fingerprint"]
    assert causes(replace(found, inputs={}, weights={})) == causes(
        replace(as_record(golden()[stage]), inputs={}, weights={})
    )


def main() -> None:
    with TemporaryDirectory() as folder:
        found = {
            name: {**causes(record), "fingerprint": record.fingerprint}
            for name, record in records(Path(folder)).items()
        }
    GOLDEN.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
