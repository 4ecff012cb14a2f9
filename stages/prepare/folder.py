"""The image folder: which file a name refers to, and a digest of each file.

Only files that may have changed are read again.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from pathlib import Path, PureWindowsPath
from typing import TypeVar

import pyarrow as pa

from ...manifests.errors import StageError
from ...manifests.fingerprint import SETTLING_NS, digest_file, is_settled
from ...manifests.tables import read_table, table_of, write_table
from ..base.ahead import in_threads
from ..base.tools import Tools
from ..vision.images import UnusableImage

__all__ = ["Found", "ImageFolder"]

Item = TypeVar("Item")
Result = TypeVar("Result")

# MNRE has one folder of images per split; the sample's own split is tried first, then the others in this
# order.
_SPLIT_FOLDERS = {"train": ("train",), "valid": ("valid", "val", "dev"), "test": ("test",)}

# The digests known from before: one row per file, `file` relative to the image folder, times in nanoseconds.
_KNOWN = pa.schema(
    [
        (name, pa.string() if name in ("file", "key") else pa.int64())
        for name in ("file", "size", "mtime", "ctime", "key")
    ]
)


@dataclass(frozen=True)
class Found:
    """What an image name led to: a file and the sha256 of its bytes, or the `reason` why there is none."""

    path: Path | None = None
    key: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _Stamp:
    """What identifies an unchanged file.

    The time of the last change of status is included: unlike mtime, `touch` and `cp -p` cannot set it.
    """

    size: int
    mtime: int
    ctime: int


@dataclass(frozen=True)
class ImageFolder:
    """The images below `path`.

    known: the file that keeps digests between runs; without it every file is read again.
    read: reads a file and returns the sha256 of its bytes; called once for each file that is new or may have
    changed.
    """

    path: Path
    known: Path
    read: Callable[[Path], str] = digest_file
    settling_ns: int = SETTLING_NS

    def look_up(self, names: Iterable[tuple[str, str]], tools: Tools) -> dict[tuple[str, str], Found]:
        """Return what each (split, name) leads to.

        Reads every file that is new or may have changed since `known` was written.
        """
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
        """Return the file that `name` refers to in `split`.

        Raises UnusableImage where there is no such file or the name leads out of the folder.
        """
        # Splits at both \ and / and knows drives: a name that it finds harmless is harmless on every system.
        windows = PureWindowsPath(name)
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
        known = self._load()
        found: dict[Path, Found] = {}
        settled: dict[str, tuple[_Stamp, str]] = {}
        bar = tools.bar(len(paths), "looking up images", "image")
        for path, image, stamp in in_threads(lambda path: self._digest(path, known), paths):
            bar.update()
            found[path] = image
            if stamp is not None and image.key is not None:
                settled[self._relative(path)] = stamp, image.key
        bar.close()
        if settled != known:
            self._save(settled)
        return found

    def _digest(self, path: Path, known: dict[str, tuple[_Stamp, str]]) -> tuple[Path, Found, _Stamp | None]:
        """Return the file's digest and, if that is safe, the stamp by which to recognise the file later."""
        try:
            now = time.time_ns()
            status = path.stat()
            stamp = _Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            known_stamp, key = known.get(self._relative(path), (None, ""))
            if known_stamp != stamp:
                key = self.read(path)
        except OSError as error:
            return path, Found(reason=f"cannot be read: {error.strerror}"), None
        return path, Found(path, key), stamp if is_settled(status, now, self.settling_ns) else None

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    def _load(self) -> dict[str, tuple[_Stamp, str]]:
        try:
            rows = read_table(self.known, _KNOWN).to_pylist()
        except StageError:  # it does not exist yet or is damaged, and only saves time
            return {}
        return {row["file"]: (_Stamp(row["size"], row["mtime"], row["ctime"]), row["key"]) for row in rows}

    def _save(self, settled: dict[str, tuple[_Stamp, str]]) -> None:
        if not self.known.parent.is_dir():  # inspecting a run that does not exist must not create it
            return
        rows = [
            dict(zip(_KNOWN.names, (file, *astuple(stamp), key), strict=True))
            for file, (stamp, key) in sorted(settled.items())
        ]
        try:
            write_table(self.known, table_of(_KNOWN, rows))
        except OSError:  # a read-only run can still be checked
            return
