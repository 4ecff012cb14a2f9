"""The image folder: which file a name refers to, a digest of each file, and its row of IMAGES.

Only files that may have changed are read again.
"""

import hashlib
import os
import re
import stat
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import pyarrow as pa

from ...manifests.errors import StageError
from ...manifests.fingerprint import SETTLING_NS, digest_file, is_settled
from ...manifests.tables import read_table, table_of, write_table
from ..base.ahead import in_threads
from ..base.tools import Tools
from .addresses import as_uploaded, ends_of_address, is_address, name_before_upload
from .images import UnusableImage, image_from_bytes

__all__ = [
    "FILES_AT_ONCE",
    "Found",
    "ImageFolder",
    "digest_or_fault",
    "image_names",
    "image_row",
    "image_suffixes",
    "plain_name",
    "split_folders",
    "unreadable_row",
]

# MNRE has one folder of images per split; the sample's own split is tried first, then the others in this
# order.
_SPLIT_FOLDERS = {"train": ("train",), "valid": ("valid", "val", "dev"), "test": ("test",)}

split_folders = {folder for folders in _SPLIT_FOLDERS.values() for folder in folders}

# What the name of an image may end in. Only these are exchanged for one another.
image_suffixes = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp"),
    *(".tif", ".tiff", ".avif", ".jp2", ".heic", ".heif"),
)

# Names that lead nowhere but into the folder, on every system.
_HARMLESS = re.compile(r"(?!\.\.?(/|$))[^\\/:\0]+(/(?!\.\.?(/|$))[^\\/:\0]+)*")

FILES_AT_ONCE = 32
"""Files that a thread takes at a time: to hand over each would take as long as to read it."""

# The digests known from before: one row per file, `file` relative to the image folder, times in nanoseconds.
_KNOWN = pa.schema(
    [
        (name, pa.string() if name in ("file", "key") else pa.int64())
        for name in ("file", "size", "mtime", "ctime", "key")
    ]
)


@dataclass(frozen=True)
class Found:
    """What an image name led to: a file and the sha256 of its bytes, or the `reason` why there is none.

    renamed: whether the file has another name, with another suffix or accents composed otherwise.
    """

    path: Path | None = None
    key: str | None = None
    reason: str | None = None
    renamed: bool = False


class _Stamp(NamedTuple):
    """What identifies an unchanged file.

    The time of the last change of status is included: unlike mtime, `touch` and `cp -p` cannot set it.
    """

    size: int
    mtime: int
    ctime: int


def _digests_of(paths: Sequence[Path]) -> Iterator[str | OSError]:
    return in_threads(digest_or_fault, paths, at_once=FILES_AT_ONCE)


def digest_or_fault(path: Path) -> str | OSError:
    """Return the sha256 of a file's bytes, or why it cannot be read."""
    try:
        return digest_file(path)
    except OSError as error:
        return error


