"""Images of tar files and at addresses come into the run once, and what cannot be copied is a row."""

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import IMAGES, PROBLEMS, SAMPLES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.pipeline.run.new import prepare_config, prepare_run
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.vision import copies
from hmnet_pipe.stages.vision.copies import copy_images, failed_copies
from PIL import Image

from ...spoilers import SPOILERS


def picture(shade: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (9, 9), (shade, 0, 0)).save(content, "PNG")
    return content.getvalue()


def tar(path: Path, **members: bytes) -> None:
    """Write a tar file with NAME.png for `NAME=...`, and the other files that img2dataset writes."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            for suffix, data in ((".png", content), (".json", b"{}"), (".txt", b"a caption")):
                entry = tarfile.TarInfo(f"./{name.replace('__', '/')}{suffix}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))


def texts(place: Path, *names: str) -> Path:
    folder = place / "texts"
    folder.mkdir(exist_ok=True)
    (folder / "train.txt").write_text("".join(f"IMGID:{name}\nAda\tB-PER\n\n" for name in names))
    return folder


def prepared(place: Path, source: str, *names: str) -> tuple[RunFolder, dict[str, Any], dict[str, str]]:
    """Return the run, the paths of its images by the samples' names, and its problems by samples."""
    run = RunFolder(place / "run")
    folder = texts(place, *names)
    prepare_run(run, prepare_config(run, "custom", "ner", folder, source, "auto"), Tools())
    paths = {row["key"]: row["path"] for row in read_table(run.images, IMAGES).to_pylist()}
    found = {
        row["image"]: paths[row["image_key"]]
        for row in read_table(run.samples, SAMPLES).to_pylist()
        if row["image_key"]
    }
    problems = {row["sample"]: row["reason"] for row in read_table(run.problems, PROBLEMS).to_pylist()}
    return run, found, problems


