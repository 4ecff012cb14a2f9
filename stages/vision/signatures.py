"""What a file is by its first bytes: a format that is read, or, for a refusal, what it is instead.

Names lie: Twitter's .jpg files are often PNG, and what a server answers instead of a photo is often HTML.
"""

import struct

__all__ = ["announced_pixels", "format_of", "what_it_is"]

_FORMATS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"\0\0\1\0": "ICO",
}
# Images that Pillow alone does not read, and the package or program that does.
_UNREAD = {
    b"\xff\x0a": "a JPEG XL image, which Pillow does not read; convert it to JPEG",
    b"\0\0\0\x0cJXL \r\n\x87\n": "a JPEG XL image, which Pillow does not read; convert it to JPEG",
    b"8BPS": "a Photoshop file; save it as PNG or JPEG",
}
_HEIC = "a HEIC image, which Pillow reads only with the package pillow-heif; convert it to JPEG"
_OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer; fetch the image itself with `git lfs pull`",
    b"/annex/objects/": "a git-annex pointer; fetch the image itself with `git annex get`",
    b"%PDF": "a PDF file",
    b"PK\3\4": "a ZIP archive",
    b"\x1f\x8b": "a file that gzip compressed",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x1aE\xdf\xa3": "a video (Matroska or WebM)",
}
_MARKUP = {
    b"<svg": "an SVG drawing; save it as PNG",
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
    b"<head": "an HTML page",
    b"<?xml": "an XML document, such as a server's message",
    b"{": "JSON, such as a server's message",
}


def format_of(data: bytes) -> str | None:
    """Return the name of the format that the first bytes announce, or None where it is none that is read."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if _brands(data) & {b"avif", b"avis"}:
        return "AVIF"
    # A letter and a digit may begin any text: in these formats, white space or a comment follows.
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3] in b" \t\r\n#" and len(data) > 2:
        return "PPM"
    return next((name for signature, name in _FORMATS.items() if data.startswith(signature)), None)


def what_it_is(data: bytes) -> str:
    """Return in words what a file is that is no image, or one in a format that is not read."""
    if brands := _brands(data):
        return _HEIC if brands & {b"heic", b"heix", b"mif1", b"msf1"} else "a video (MP4 or QuickTime)"
    for signature, words in (*_UNREAD.items(), *_OTHERS.items()):
        if data.startswith(signature):
            return words
    start = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"<?xml") and b"<svg" in start:
        return _MARKUP[b"<svg"]
    for signature, words in _MARKUP.items():
        if start.startswith(signature):
            return words
    try:
        text = data[:1024].decode("utf-8", errors="strict" if len(data) <= 1024 else "ignore")
    except UnicodeDecodeError:
        return "a file of an unknown kind"
    plain = text.replace("\n", "").replace("\r", "").replace("\t", "").isprintable()
    return "a text" if plain and b"\0" not in data[:1024] else "a file of an unknown kind"


def announced_pixels(format_name: str, data: bytes) -> int:
    """Return the pixels of the largest image inside a file whose own header may announce fewer.

    An icon holds whole PNG and BMP files, and JPEG 2000 has a size in its box and one in its stream. Pillow
    decodes the former as it opens the icon. Raises struct.error where the file ends too early.
    """
    if format_name == "ICO":
        (count,) = struct.unpack_from("<H", data, 4)
        offsets = (struct.unpack_from("<I", data, 6 + 16 * i + 12)[0] for i in range(count))
        return max((_pixels_at(data, offset) for offset in offsets), default=0)
    if format_name == "JPEG2000" and (stream := data.find(b"\xff\x4f\xff\x51")) >= 0:
        right, bottom, left, top = struct.unpack_from(">IIII", data, stream + 8)
        pixels: int = max(0, right - left) * max(0, bottom - top)
        return pixels
    return 0


def _pixels_at(data: bytes, offset: int) -> int:
    """Return the pixels of the PNG or the headless BMP at a place in an icon."""
    if data.startswith(b"\x89PNG", offset):
        width, height = struct.unpack_from(">II", data, offset + 16)
    else:
        (length,) = struct.unpack_from("<I", data, offset)
        width, height = struct.unpack_from("<HH" if length == 12 else "<ii", data, offset + 4)
    pixels: int = abs(width * height)
    return pixels


def _brands(data: bytes) -> set[bytes]:
    """Return the brands of a file of ISO's base media format (AVIF, HEIC, MP4), or none."""
    if data[4:8] != b"ftyp":
        return set()
    length = min(int.from_bytes(data[:4], "big"), 256)
    return {data[8:12], *(data[i : i + 4] for i in range(16, length - 3, 4))}