@dataclass(frozen=True)
class ImageFolder:
    """The images below `path`.

    known: the file that keeps digests between runs; without it every file is read again.
    read: reads the files that are new or may have changed, and yields the sha256 of each one's bytes, or why
    it cannot be read. reasons: why images of these names are missing, where more is known than that they are.
    """

    path: Path
    known: Path
    read: Callable[[Sequence[Path]], Iterator[str | OSError]] = _digests_of
    settling_ns: int = SETTLING_NS
    reasons: Mapping[str, str] = field(default_factory=dict)
    _listings: dict[Path, dict[str, list[str]]] = field(default_factory=dict, init=False, repr=False)
    _uploaded: dict[Path, dict[str, list[str]]] = field(default_factory=dict, init=False, repr=False)

    def look_up(self, names: Iterable[tuple[str, str]], tools: Tools) -> dict[tuple[str, str], Found]:
        """Return what each (split, name) leads to.

        Reads every file that is new or may have changed since `known` was written.
        """
        self._listings.clear()
        self._uploaded.clear()
        found: dict[tuple[str, str], Found] = {}
        paths: dict[tuple[str, str], tuple[Path, bool]] = {}
        for split, name in sorted(set(names)):
            try:
                paths[split, name] = self.locate(name, split)
            except UnusableImage as error:
                found[split, name] = Found(reason=self.reasons.get(name, str(error)))
        for wanted, reason in _shared(paths):
            found[wanted] = Found(reason=reason)
            del paths[wanted]
        keys = self._digests(sorted({path for path, _ in paths.values()}, key=str), tools)
        for wanted, (path, renamed) in paths.items():
            found[wanted] = replace(keys[path], renamed=True) if renamed else keys[path]
        return found

    def locate(self, name: str, split: str = "test") -> tuple[Path, bool]:
        """Return the file that `name` refers to in `split`, and whether it has another name.

        Another name is taken where exactly one file fits. An address refers to the file with the longest end
        of it. Raises UnusableImage where there is no such file or the name leads out of the folder.
        """
        if is_address(name):
            return self._at_address(name, split)
        # As the first of the places below, in a fifth of the time.
        if _HARMLESS.fullmatch(name) and os.path.isfile(f"{self.path}/{name}"):  # noqa: PTH113
            return self.path / name, False
        if "\0" not in name and Path(name).is_absolute():
            name = self._inside(name)
        # Splits at both \ and / and knows drives: a name that it finds harmless is harmless on every system.
        windows = PureWindowsPath(name)
        if "\0" in name or windows.anchor or ".." in windows.parts:
            raise UnusableImage("the name leads out of the image folder")
        folders = _folders(split)
        try:
            for folder in folders:
                if (path := self.path / folder / name).is_file():
                    return path, False
            for folder in folders:
                place = (self.path / folder / name).parent
                fitting = self._fitting(place, PurePosixPath(name).name)
                if len(fitting) == 1:
                    return place / fitting[0], True
                if fitting:
                    raise UnusableImage(
                        f"not in the image folder, where {' and '.join(fitting[:3])} are; name one of them"
                    )
            for folder in folders:
                if what := _no_file(self.path / folder / name):
                    raise UnusableImage(f"{what}, not an image file")
        except OSError as error:
            raise UnusableImage(f"cannot be read: {error.strerror}") from error
        raise UnusableImage(f"not in the image folder{self._nearest(folders, name)}")

    def _at_address(self, address: str, split: str) -> tuple[Path, bool]:
        """Return the file that an address refers to, as `locate` does."""
        reason = UnusableImage("the address has no path")
        for name in ends_of_address(address):
            try:
                return self.locate(name, split)
            except UnusableImage as error:
                reason = error
        if (before := name_before_upload(address)) is None:
            raise reason
        for place in (self.path / folder for folder in _folders(split)):
            if place not in self._uploaded:
                written: dict[str, list[str]] = {}
                for name in (name for names in self._listing(place).values() for name in names):
                    written.setdefault(as_uploaded(name), []).append(name)
                self._uploaded[place] = written
            fitting = self._uploaded[place].get(before, [])
            if len(fitting) > 1:
                raise UnusableImage(f"an upload of either {' or '.join(fitting[:3])}; rename all but one")
            if fitting:
                return place / fitting[0], True
        raise reason

    def _inside(self, name: str) -> str:
        """Return an absolute path relative to the image folder, or as it is where it lies elsewhere."""
        for folder in (self.path, self.path.resolve()):
            if Path(name).is_relative_to(folder):
                return Path(name).relative_to(folder).as_posix()
        return name

    def _fitting(self, place: Path, name: str) -> list[str]:
        """Return the files in a folder that have this name but for the suffix and the form of accents."""
        return [
            other
            for other in self._listing(place).get(plain_name(name).casefold(), ())
            if plain_name(other) == plain_name(name)
        ]

    def _nearest(self, folders: Iterable[str], name: str) -> str:
        """Return the end of the message for a missing image: a name that differs in case alone, if any."""
        for folder in folders:
            place = (self.path / folder / name).parent
            if near := self._listing(place).get(plain_name(PurePosixPath(name).name).casefold()):
                return f", where {near[0]} is"
        return ""

    def _listing(self, place: Path) -> dict[str, list[str]]:
        """Return the names of the files in a folder, in order, by what may be looked for; read only once."""
        if place not in self._listings:
            names: dict[str, list[str]] = {}
            if place.is_dir():
                for name in sorted(entry.name for entry in os.scandir(place) if Path(entry).is_file()):
                    names.setdefault(plain_name(name).casefold(), []).append(name)
            self._listings[place] = names
        return self._listings[place]

    def _digests(self, paths: list[Path], tools: Tools) -> dict[Path, Found]:
        known = self._load()
        found: dict[Path, Found] = {}
        settled: dict[str, tuple[_Stamp, str]] = {}
        unread: list[tuple[Path, _Stamp | None]] = []
        bar = tools.bar(len(paths), "looking up images", "image")

        def keep(path: Path, stamp: _Stamp | None, key: str | OSError) -> None:
            bar.update()
            if isinstance(key, OSError):
                found[path] = Found(reason=f"cannot be read: {key.strerror}")
                return
            found[path] = Found(path, key)
            if stamp is not None:
                settled[self._relative(path)] = stamp, key

        # A file is read after its stamp was taken, so that one which changes in between is read again later.
        for path, state in zip(paths, in_threads(_state, paths, at_once=FILES_AT_ONCE), strict=True):
            if isinstance(state, OSError):
                keep(path, None, state)
                continue
            now, status = state
            stamp = _Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            is_safe = is_settled(status, now, self.settling_ns)
            before = known.get(self._relative(path))
            if before is not None and before[0] == stamp:
                keep(path, stamp if is_safe else None, before[1])
            else:
                unread.append((path, stamp if is_safe else None))
        for (path, safe), key in zip(unread, self.read([path for path, _ in unread]), strict=True):
            keep(path, safe, key)
        bar.close()
        if settled != known:
            self._save(settled)
        return found

    def _relative(self, path: Path) -> str:
        return str(path).removeprefix(f"{self.path}{os.sep}").replace(os.sep, "/")

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
            dict(zip(_KNOWN.names, (file, *stamp, key), strict=True))
            for file, (stamp, key) in sorted(settled.items())
        ]
        try:
            write_table(self.known, table_of(_KNOWN, rows))
        except OSError:  # a read-only run can still be checked
            return