def test_images_of_tar_files_are_found_as_if_they_were_unpacked(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    tar(tmp_path / "shards/00000.tar", **{"1": picture(1), "unnamed": picture(9)})
    tar(tmp_path / "shards/00001.tar.gz", train__2=picture(2))
    run, found, problems = prepared(tmp_path, str(tmp_path / "shards/*.tar*"), "1", "2", "3")
    pictures = run.path / "pictures"
    assert found == {"1.jpg": str(pictures / "1.png"), "2.jpg": str(pictures / "train/2.png")}
    assert problems == {"3": "not in the image folder"}
    assert {path.name for path in pictures.rglob("*.*")} == {"1.png", "2.png", "failed.json"}


def test_the_folder_that_was_packed_is_left_and_two_images_of_one_name_are_none(tmp_path: Path) -> None:
    """Names that texts give with folders are found with them, and those of splits stay."""
    tar(
        tmp_path / "[all] of it.tar",
        **{"my__pictures__1": picture(1), "my__train__2": picture(2), "x__cats__3": picture(3)},
        **{"a__4": picture(4), "b__4": picture(5), "dogs__3": picture(6)},
    )
    source = str(tmp_path / "[all] of it.tar")
    run, found, problems = prepared(tmp_path, source, "1", "2", "cats/3", "4")
    pictures = run.path / "pictures"
    assert found == {
        "1.jpg": str(pictures / "1.png"),
        "2.jpg": str(pictures / "train/2.png"),
        "cats/3.jpg": str(pictures / "cats/3.png"),
    }
    assert problems == {
        "4": "both ./a/4.png and ./b/4.png are called so; name their folders in the texts too"
    }


def test_a_source_may_go_once_all_is_copied_and_another_one_needs_the_texts(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", **{"all__train__1": picture(1)})
    run, found, _ = prepared(tmp_path, str(tmp_path / "a.tar"), "1")
    (tmp_path / "a.tar").unlink()
    prepare_run(run, prepare_config(run, "custom", None, None, None, "auto"), Tools())
    assert prepared(tmp_path, str(tmp_path / "a.tar"), "1")[1] == found
    with pytest.raises(InputError, match=r"no file is called .*a\.tar"):
        prepared(tmp_path, str(tmp_path / "a.tar"), "1", "2")
    with pytest.raises(InputError, match="--images of a run that is there needs --text FOLDER"):
        prepare_config(run, "custom", None, None, tmp_path, "auto")


def test_where_no_image_could_be_copied_the_source_is_named_with_the_first_reason(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", other=picture(1))
    said: list[str] = []
    run, folder, source = RunFolder(tmp_path / "run"), texts(tmp_path, "1"), str(tmp_path / "a.tar")
    tools = Tools(say=said.append)
    prepare_run(run, prepare_config(run, "custom", "ner", folder, source, "auto"), tools)
    wanted = f"usable from {source}; is it the right source? The first is 1.jpg: not in the image folder"
    assert any(line.endswith(wanted) for line in said)


def test_images_within_a_dataset_are_copied_out_of_it(tmp_path: Path) -> None:
    rows = [
        {"tokens": ["Ada"], "tags": ["B-PER"], "image": {"bytes": picture(shade), "path": path}}
        for shade, path in ((1, "a.png"), (2, None))
    ]
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data/train.parquet")
    run = RunFolder(tmp_path / "run")
    source = str(tmp_path / "data/*.parquet")
    prepare_run(run, prepare_config(run, "custom", "ner", tmp_path / "data", source, "auto"), Tools())
    assert read_table(run.problems, PROBLEMS).num_rows == 0
    keys = read_table(run.samples, SAMPLES).column("image_key").to_pylist()
    assert set(keys) == {hashlib.sha256(picture(shade)).hexdigest() for shade in (1, 2)}


def test_a_copy_that_is_there_is_not_copied_again(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", **{"1": picture(1), "2": picture(2)})
    folder = tmp_path / "pictures"
    assert copy_images(str(tmp_path / "a.tar"), folder, ["1.jpg"], Tools()) == 1
    before = (folder / "1.png").stat().st_mtime_ns
    assert copy_images(str(tmp_path / "a.tar"), folder, ["1.jpg", "2.jpg"], Tools()) == 1
    assert (folder / "1.png").stat().st_mtime_ns == before


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_a_spoilt_list_of_failures_is_none(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    path = tmp_path / "failed.json"
    path.write_text('{"1.jpg": "why"}')
    assert failed_copies(tmp_path) == {"1.jpg": "why"}
    spoil(path)
    assert failed_copies(tmp_path) in ({}, {"1.jpg": "why"})


def test_members_that_lead_out_are_not_copied(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", **{"..__1": picture(1)})
    folder = tmp_path / "place" / "pictures"
    assert copy_images(str(tmp_path / "a.tar"), folder, ["1.jpg"], Tools()) == 0
    assert not (tmp_path / "place/1.png").exists()
    assert list(failed_copies(folder).values()) == ["its name leads out of the tar file"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/*.tar", "no file is called nowhere"),
        ("broken.tar", "broken.tar cannot be read"),
        ("nosuch://bucket", "install the package for such addresses"),
    ],
)
def test_a_source_that_cannot_be_opened_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.tar").write_bytes(b"no tar file" * 99)
    with pytest.raises(InputError, match=message):
        copy_images(source, tmp_path / "pictures", ["1.jpg"], Tools())


def test_images_at_an_address_are_copied_and_each_failure_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the network is tried again, a few times, and by the next prepare."""
    system = fsspec.filesystem("memory")
    for name, content in (("1.jpg", picture(1)), ("2.jpg", picture(2)), ("4.jpg", picture(4))):
        system.pipe_file(f"/pictures-of-a-test/{name}", content)
    original, tries = type(system).cat_file, {"2.jpg": 1, "4.jpg": 9}

    def cat_file(self: Any, path: str, *rest: Any, **more: Any) -> bytes:
        name = path.rsplit("/", 1)[-1]
        if tries.get(name, 0):
            tries[name] -= 1
            raise ConnectionError("the line is down\nfor now")
        content: bytes = original(self, path, *rest, **more)
        return content

    monkeypatch.setattr(type(system), "cat_file", cat_file)
    monkeypatch.setattr(copies, "_WAITS", (0.0, 0.0))
    address = "memory://pictures-of-a-test"
    run, found, problems = prepared(tmp_path, address, "1", "2", "3", "4")
    assert set(found) == {"1.jpg", "2.jpg"}
    assert problems["3"] == f"not at {address}"
    assert problems["4"].startswith("could not be copied (")
    assert "\n" not in problems["4"]
    assert tries == {"2.jpg": 0, "4.jpg": 6}
    tries["4.jpg"] = 0
    assert set(prepared(tmp_path, address, "1", "2", "3", "4")[1]) == {"1.jpg", "2.jpg", "4.jpg"}
    assert (run.path / "pictures/1.jpg").read_bytes() == picture(1)
