"""The one place where image files are opened: from any file, an upright RGB image or a short reason.

What counts as usable decides prepare's tables: a change of the rules below needs a new `schema_version` of
the prepare stage.
"""

import hashlib
import struct
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from stat import S_ISREG
from typing import IO

from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from .signatures import announced_pixels, format_of, what_it_is

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "MissedImage",
    "UnusableImage",
    "image_bytes",
    "image_from_bytes",
    "open_image",
    "open_keyed",
]

MAX_PIXELS = 89_478_485  # 256 MiB as RGB; Pillow's own limit, where it only warns
MAX_BYTES = 1 << 30

# The readers are called by name instead of through Image.open: no other plugin ever sees a hostile file, the
# limit on pixels depends on no global setting or warning filter, and no reason holds the address of an
# object, as Image.open's message does.
_READERS: dict[str, Callable[[IO[bytes]], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.jpeg_factory,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
    "ICO": IcoImagePlugin.IcoImageFile,
}
# Formats that Pillow reads where it was built with their libraries; before 11.3 it knew no AVIF.
if features.check("jpg_2000"):
    _READERS["JPEG2000"] = Jpeg2KImagePlugin.Jpeg2KImageFile
with suppress(ImportError):
    from PIL import AvifImagePlugin

    if AvifImagePlugin.SUPPORTED:
        _READERS["AVIF"] = AvifImagePlugin.AvifImageFile
# EXIF orientation -> what makes the image upright; 1 already is.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnusableImage(Exception):
    """An image cannot be used. The message is a short reason, without the path, for a row of a table."""


class MissedImage(UnusableImage):
    """An image cannot be read now: not there, changed since, forbidden, timed out. Another time it may be."""


def open_image(path: Path) -> Image.Image:
    """Return the image at `path`, decoded fully, upright, of mode "RGB".

    For an animation it is the first frame; transparency is laid over white.

    Raises UnusableImage, and nothing else, for any fault of the file.
    """
    return image_from_bytes(image_bytes(path))


def open_keyed(path: Path, key: str) -> Image.Image:
    """Return the image at `path` as `open_image` does, if its bytes still have the sha256 `key`.

    Raises UnusableImage for other content too: results are kept under the key, where those of another image
    would be wrong.
    """
    data = image_bytes(path)
    if hashlib.sha256(data).hexdigest() != key:
        raise MissedImage("changed since prepare read it")
    return image_from_bytes(data)


def image_from_bytes(data: bytes) -> Image.Image:
    """Return the image that a file of these bytes holds, as `open_image` gives it. Raises UnusableImage."""
    if not data:
        raise UnusableImage("empty file")
    format_name = format_of(data)
    if format_name is None:
        raise UnusableImage(f"not an image that is read: {what_it_is(data)}")
    if format_name not in _READERS:
        raise UnusableImage(f"{format_name}, which this Pillow does not read; upgrade it, or use JPEG")
    try:
        return _decoded(format_name, data)
    except UnusableImage as error:
        # Pillow limits what text and colour profiles may decompress to, for the whole process.
        if format_name == "PNG" and "MAX_TEXT" in str(error):
            return _decoded(format_name, _without_text(data))
        raise


def _decoded(format_name: str, data: bytes) -> Image.Image:
    try:
        if (pixels := announced_pixels(format_name, data)) > MAX_PIXELS:
            raise UnusableImage(f"too large: {pixels} pixels, limit {MAX_PIXELS}")
        with _READERS[format_name](BytesIO(data)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UnusableImage(f"too large: {width} x {height} pixels, limit {MAX_PIXELS}")
            image.load()
            rgb = _rgb(image)
            # Read after load(): PNG keeps its EXIF block behind the pixels, and the TIFF reader has turned
            # its image by then.
            turn = _UPRIGHT.get(_orientation(image))
    except UnusableImage:
        raise
    except Image.DecompressionBombError as error:  # the WEBP reader's own check, made before it says the size
        raise UnusableImage(f"too large: limit {MAX_PIXELS} pixels") from error
    # Damaged files make Pillow raise nearly anything: SyntaxError, struct.error, OverflowError, ...
    except Exception as error:
        raise UnusableImage(_reason(format_name, error)) from error
    rgb = rgb if turn is None else rgb.transpose(turn)
    rgb.info = {}  # the EXIF block would make a second reader turn the image again
    return rgb


def image_bytes(path: Path) -> bytes:
    """Return a file's bytes. Raises UnusableImage where it is not a file, too large or unreadable."""
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):  # a named pipe would block for ever
            raise MissedImage("not a file")
        if status.st_size > MAX_BYTES:
            raise UnusableImage(f"too large: {status.st_size} bytes, limit {MAX_BYTES}")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissedImage("not there") from error
    except OSError as error:
        raise MissedImage(f"cannot be read: {error.strerror}") from error


def _without_text(data: bytes) -> bytes:
    """Return a PNG without its blocks of text and its colour profile, which decoding does not use."""
    parts, place = [data[:8]], 8
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        if name not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            parts.append(data[place : place + 12 + length])
        place += 12 + length
    return b"".join(parts)


def _rgb(image: Image.Image) -> Image.Image:
    """Return a loaded image as mode "RGB", detached from its file."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bits(image)
    elif image.has_transparency_data:
        layer = image.convert("RGBA")
        page = Image.new("RGB", layer.size, "white")
        page.paste(layer, mask=layer.getchannel("A"))
        return page
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit greyscale as mode "L", scaled by 255 / 65535.

    Pillow's own conversion clips, which turns most photos white.
    """
    if image.mode != "F":
        image = image.convert("I")  # the 16-bit modes know no extrema in one byte order of the two
        low, high = (int(value) for value in image.getextrema())  # type: ignore[arg-type]
        if 0 <= low <= high <= 65535:
            return image.convert("F").point(lambda value: value * (255 / 65535) + 0.5).convert("L")
    raise UnusableImage("samples of 32 bits, expected 8 or 16")


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a photo whose EXIF block is damaged is still a photo
        return 1
    return orientation if isinstance(orientation, int) else 1


def _reason(format_name: str, error: Exception) -> str:
    text = " ".join(str(error).split())[:160]
    if isinstance(error, EOFError) or "truncated" in text.lower():
        return f"truncated: {text}"
    return f"damaged {format_name}: {type(error).__name__} {text}".rstrip()