def _folders(split: str) -> tuple[str, ...]:
    """Return where the images of a split may lie, in the order in which they are looked for."""
    others = [folder for other, folders in _SPLIT_FOLDERS.items() if other != split for folder in folders]
    return ("", *_SPLIT_FOLDERS[split], *others)


def _shared(paths: Mapping[tuple[str, str], tuple[Path, bool]]) -> list[tuple[tuple[str, str], str]]:
    """Return the addresses that lead to the file of another one, and why they cannot be used.

    Nobody knows which of them the file is of, and a wrong image is worse than none.
    """
    of_file: dict[Path, list[tuple[str, str]]] = {}
    for wanted, (path, _) in paths.items():
        if is_address(wanted[1]):
            of_file.setdefault(path, []).append(wanted)
    reasons = []
    for path, several in of_file.items():
        if len(names := sorted({_without_query(name) for _, name in several})) > 1:
            reason = f"{path.name} may be any of {', '.join(names[:3])}; give each a file, called as it ends"
            reasons += [(wanted, reason) for wanted in several]
    return reasons


def _without_query(address: str) -> str:
    """Return an address without what signs it, which is another each time."""
    return address if "/local-files/" in address else address.partition("?")[0]


def image_names(folder: Path) -> list[str]:
    """Return the files below a folder that have the suffix of an image, relative to it, in order."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.casefold() in image_suffixes and path.is_file()
    )


def _no_file(path: Path) -> str | None:
    """Return what lies at `path` where that is no regular file, or None where nothing does."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return "a link to what is not there" if path.is_symlink() else None
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return None if stat.S_ISREG(mode) else kinds.get(stat.S_IFMT(mode), "a device")


def plain_name(name: str) -> str:
    """Return a file's name without suffixes of images, with accents composed."""
    name = unicodedata.normalize("NFC", name)
    while (suffix := PurePosixPath(name).suffix) and suffix.casefold() in image_suffixes:
        name = name.removesuffix(suffix)
    return name


def _state(path: Path) -> tuple[int, os.stat_result] | OSError:
    """Return the time and then a file's state, or why it cannot be read."""
    try:
        return time.time_ns(), path.stat()
    except OSError as error:
        return error


def image_row(path: Path, data: bytes, key: str = "") -> dict[str, Any]:
    """Return the row of IMAGES for a file of these bytes. key: their sha256, where it is known."""
    key = key or hashlib.sha256(data).hexdigest()
    try:
        width, height = image_from_bytes(data).size
    except UnusableImage as error:
        return {**unreadable_row(path, error), "key": key}
    return {"key": key, "path": str(path), "width": width, "height": height, "status": "ok", "reason": None}


def unreadable_row(path: Path, error: UnusableImage) -> dict[str, Any]:
    """Return the row of IMAGES for a file that cannot be used, but for its key."""
    return {"path": str(path), "width": 0, "height": 0, "status": "unreadable", "reason": str(error)}
