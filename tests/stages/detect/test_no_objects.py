"""detect --objects 0: nothing is looked for, so nothing is opened."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.stages.base.tools import Tools

from ...running import begin, bring_up_to_date, small_corpus, stage_of


def no_work(function: Any, units: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    assert not units
    yield from ()


def test_without_objects_no_image_is_opened_and_no_weights_are_needed(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus", sizes={"train": 2, "valid": 1, "test": 1})
    begin(tmp_path / "run", corpus, detect={"objects": 0, "weights": "nowhere.pth"})
    run = RunFolder(tmp_path / "run")
    bring_up_to_date(run.path, "prepare")
    report = bring_up_to_date(run.path, "detect", Tools(map=no_work))
    rows = pq.read_table(run.outcomes("detect")).to_pylist()
    assert report.done == len(rows) > 0
    assert {(row["status"], row["reason"]) for row in rows} == {("done", None)}
    assert pq.read_table(run.detections).num_rows == 0
    assert bring_up_to_date(run.path, "detect").state == "fresh"
    record = StageRecord.read(run.record("detect"))
    assert record is not None
    scratch = RunFolder(tmp_path / "scratch")
    assert (
        stage_of(run.path, "detect").again(record, 1.0, False, scratch, Tools(map=no_work)).verdict == "equal"
    )
