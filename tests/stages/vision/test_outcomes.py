"""Images without a result: what passes is tried again, what the network cannot take is one row."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hmnet_pipe.cache.shards import Shard
from hmnet_pipe.cache.spec import FeatureSpec
from hmnet_pipe.manifests.errors import StageError
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import DONE, FAILED, MISSED
from hmnet_pipe.pipeline.checks.status import run_status
from hmnet_pipe.pipeline.checks.verify import mend_run, verify_run
from hmnet_pipe.pipeline.run.freshness import why_changed
from hmnet_pipe.stages.base.arithmetic import Arithmetic
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.extract import work
from hmnet_pipe.stages.extract.unit import ShardUnit, Target
from hmnet_pipe.stages.vision.backbones import backbone_info
from hmnet_pipe.stages.vision.backbones.build import build_backbone
from hmnet_pipe.stages.vision.outcomes import Failure, Failures
from hmnet_pipe.stages.vision.pixels import Pixels
from hmnet_pipe.stages.vision.plan import ImageUnit
from PIL import Image

from ...running import begin, bring_up_to_date, made_by, small_corpus, stage_of

SIZES = {"train": 8, "valid": 2, "test": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run with a corpus of its own, which no test changes."""
    folder = tmp_path_factory.mktemp("whole")
    begin(folder / "run", small_corpus(folder / "corpus", sizes=SIZES), detect={"chunk": 4})
    for stage in ("prepare", "detect", "extract"):
        bring_up_to_date(folder / "run", stage)
    return folder


@pytest.fixture
def own(whole: Path, tmp_path: Path) -> Path:
    """Return a folder with the corpus and a run that is only prepared."""
    shutil.copytree(whole / "corpus", tmp_path / "corpus")
    begin(tmp_path / "run", tmp_path / "corpus", detect={"chunk": 4})
    bring_up_to_date(tmp_path / "run", "prepare")
    return tmp_path


def rows_of(run: Path, stage: str) -> dict[str, tuple[str, str | None]]:
    """Return status and reason of each image."""
    rows = pq.read_table(RunFolder(run).outcomes(stage)).to_pylist()
    return {row["image_key"]: (row["status"], row["reason"]) for row in rows}


@pytest.mark.parametrize("stage", ["detect", "extract"])
def test_a_folder_that_is_away_is_one_sentence_and_leaves_nothing_that_counts(
    own: Path, whole: Path, stage: str
) -> None:
    run, images = own / "run", own / "corpus" / "images"
    if stage == "extract":
        bring_up_to_date(run, "detect")
    images.rename(own / "away")
    sentence = r"most of its \d+ images cannot be read now \(not there: \d+, such as "
    with pytest.raises(StageError, match=sentence) as said:
        bring_up_to_date(run, stage)
    assert str(images) in str(said.value)
    assert StageRecord.read(RunFolder(run).record(stage)) is None
    (own / "away").rename(images)
    report = bring_up_to_date(run, stage)
    assert (report.state, report.failed) == ("done", 0)
    assert made_by(stage, run) == made_by(stage, whole / "run")


def remove(path: Path) -> None:
    path.unlink()


def change(path: Path) -> None:
    Image.new("RGB", (20, 20)).save(path, "PNG")


