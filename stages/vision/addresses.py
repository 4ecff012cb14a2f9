"""Which files of a folder an image's address may refer to: its end, and of uploads the name from before.

    s3://bucket/2024/ada.jpg              2024/ada.jpg, ada.jpg
    /data/local-files/?d=home/ada.jpg     home/ada.jpg, ada.jpg
    /data/upload/3/ab12cd34-ada.jpg       upload/3/ab12cd34-ada.jpg, ..., ab12cd34-ada.jpg, ada.jpg

Label Studio serves what lies below a root of its own as local files. It puts eight hexadecimal digits and a
dash before the name of an upload, and writes it as Django does: blanks become `_`, and of other characters
letters, digits, `_`, `-` and `.` stay.
"""

import re
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["as_uploaded", "ends_of_address", "is_address", "name_before_upload"]

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|/data/(upload|local-files)/", re.IGNORECASE)
_UPLOAD = re.compile(r"(?:.*/)?upload/\d+/[0-9a-f]{8}-([^/]+)")


def is_address(name: str) -> bool:
    """Return whether the name of an image is an address, of the web or of Label Studio."""
    return _ADDRESS.match(name) is not None


def ends_of_address(address: str) -> list[str]:
    """Return the ends of an address's path, the longest first, and of an upload its name from before."""
    path = _path(address)
    steps = [step for step in PurePosixPath(path).parts if step != "/"]
    before = name_before_upload(address)
    return ["/".join(steps[first:]) for first in range(len(steps))] + ([before] if before else [])


def name_before_upload(address: str) -> str | None:
    """Return what an upload was called, as Label Studio writes it; None where this is no upload."""
    found = _UPLOAD.fullmatch(_path(address))
    return found[1] if found else None


def as_uploaded(name: str) -> str:
    """Return how Label Studio writes the name of a file behind the digits and the dash."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


def _path(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:  # of an address that is none: http://[
        return ""
    local = parse_qs(parts.query).get("d") if parts.path.endswith("/local-files/") else None
    return local[0] if local else unquote(parts.path)
