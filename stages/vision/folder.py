"""The image folder: which file a name refers to, a digest of each file, and its row of IMAGES.

Only files that may have changed are read again.
"""

import hashlib
import os
import re
import stat
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

import pyarrow as pa

from ...manifests.errors import StageError
from ...manifests.fingerprint import SETTLING_NS, digest_file, is_settled
from ...manifests.tables import read_table, table_of, write_table
from ..base.ahead import in_threads
from ..base.tools import Tools
from .addresses import as_uploaded, ends_of_address, is_address, name_before_upload
from .images import UnusableImage, image_from_bytes

__all__ = [
    "Found",
    "ImageFolder",
    "image_names",
    "image_row",
    "image_suffixes",
    "plain_name",
    "split_folders",
    "unreadable_row",
]

Item = TypeVar("Item")
Result = TypeVar("Result")

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

# Files that a thread reads at a time: handing over each of many small ones would take as long as reading it.
_AT_ONCE = 32

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
    changed. reasons: why images of these names are missing, where more is known than that they are.
    """

    path: Path
    known: Path
    read: Callable[[Path], str] = digest_file
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
        return found | {
            wanted: replace(keys[path], renamed=renamed) for wanted, (path, renamed) in paths.items()
        }

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
        bar = tools.bar(len(paths), "looking up images", "image")
        parts = [paths[i : i + _AT_ONCE] for i in range(0, len(paths), _AT_ONCE)]
        for part in in_threads(lambda part: [self._digest(path, known) for path in part], parts):
            bar.update(len(part))
            for path, file, image, stamp in part:
                found[path] = image
                if stamp is not None and image.key is not None:
                    settled[file] = stamp, image.key
        bar.close()
        if settled != known:
            self._save(settled)
        return found

    def _digest(
        self, path: Path, known: dict[str, tuple[_Stamp, str]]
    ) -> tuple[Path, str, Found, _Stamp | None]:
        """Return the file, its name here, its digest, and if that is safe a stamp to recognise it by."""
        file = self._relative(path)
        try:
            now = time.time_ns()
            status = path.stat()
            stamp = _Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            known_stamp, key = known.get(file, (None, ""))
            if known_stamp != stamp:
                key = self.read(path)
        except OSError as error:
            return path, file, Found(reason=f"cannot be read: {error.strerror}"), None
        return path, file, Found(path, key), stamp if is_settled(status, now, self.settling_ns) else None

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
            dict(zip(_KNOWN.names, (file, *astuple(stamp), key), strict=True))
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


def image_row(path: Path, data: bytes) -> dict[str, Any]:
    """Return the row of IMAGES for a file of these bytes."""
    key = hashlib.sha256(data).hexdigest()
    try:
        width, height = image_from_bytes(data).size
    except UnusableImage as error:
        return {**unreadable_row(path, error), "key": key}
    return {"key": key, "path": str(path), "width": width, "height": height, "status": "ok", "reason": None}


def unreadable_row(path: Path, error: UnusableImage) -> dict[str, Any]:
    """Return the row of IMAGES for a file that cannot be used, but for its key."""
    return {"path": str(path), "width": 0, "height": 0, "status": "unreadable", "reason": str(error)}
