"""What detect and extract know of their work before it begins, against slow loops over the tables' rows."""

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import DETECTIONS, IMAGES
from hmnet_pipe.manifests.tables import table_of, write_table
from hmnet_pipe.pipeline.run.presets import preset
from hmnet_pipe.stages.base.ahead import Made
from hmnet_pipe.stages.detect.settings import DetectSettings
from hmnet_pipe.stages.extract.settings import ExtractSettings
from hmnet_pipe.stages.extract.stage import Extract, planned_units

KEYS = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(200)]


def tables(run: RunFolder, order: random.Random | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Make images, some unreadable; boxes of most and of images that are not there, in order or shuffled."""
    rng = random.Random(0)
    images = [
        {"key": key, "path": f"/p/{key}", "width": 9, "height": 9, "status": "ok"}
        for key in sorted(KEYS[:150])
    ]
    for image in images[::7]:
        image |= {"status": "unreadable", "reason": "r"}
    boxes = []
    for key in sorted(KEYS[20:]):
        for rank in range(rng.randrange(6)):
            corners = {name: float(rng.randrange(1000)) / 8 for name in ("x0", "y0", "x1", "y1")}
            boxes.append(
                {"image_key": key, "rank": rank, **corners, "label": "thing", "score": 1 - rank / 10}
            )
    if order is not None:
        order.shuffle(boxes)
    write_table(run.images, table_of(IMAGES, images))
    write_table(run.detections, table_of(DETECTIONS, boxes))
    return images, boxes


@pytest.mark.parametrize("order", [None, random.Random(1)])
@pytest.mark.parametrize("objects", [0, 3])
def test_images_have_their_best_boxes_whatever_the_order_of_the_table(
    tmp_path: Path, order: Any, objects: int
) -> None:
    run = RunFolder(tmp_path)
    images, boxes = tables(run, order)
    found = Extract(run, ExtractSettings(weights="random", device="cpu", precision="fp32"), objects).images()
    usable = [image for image in images if image["status"] == "ok"]
    assert len(found) == len(usable)
    for unit, image in zip(found, usable, strict=True):
        own = sorted(
            (box for box in boxes if box["image_key"] == image["key"] and box["rank"] < objects),
            key=lambda box: box["rank"],
        )
        expected = tuple((box["x0"], box["y0"], box["x1"], box["y1"]) for box in own)
        assert (unit.key, unit.path, unit.boxes) == (image["key"], image["path"], expected)


def test_units_hold_every_image_once_and_in_order(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    images, _ = tables(run, None)
    config = preset("custom", task="ner", text=Path("t"), images=Path("i"), format="auto")
    chosen = {"weights": "random", "device": "cpu", "precision": "fp32"}
    extract: Any = config.override("extract", {**chosen, "shard_rows": 20}).stage("extract", run)
    detect: Any = config.override("detect", {**chosen, "chunk": 16}).stage("detect", run)
    usable = [image["key"] for image in images if image["status"] == "ok"]
    taken = {"shard-00000.h5", "shard-00003.h5"}
    shards = planned_units([(extract, taken)], extract.images())
    assert [image.key for unit in shards for image in unit.images] == usable
    assert [len(unit) for unit in shards] == [20] * 6 + [8]
    names = [target.path.name for unit in shards for target in unit.targets]
    assert names == [f"shard-{number:05d}.h5" for number in (1, 2, 4, 5, 6, 7, 8, 9, 10)][: len(names)]
    assert [key for unit in detect.units(tmp_path) for key, _ in unit.images] == usable


def test_made_is_a_sequence() -> None:
    asked: list[int] = []

    def square(number: int) -> int:
        asked.append(number)
        return number * number

    made = Made(5, square)
    assert (len(made), made[1], made[-1], made[1:4], list(made)) == (5, 1, 16, [1, 4, 9], [0, 1, 4, 9, 16])
    assert asked == [1, 4, 1, 2, 3, 0, 1, 2, 3, 4]
    with pytest.raises(IndexError):
        made[5]


def test_no_image_is_no_unit(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_table(run.images, table_of(IMAGES, ()))
    write_table(run.detections, table_of(DETECTIONS, ()))
    extract = Extract(run, ExtractSettings(device="cpu", precision="fp32"), DetectSettings().objects)
    assert list(extract.images()) == []
    assert list(planned_units([(extract, set())], extract.images())) == []
