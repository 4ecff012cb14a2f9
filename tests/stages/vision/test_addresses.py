"""Images that texts name by addresses, as Label Studio writes them, are found in a folder, or are a row."""

import io
import tarfile
from pathlib import Path

import pytest
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.vision.copies import copy_images, failed_copies
from hmnet_pipe.stages.vision.folder import Found, ImageFolder


def found(folder: Path, *names: str) -> list[Found]:
    held = ImageFolder(folder, folder / "known.parquet").look_up([("train", name) for name in names], SILENT)
    return [held["train", name] for name in names]


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("/data/upload/3/ab12cd34-ada.jpg", "ada.jpg"),
        ("/data/upload/3/ab12cd34-ada.jpg", "ab12cd34-ada.jpg"),
        ("/data/upload/3/ab12cd34-ada.jpg", "upload/3/ab12cd34-ada.jpg"),
        ("https://labels.example.org/data/upload/3/ab12cd34-ada.jpg", "ada.jpg"),
        ("/data/upload/3/ab12cd34-ada_at_work_1.jpg", "ada at work (1).jpg"),
        ("/data/upload/3/ab12cd34-Z%C3%BCrich.jpg", "Z\u00fcrich.jpg"),
        ("/data/upload/3/ab12cd34-ada.jpg", "train/ada.png"),
        ("/data/local-files/?d=home%2Fpictures%2Fada.jpg", "pictures/ada.jpg"),
        ("s3://bucket/2024/ada.jpg", "2024/ada.jpg"),
        ("gs://bucket/2024/ada.jpg", "ada.jpg"),
        ("https://example.org/2024/ada.jpg?sign=a/b", "ada.jpg"),
    ],
)
def test_an_address_refers_to_the_file_with_the_longest_end_of_it(
    tmp_path: Path, address: str, file: str
) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"wanted")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "ada.jpg").write_bytes(b"not wanted")
    (one,) = found(tmp_path, address)
    assert one.path == tmp_path / file


@pytest.mark.parametrize(
    "address",
    [
        "ab12cd34-ada.jpg",  # no upload: eight digits and a dash may be anybody's
        "/data/upload/3/ab12cd3-ada.jpg",
        "/data/upload/3/AB12CD34-ada.jpg",
        "https://example.org/ab12cd34-ada.jpg",
        "s3://bucket/ada.gif/..",
        "http://[",
    ],
)
def test_what_is_no_upload_keeps_its_name(tmp_path: Path, address: str) -> None:
    (tmp_path / "ada.jpg").write_bytes(b"1")
    (one,) = found(tmp_path, address)
    assert one.path is None
    assert one.reason


def test_a_file_that_several_addresses_may_refer_to_is_of_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "ada.jpg").write_bytes(b"1")
    uploads = [f"/data/upload/3/{digits}-ada.jpg" for digits in ("ab12cd34", "ab12cd35")]
    both = found(tmp_path, *uploads)
    assert {one.reason for one in both} == {
        f"ada.jpg may be any of {', '.join(uploads)}; give each a file, called as it ends"
    }
    (tmp_path / "ab12cd34-ada.jpg").write_bytes(b"2")
    assert [one.path and one.path.name for one in found(tmp_path, *uploads)] == [
        "ab12cd34-ada.jpg",
        "ada.jpg",
    ]
    signed = [f"s3://bucket/ada.jpg?sign={number}" for number in range(2)]
    assert {one.path for one in found(tmp_path, *signed)} == {tmp_path / "ada.jpg"}


def test_an_upload_of_either_of_two_files_is_of_none(tmp_path: Path) -> None:
    for name in ("my ada!.jpg", "my_ada?.jpg"):
        (tmp_path / name).write_bytes(b"1")
    (one,) = found(tmp_path, "/data/upload/3/ab12cd34-my_ada.jpg")
    assert one.reason == "an upload of either my ada!.jpg or my_ada?.jpg; rename all but one"


@pytest.mark.parametrize("kind", ["tar", "address"])
def test_images_of_addresses_are_copied(tmp_path: Path, kind: str) -> None:
    names = ["/data/upload/3/ab12cd34-ada.jpg", "s3://bucket/2024/alan.jpg", "s3://bucket/grace.jpg"]
    there = tmp_path / "there"
    there.mkdir()
    source = there.as_uri()
    if kind == "tar":
        source = str(tmp_path / "images.tar")
        with tarfile.open(source, "w") as archive:
            for name in ("pictures/ada.jpg", "pictures/alan.jpg"):
                member = tarfile.TarInfo(name)
                member.size = 1
                archive.addfile(member, io.BytesIO(b"1"))
    else:
        for name in ("ada.jpg", "alan.jpg"):
            (there / name).write_bytes(b"1")
    folder = tmp_path / "copies"
    assert copy_images(source, folder, names, SILENT) == 2
    assert [one.path and one.path.name for one in found(folder, *names)] == ["ada.jpg", "alan.jpg", None]
    assert failed_copies(folder) == ({} if kind == "tar" else {names[2]: f"not at {source}"})