def make_unreadable(path: Path) -> None:
    """A link to itself: an error of the system that even root gets."""
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (remove, "not there"),
        (change, "changed since prepare read it"),
        (make_unreadable, f"cannot be read: {os.strerror(40)}"),
    ],
)
def test_what_passes_is_tried_again_and_leaves_no_trace(
    own: Path, whole: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    run = own / "run"
    bad = sorted((own / "corpus" / "images").iterdir())[:3]
    kept = {path: path.read_bytes() for path in bad}
    for path in bad:
        spoil(path)
    for stage in ("detect", "extract"):
        report = bring_up_to_date(run, stage)
        assert report.failed == 3
        assert report.details["failed because of"] == {reason: 3}
        assert report.details["tried again by the next run"] == 3
        assert report.details["rows of the failed"] == str(RunFolder(run).outcomes(stage))
        missed = [why for status, why in rows_of(run, stage).values() if status == MISSED]
        assert missed == [reason] * 3
        found = next(row for row in run_status(RunFolder(run)).stages if row.stage == stage)
        assert (found.state, found.failures) == ("partial", {reason: 3})
        assert found.reasons == [f"3 images that could not be read ({reason}: 3)"]
        assert why_changed(stage_of(run, stage)) == "3 images could not be read"
    problems = verify_run(RunFolder(run))
    assert [(problem.stage, problem.what) for problem in problems] == [
        ("detect", "outcomes"),
        ("extract", "outcomes"),
    ]
    for path, content in kept.items():
        path.unlink(missing_ok=True)
        path.write_bytes(content)
    assert [report.done for report in mend_run(RunFolder(run), problems, SILENT)] == [3, 3]
    for stage in ("detect", "extract"):
        assert made_by(stage, run) == made_by(stage, whole / "run")
        assert bring_up_to_date(run, stage).state == "fresh"


def test_views_are_those_that_were_made(own: Path, whole: Path) -> None:
    run = own / "run"
    bring_up_to_date(run, "detect")
    sorted((own / "corpus" / "images").iterdir())[0].unlink()
    made = bring_up_to_date(run, "extract").details["views"]
    cache = stage_of(run, "extract")
    masks = [Shard(path).view_mask for path in sorted(cache.place.glob("*.h5"))]
    assert made == sum(int(mask.sum()) for mask in masks)


def with_thin_images(own: Path, *, every: bool) -> Path:
    images = sorted((own / "corpus" / "images").iterdir())
    for number, path in enumerate(images if every else images[:1]):
        Image.new("RGB", (1, 1400 + number), (200, 30, 40)).save(path, "PNG")
    bring_up_to_date(own / "run", "prepare")
    return own / "run"


def test_an_image_that_the_detector_cannot_take_is_one_row(own: Path) -> None:
    run = with_thin_images(own, every=False)
    assert bring_up_to_date(run, "detect").failed == 1
    ((status, reason),) = (row for row in rows_of(run, "detect").values() if row[0] != DONE)
    assert status == FAILED
    assert str(reason).startswith("the detector cannot take 1 x 1400 pixels: ")
    assert bring_up_to_date(run, "detect").state == "fresh"
    assert bring_up_to_date(run, "extract").failed == 0


def test_a_stage_without_one_result_stops_with_a_sentence(own: Path) -> None:
    run = with_thin_images(own, every=True)
    with pytest.raises(StageError, match="detect failed for every one of its images"):
        bring_up_to_date(run, "detect")
    assert StageRecord.read(RunFolder(run).record("detect")) is None


@pytest.mark.parametrize("together", [1, 4])
def test_an_image_that_the_backbone_cannot_take_is_found_among_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    images = []
    for number, colour in enumerate(["red", "black", "blue", "green", "white"]):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (30, 20), colour).save(path)
        images.append(ImageUnit(hashlib.sha256(path.read_bytes()).hexdigest(), str(path), ()))
    info = backbone_info("demo_resnet")
    backbone = build_backbone("demo_resnet", "default")

    def choking(pixels: torch.Tensor) -> list[torch.Tensor]:
        darkest = pixels.amax(dim=(1, 2, 3)).min()
        if darkest < -1:
            raise ValueError("too\ndark")
        return backbone(pixels)

    monkeypatch.setattr(work, "_backbone", lambda *_: choking)
    monkeypatch.setitem(work._IMAGES_TOGETHER, "cpu", together)
    spec = FeatureSpec("demo_resnet", "w", info.transform(64), info.levels, 2, 4, "float32")
    unit = ShardUnit(
        (Target(spec, "default", str(tmp_path), "00000"),), Arithmetic("cpu", "fp32", "torch"), tuple(images)
    )
    (result,) = work.extract_shard(unit)
    assert result.failed == ((images[1].key, Failure("the backbone cannot take it: ValueError: too dark")),)
    assert [row.image_key for row in result.rows] == [image.key for i, image in enumerate(images) if i != 1]


def test_pixels_note_an_image_that_cannot_be_cut_and_stop_where_most_are_away(tmp_path: Path) -> None:
    images = []
    for number in range(4):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (30, 20), (number, 0, 0)).save(path)
        boxes: Any = ((float("nan"), 0.0, 5.0, 5.0),) if number == 0 else ()
        images.append(ImageUnit(hashlib.sha256(path.read_bytes()).hexdigest(), str(path), boxes))
    transform = backbone_info("demo_resnet").transform(32)
    pixels = Pixels(images, transform=transform, views=2, decoders=2)
    keys = [image.key for image in images]
    _, mask = pixels.gather(keys)
    assert mask.any(axis=1).tolist() == [False, True, True, True]
    assert pixels.failures[keys[0]].status == FAILED
    for image in images[1:]:
        Path(image.path).unlink()
    with pytest.raises(StageError, match=r"most of its 4 images cannot be read now \(not there: 3"):
        pixels.gather(keys)
    assert not np.any(mask[0])


def test_a_summary_names_the_most_frequent_reasons_and_counts_the_others() -> None:
    failures = Failures("detect", 100)
    for number in range(10):
        failures.add(str(number), Failure(f"reason {number}" if number > 2 else "reason"), f"/{number}.jpg")
    details = failures.details(Path("stages/detect.parquet"))
    assert next(iter(details["failed because of"].items())) == ("reason", 3)
    assert details["failed because of"]["other reasons"] == 3
    assert "tried again by the next run" not in details
