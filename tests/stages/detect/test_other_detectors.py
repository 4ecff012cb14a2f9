"""The detect stage with a detector that is not fused: its causes, its summary, and what a kill leaves."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.stages.base.tools import Tools

from ...detectors import save_detector
from ...running import begin, bring_up_to_date, configure, small_corpus, stage_of


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a prepared run of a few images and a detector. Never changed."""
    place = tmp_path_factory.mktemp("detectors")
    corpus = small_corpus(place / "corpus", sizes={"train": 4, "valid": 1, "test": 1})
    detector = save_detector(place / "detector", "rt_detr")
    begin(place / "run", corpus, detect={"detector": f"hf:{detector}", "min_score": 0.0, "chunk": 2})
    bring_up_to_date(place / "run", "prepare")
    return place


@pytest.fixture
def run(place: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(place / "run", tmp_path / "run")))


class Killed(Exception):
    pass


def after_the_first(function: Any, units: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    yield units[0], function(units[0])
    raise Killed


def test_an_interrupted_run_ends_with_the_bytes_of_one_that_was_not(run: RunFolder, tmp_path: Path) -> None:
    other = RunFolder(Path(shutil.copytree(run.path, tmp_path / "other")))
    report = bring_up_to_date(run.path, "detect")
    assert report.details["computed"] == "in fp32 by torch's own kernels; only Faster R-CNNs are fused"
    assert report.details["objects"] > 0
    with pytest.raises(Killed):
        bring_up_to_date(other.path, "detect", Tools(map=after_the_first))
    stage = stage_of(other.path, "detect")
    progress = stage.progress(stage.causes())
    assert (progress.done, progress.total) == (2, report.done)
    assert bring_up_to_date(other.path, "detect").done == report.done
    assert other.detections.read_bytes() == run.detections.read_bytes()
    record = StageRecord.read(run.record("detect"))
    assert record is not None
    scratch = RunFolder(tmp_path / "scratch")
    assert stage_of(run.path, "detect").again(record, 1.0, False, scratch, Tools()).verdict == "equal"


def test_where_the_detector_lies_is_no_cause_and_what_it_is_is_one(run: RunFolder, place: Path) -> None:
    bring_up_to_date(run.path, "detect")
    record = StageRecord.read(run.record("detect"))
    assert record is not None
    assert record.parameters["detector"] == "hf:rt_detr"
    assert (record.parameters["precision"], record.parameters["kernels"]) == ("fp32", "torch")
    moved = Path(shutil.copytree(place / "detector", run.path.parent / "moved"))
    configure(run.path, "detect", detector=f"hf:{moved}")
    assert bring_up_to_date(run.path, "detect").state == "fresh"
    said: list[str] = []
    configure(run.path, "detect", detector="demo_fasterrcnn")
    bring_up_to_date(run.path, "detect", Tools(say=said.append))
    assert any(line.startswith("detect runs again because of detector: hf:rt_detr -> demo_") for line in said)
    # The record of one kind of detector says nothing of how the other computes.
    again = bring_up_to_date(run.path, "detect")
    assert again.state == "fresh"
    assert "computed" not in again.details
    assert not {"N/A", "no object"} & set(pq.read_table(run.detections).column("label").to_pylist())
