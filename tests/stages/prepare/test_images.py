"""What prepare learns of images: the same by threads and by processes, and each content once."""

from pathlib import Path

import pytest
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.prepare import images
from hmnet_pipe.stages.prepare.images import Inspected
from hmnet_pipe.stages.vision.folder import Found
from PIL import Image


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Return files for several parts: images, two that are damaged, one that is not there."""
    paths = []
    for number in range(80):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (number % 7 + 1, 2), (number % 5, 0, 0)).save(paths[-1])
    paths[3].write_bytes(b"no image")
    paths[50].write_bytes(paths[0].read_bytes()[:40])
    paths[60].unlink()
    return paths


def test_processes_learn_of_images_what_threads_do(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def learned() -> tuple[list[str], list[dict[str, object]]]:
        inspected = Inspected()
        keys = list(inspected.read(files))
        found = [Found(path, key) for path, key in zip(files, keys, strict=True) if isinstance(key, str)]
        assert inspected.rows.keys() == {image.key for image in found}  # no file is read twice
        return [str(key) for key in keys], inspected.table(found, SILENT)

    by_threads = learned()
    monkeypatch.setattr(images, "MANY_FILES", 2)
    monkeypatch.setattr(images, "_IN_A_PART", 32)
    monkeypatch.setattr(images, "usable_cores", lambda: 2)
    monkeypatch.setattr(Inspected, "_key", None)  # in this process: it is to be done in another
    assert learned() == by_threads
    keys, rows = by_threads
    assert keys[60].startswith("[Errno 2]")
    assert {row["status"] for row in rows if row["key"] in (keys[3], keys[50])} == {"unreadable"}
    assert len(rows) == len(set(keys)) - 1 < len(files) - 3


def test_a_content_that_is_known_or_was_met_is_not_decoded(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []

    def row(path: Path, data: bytes, key: str) -> dict[str, object]:
        decoded.append(key)
        return {"key": key, "path": str(path), "status": "ok"}

    monkeypatch.setattr(images, "image_row", row)
    first = [key for key in Inspected().read(files) if isinstance(key, str)]
    assert sorted(decoded) == sorted(set(first))
    known = {key: {"key": key, "path": "", "status": "ok"} for key in decoded[:10]}
    decoded.clear()
    monkeypatch.setattr(images, "MANY_FILES", 2)  # processes do not know what is known
    list(Inspected(known).read(files))
    assert sorted(decoded) == sorted(set(first) - known.keys())
