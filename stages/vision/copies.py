"""Images of tar files, tables or an address, copied into a folder under the names that texts have for them.

    shards/*.tar                    as webdataset and img2dataset write them, also compressed
    data/*.parquet                  the column "image" of datasets of Hugging Face, with its bytes
    s3://bucket/images              any address of fsspec; its package for the kind of address must be there

Only images that are named are copied, and none that is there already: a copy that was killed goes on where it
was. What fails is tried again by the next copy.
"""

import glob
import hashlib
import json
import re
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...manifests.errors import InputError, in_one_line
from ...manifests.files import atomic_path, make_folder, read_text
from ..base.ahead import in_threads
from ..base.tools import Tools
from .addresses import ends_of_address, is_address
from .folder import ImageFolder, image_suffixes, plain_name, split_folders
from .images import UnusableImage

__all__ = ["copy_images", "embedded_name", "failed_copies", "is_source"]

_FILES = re.compile(r"\.(tar|tgz|parquet)[^/]*$")
_FAILED = "failed.json"
# Seconds before each further try of an address.
_WAITS = (0.5, 2.0)
# The most bytes of an image.
_MOST = 1 << 28


def is_source(images: str) -> bool:
    """Return whether images have to be copied from here, and do not lie in a folder."""
    return "://" in images or (_FILES.search(images) is not None and not Path(images).is_dir())


def failed_copies(folder: Path) -> dict[str, str]:
    """Return the reason for each name whose image could not be copied into a folder, when last tried."""
    try:
        found = json.loads(read_text(folder / _FAILED))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: reason for name, reason in found.items() if isinstance(reason, str)}


def copy_images(source: str, folder: Path, names: Iterable[str], tools: Tools) -> int:
    """Copy the images of these names into a folder, and return how many were copied.

    What failed is what `failed_copies` returns. Raises InputError where the source is not there or cannot be
    opened at all.
    """
    make_folder(folder)
    wanted = sorted(set(names))
    failed: dict[str, str] = {}
    copied = 0
    copies = _from_address(source, folder, wanted) if "://" in source else _from_files(source, folder, wanted)
    bar = tools.bar(0 if "://" not in source else len(wanted), "copying images", "image")
    for name, reason in copies:
        if reason:
            failed[name] = reason
        copied += reason == ""
        bar.update()
    bar.close()
    with atomic_path(folder / _FAILED) as temporary:
        temporary.write_text(json.dumps(failed, indent=1), encoding="utf-8")
    return copied


def embedded_name(image: Mapping[str, Any]) -> str | None:
    """Return the name of an image in a row of a dataset: its path, or one that its bytes give it."""
    path, content = image.get("path"), image.get("bytes")
    if content is None:
        return path
    return PurePosixPath(path).name if path else hashlib.sha256(content).hexdigest()[:24]


def _from_files(pattern: str, folder: Path, wanted: list[str]) -> Iterator[tuple[str, str | None]]:
    """Copy each wanted member under its path, and yield it with why it failed.

    That is "" where it was copied, and None where it was there.
    """
    # Path.glob takes no absolute pattern, and a file may be called like one: "[2015].tar".
    files = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    if not files:
        if wanted and all(_is_there(folder, name) for name in wanted):
            return  # tar files are often removed once their images are copied
        raise InputError(f"no file is called {pattern}; check the path, and quote a pattern for the shell")
    named = {_plain(PurePosixPath(end).parts): name for name in wanted for end in _ends(name)}
    origins: dict[Path, str] = {}
    for file in files:
        try:
            if file.endswith(".parquet"):
                yield from _from_table(file, folder, {*wanted})
                continue
            with tarfile.open(file) as archive:
                for member in archive:
                    path = PurePosixPath(member.name)
                    is_image = member.isfile() and path.suffix.lower() in image_suffixes
                    if is_image and (found := _place(path, named)):
                        name, place = found
                        yield name, _member(archive, member, folder / place, origins)
        except (OSError, tarfile.TarError, EOFError, pa.ArrowException) as error:
            raise InputError(f"{file} cannot be read ({in_one_line(error)}); copy it again") from error


