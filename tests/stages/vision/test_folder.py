"""The image folder: names that are looked up quickly lead where the careful look leads."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.vision import folder as image_folder
from hmnet_pipe.stages.vision.folder import ImageFolder
from hmnet_pipe.stages.vision.images import UnusableImage

NAMES = [
    *("a.jpg", "b/c.jpg", "./a.jpg", "b/./c.jpg", "b//c.jpg", "x..y.jpg", ".hidden.jpg", "b", "b/"),
    *("../outside.jpg", "b/../../outside.jpg", "..", ".", "", "b\\c.jpg", "C:a.jpg", "C:/a.jpg", "a\0.jpg"),
    *("inside.jpg", "only-here.jpg", "a.jpeg", "n" * 300),
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "images"
    for name in ("a.jpg", "b/c.jpg", "x..y.jpg", ".hidden.jpg", "test/inside.jpg", "train/only-here.jpg"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(name.encode())
    (place / "b\\c.jpg").write_bytes(b"")
    (place / "C:a.jpg").write_bytes(b"")
    (tmp_path / "outside.jpg").write_bytes(b"")
    return place


@pytest.mark.parametrize("name", NAMES)
def test_a_harmless_name_leads_where_any_name_is_looked_for(
    place: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = ImageFolder(place, place.parent / "known.parquet")

    def located() -> tuple[Path, bool] | str:
        try:
            return images.locate(name)
        except UnusableImage as error:
            return str(error)

    quickly = located()
    monkeypatch.setattr(image_folder, "_HARMLESS", re.compile("(?!)"))
    assert quickly == located()


def test_files_that_are_read_in_parts_are_each_recognised_by_their_names_later(tmp_path: Path) -> None:
    place = tmp_path / "images"
    names = [f"{number % 3}/{number}.jpg" for number in range(100)]
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(name.encode())
    read: list[Path] = []

    def keys_of(paths: Sequence[Path]) -> Iterator[str]:
        read.extend(paths)
        return (path.name for path in paths)

    images = ImageFolder(place, tmp_path / "known.parquet", keys_of, settling_ns=0)
    found = images.look_up([("test", name) for name in names], SILENT)
    assert {name: image.key for (_, name), image in found.items()} == {
        name: name.partition("/")[2] for name in names
    }
    assert len(read) == len(names)
    assert images.look_up([("test", name) for name in names], SILENT) == found
    assert len(read) == len(names)
