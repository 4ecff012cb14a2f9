"""The images that posts come with: files, bytes, or images of Pillow, each by the sha256 of its content."""

import hashlib
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from ...manifests.errors import InputError, in_one_line
from ...manifests.files import make_folder
from ...stages.base.ahead import in_threads
from ...stages.predict.results import MISSING, NONE, UNREADABLE, USED, PostImage
from ...stages.vision.folder import image_row, unreadable_row
from ...stages.vision.images import MissedImage, UnusableImage, image_bytes

__all__ = ["given_images"]

# The modes of Pillow that a PNG has; others are converted.
_WRITTEN = ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")


def given_images(images: Sequence[Any], folder: Path) -> tuple[list[PostImage], list[dict[str, Any]]]:
    """Return what became of each image, and a row of IMAGES for each usable content.

    images: paths, bytes, images of Pillow, or None. folder: where what is no file yet is written. Raises
    InputError for anything else.
    """
    found: list[PostImage] = []
    rows: dict[str, dict[str, Any]] = {}
    for status, row in in_threads(lambda image: _looked_at(image, folder), images):
        if row is not None and row["status"] == "ok":
            rows.setdefault(row["key"], row)
        found.append(status)
    return found, [rows[key] for key in sorted(rows)]


def _looked_at(image: Any, folder: Path) -> tuple[PostImage, dict[str, Any] | None]:
    if image is None:
        return PostImage(NONE), None
    try:
        if isinstance(image, str | os.PathLike):
            path = Path(image)
            data = image_bytes(path)
        else:
            data = _bytes_of(image)
            path = folder / hashlib.sha256(data).hexdigest()
            make_folder(folder)
            path.write_bytes(data)
        row = image_row(path.absolute(), data)
    except MissedImage as error:
        return PostImage(MISSING, str(error)), None
    except UnusableImage as error:
        row = {**unreadable_row(Path(), error), "key": None}
    except ValueError as error:  # a name that no file can have
        return PostImage(MISSING, str(error)), None
    return _status(row), row


def _status(row: dict[str, Any]) -> PostImage:
    if row["status"] == "ok":
        return PostImage(USED, None, row["key"])
    return PostImage(UNREADABLE, row["reason"])


def _bytes_of(image: Any) -> bytes:
    """Return the bytes of a file that holds the image without loss."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if hasattr(image, "save") and hasattr(image, "mode"):
        buffer = BytesIO()
        try:
            kept = image if image.mode in _WRITTEN else image.convert("RGB")
            # With the EXIF block, so that it is turned upright as its file would be.
            kept.save(buffer, "PNG", exif=image.info.get("exif", b""))
        # A file that is damaged or closed shows only now, and makes Pillow raise nearly anything.
        except Exception as error:
            raise UnusableImage(f"the image cannot be read: {in_one_line(error)}") from error
        return buffer.getvalue()
    raise InputError(
        f"an image is a path, the bytes of a file, or an image of Pillow, not {type(image).__name__}"
    )