def _is_there(folder: Path, name: str) -> bool:
    try:
        ImageFolder(folder, folder / _FAILED).locate(name)
    except UnusableImage:
        return False
    return True


def _from_table(file: str, folder: Path, wanted: set[str]) -> Iterator[tuple[str, str | None]]:
    """Copy the wanted images of a table; yield as `_from_files` does."""
    with pq.ParquetFile(file) as table:
        if "image" not in table.schema_arrow.names:
            raise InputError(f"{file} has no column 'image'; name files that have one")
        for batch in table.iter_batches(batch_size=64, columns=["image"]):
            for image in batch.column("image").to_pylist():
                if (
                    isinstance(image, dict)
                    and image.get("bytes")
                    and (name := embedded_name(image)) in wanted
                ):
                    target = folder / str(name)
                    there = target.is_file() and target.stat().st_size == len(image["bytes"])
                    if not there:
                        _keep(target, image["bytes"])
                    yield str(name), None if there else ""


def _ends(name: str) -> list[str]:
    """Return what an image may be called at a source, in the order in which it is looked for."""
    return ends_of_address(name) if is_address(name) else [name]


def _plain(parts: tuple[str, ...]) -> tuple[str, ...]:
    return (*parts[:-1], *map(plain_name, parts[-1:]))


def _place(member: PurePosixPath, named: Mapping[tuple[str, ...], str]) -> tuple[str, PurePosixPath] | None:
    """Return what the texts call a member, and where the image folder finds it so; None: no text names it.

    That is the end of its path that they name, below the folder of a split where it lies in one. Folders
    above, such as the one that was packed, are left. named: the names in texts by their plain parts.
    """
    parts = member.parts
    for start in range(len(parts)):
        if (name := named.get(_plain(parts[start:]))) is not None:
            split = [part for part in parts[max(start - 1, 0) : start] if part in split_folders]
            return name, PurePosixPath(*split, *parts[start:])
    return None


def _member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, origins: dict[Path, str]
) -> str | None:
    """Copy a member, and return why it failed as `_from_files` does. origins: which member each file was."""
    if ".." in PurePosixPath(member.name).parts or member.name.startswith("/"):
        return "its name leads out of the tar file"
    if (other := origins.setdefault(target, member.name)) != member.name:
        # Nobody knows which of them is meant, and a wrong image is worse than none.
        target.unlink(missing_ok=True)
        return f"both {other} and {member.name} are called so; name their folders in the texts too"
    if member.size > _MOST:
        return f"it is larger than {_MOST >> 20} MB"
    if target.is_file() and target.stat().st_size == member.size:
        return None
    content = archive.extractfile(member)
    assert content is not None  # a regular file
    _keep(target, content.read())
    return ""


def _from_address(source: str, folder: Path, wanted: list[str]) -> Iterator[tuple[str, str | None]]:
    """Copy each wanted name below an address, a few at a time; yield as `_from_files` does."""
    system, root = _opened(source)

    def copy(name: str) -> tuple[str, str | None]:
        missing = f"not at {source}"
        for end in _ends(name):
            if (reason := fetch(end)) != missing:
                return name, reason
        return name, missing

    def fetch(name: str) -> str | None:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or name.startswith("/"):
            return "the name leads out of the image folder"
        target = folder.joinpath(*parts)
        if target.is_file():
            return None
        for wait in (*_WAITS, None):
            try:
                _keep(target, system.cat_file(f"{root.rstrip('/')}/{name}"))
            except FileNotFoundError:
                return f"not at {source}"
            except Exception as error:  # of whatever package reads such addresses
                if wait is None:
                    return f"could not be copied ({in_one_line(error)[:200]})"
                time.sleep(wait)
            else:
                return ""
        raise AssertionError("the last try returns")

    yield from in_threads(copy, wanted)


def _opened(source: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        system, root = url_to_fs(source)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{source} cannot be opened ({in_one_line(error)}); install the package for such addresses, "
            "or copy the images and name their folder"
        ) from error
    return system, str(root)


def _keep(target: Path, content: bytes) -> None:
    make_folder(target.parent)
    with atomic_path(target, durable=False) as temporary:
        temporary.write_bytes(content)
