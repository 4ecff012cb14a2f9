"""The image folder: which file a name means, and the content digest of each, without reading again what has not changed."""

import time
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path, PureWindowsPath
from typing import TypeVar

import pyarrow as pa

from ...manifests.errors import StageError
from ...manifests.fingerprint import digest_file
from ...manifests.tables import read_table, table_of, write_table
from ..base.ahead import in_threads
from ..base.tools import Tools
from ..vision.images import UnusableImage

__all__ = ["Found", "ImageFolder"]

Item = TypeVar("Item")
Result = TypeVar("Result")

# MNRE keeps one folder of images per split; the sample's own split is looked at first, the others in this order.
_SPLIT_FOLDERS = {"train": ("train",), "valid": ("valid", "val", "dev"), "test": ("test",)}

# The digests of files seen before: one row per file, `file` relative to the image folder, times in nanoseconds.
_SEEN = pa.schema(
    [
        (name, pa.string() if name in ("file", "key") else pa.int64())
        for name in ("file", "size", "mtime", "ctime", "key")
    ]
)

# A file written within this time before it was read may be written once more without a change of its times, whose ticks are coarse.
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class Found:
    """What an image name led to: a file and the sha256 of its bytes, or the `reason` why there is none."""

    path: Path | None = None
    key: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _Stamp:
    """What tells an unchanged file. The time of the last change of status counts too: unlike mtime, `touch` and `cp -p` cannot set it."""

    size: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, path: Path) -> "_Stamp":
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True)
class ImageFolder:
    """The images below `path`. `seen` is the file that remembers digests between runs; without it all files are read again."""

    path: Path
    seen: Path

    def look_up(self, names: Iterable[tuple[str, str]], tools: Tools) -> dict[tuple[str, str], Found]:
        """What each (split, name) leads to. Reads every file that is new or may have changed since `seen` was written."""
        found: dict[tuple[str, str], Found] = {}
        paths: dict[tuple[str, str], Path] = {}
        for split, name in sorted(set(names)):
            try:
                paths[split, name] = self._locate(split, name)
            except UnusableImage as error:
                found[split, name] = Found(reason=str(error))
        keys = self._digests(sorted(set(paths.values())), tools)
        return found | {wanted: keys[path] for wanted, path in paths.items()}

    def _locate(self, split: str, name: str) -> Path:
        """The file that `name` means in `split`. Raises UnusableImage where there is none or where the name leads out of the folder."""
        windows = PureWindowsPath(
            name
        )  # parts at \ and at /, and knows drives: what it finds harmless is so on every system
        if "\0" in name or windows.anchor or ".." in windows.parts:
            raise UnusableImage("the name leads out of the image folder")
        others = [folder for other, folders in _SPLIT_FOLDERS.items() if other != split for folder in folders]
        try:
            for folder in ("", *_SPLIT_FOLDERS[split], *others):
                if (path := self.path / folder / name).is_file():
                    return path
        except OSError as error:
            raise UnusableImage(f"cannot be read: {error.strerror}") from error
        raise UnusableImage("not in the image folder")

    def _digests(self, paths: list[Path], tools: Tools) -> dict[Path, Found]:
        seen = self._load()
        found: dict[Path, Found] = {}
        settled: dict[str, tuple[_Stamp, str]] = {}
        bar = tools.bar(len(paths), "looking up images", "image")
        for path, image, stamp in in_threads(lambda path: self._digest(path, seen), paths):
            bar.update()
            found[path] = image
            if stamp is not None and image.key is not None:
                settled[self._relative(path)] = stamp, image.key
        bar.close()
        if settled != seen:
            self._save(settled)
        return found

    def _digest(self, path: Path, seen: dict[str, tuple[_Stamp, str]]) -> tuple[Path, Found, _Stamp | None]:
        """The digest of one file, and the stamp by which it may be known again, if that is safe."""
        try:
            now = time.time_ns()
            stamp = _Stamp.of(path)
            stamp_seen, key = seen.get(self._relative(path), (None, ""))
            if stamp_seen != stamp:
                key = digest_file(path)
        except OSError as error:
            return path, Found(reason=f"cannot be read: {error.strerror}"), None
        return path, Found(path, key), stamp if now - max(stamp.mtime, stamp.ctime) > _SETTLED_NS else None

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    def _load(self) -> dict[str, tuple[_Stamp, str]]:
        try:
            rows = read_table(self.seen, _SEEN).to_pylist()
        except StageError:  # not there yet, or damaged: it only saves time
            return {}
        return {row["file"]: (_Stamp(row["size"], row["mtime"], row["ctime"]), row["key"]) for row in rows}

    def _save(self, settled: dict[str, tuple[_Stamp, str]]) -> None:
        if not self.seen.parent.is_dir():  # a look at a run that does not exist must not create it
            return
        rows = [
            dict(zip(_SEEN.names, (file, *astuple(stamp), key), strict=True))
            for file, (stamp, key) in sorted(settled.items())
        ]
        try:
            write_table(self.seen, table_of(_SEEN, rows))
        except OSError:  # a run that may only be read can still be checked
            return
