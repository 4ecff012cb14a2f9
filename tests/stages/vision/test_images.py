"""Every image file either opens upright in RGB or is refused with a short reason."""

import hashlib
import os
import random
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.stages.vision.folder import image_row
from hmnet_pipe.stages.vision.images import (
    MAX_PIXELS,
    MissedImage,
    UnusableImage,
    image_from_bytes,
    open_image,
    open_keyed,
)
from PIL import Image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255)
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO")


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    file = BytesIO()
    if format == "ICO":  # of its own accord Pillow shrinks an icon
        options["sizes"] = [image.size]
    image.save(file, format, **options)
    return file.getvalue()


def photo(width: int = 48, height: int = 32) -> Image.Image:
    """Return noise, so that no format compresses it to a handful of bytes."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def png(width: int, height: int, pixels: bytes = b"", color_type: int = 2) -> bytes:
    """Return a PNG written by hand, so that its header may say what no encoder would."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def refusal(content: bytes) -> str:
    with pytest.raises(UnusableImage) as caught:
        image_from_bytes(content)
    return str(caught.value)


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_opens_as_rgb_whatever_the_file_is_called(tmp_path: Path, format: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(photo(), format))
    image = open_image(path)
    assert (image.mode, image.size) == ("RGB", (48, 32))
    with Image.open(path) as expected:
        assert np.array_equal(np.asarray(image), np.asarray(expected.convert("RGB")))


@pytest.mark.parametrize("format", ["TGA", "PCX", "PDF", "DDS"])
def test_other_formats_are_refused_even_where_pillow_reads_them(format: str) -> None:
    assert refusal(encode(photo(), format)).startswith("not an image")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xef\xbb\xbf\n<!DOCTYPE html><p>not found", "an HTML page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML document"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a Git LFS pointer; fetch"),
        (b"/annex/objects/SHA256E-s1--0.jpg\n", "a git-annex pointer"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC image, which Pillow reads only with the package"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC image"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "a video"),
        (b"%PDF-1.7", "a PDF file"),
        (b"PK\3\4", "a ZIP archive"),
        (b'{"error": "gone"}', "JSON"),
        ("Not found: naïve\n".encode(), "a text"),
        (b"Paper is no portable pixmap.\n", "a text"),
        (b"\0" * 2000, "a file of an unknown kind"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(content: bytes, words: str) -> None:
    assert refusal(content).startswith(f"not an image that is read: {words}")


def icon(width: int, height: int, inner: bytes) -> bytes:
    """An icon written by hand, whose own header may say another size than the image in it."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, width, height, 0, 0, 1, 32, len(inner), 22) + inner


def test_an_icon_and_a_jpeg_2000_cannot_hide_their_size() -> None:
    hidden = refusal(icon(16, 16, png(100_000, 100_000)))
    assert hidden == f"too large: 10000000000 pixels, limit {MAX_PIXELS}"
    bitmap = struct.pack("<IiiHHIIiiII", 40, 60_000, 120_000, 1, 32, 0, 0, 0, 0, 0, 0)
    assert refusal(icon(16, 16, bitmap)).startswith("too large: ")
    stream = bytearray(encode(photo(), "JPEG2000"))
    place = stream.index(b"\xff\x4f\xff\x51")
    stream[place + 8 : place + 16] = struct.pack(">II", 100_000, 100_000)
    assert refusal(bytes(stream)).startswith("too large: ")


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize(
    "block",
    [
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 3_000_000)),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"a" * 3_000_000)),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"a" * 3_000_000)),
        b"".join(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 900_000)) for _ in range(80)),
    ],
)
@pytest.mark.parametrize("behind", [False, True], ids=["before the pixels", "behind them"])
def test_a_png_with_large_blocks_of_text_or_colour_is_read(block: bytes, behind: bool) -> None:
    content = encode(photo(), "PNG")
    place = content.index(b"IEND") - 4 if behind else content.index(b"IDAT") - 4
    image = image_from_bytes(content[:place] + block + content[place:])
    assert np.array_equal(np.asarray(image), np.asarray(photo()))


def test_a_command_prints_no_warning_of_pillow(tmp_path: Path) -> None:
    """It would name no image; the same file opened by Pillow does warn."""
    content = encode(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(content)
    (tmp_path / "train.jsonl").write_text('{"tokens": ["Ada"], "tags": ["B-PER"], "image": "a.jpg"}\n')
    images = ["--images", str(tmp_path / "images")]
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        image_from_bytes(content)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        words = ["prepare", str(tmp_path / "run"), "--task", "ner", "--text", str(tmp_path), *images]
        result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert [str(one.message) for one in heard if "EXIF" in str(one.message)] == []
    assert "images: 1" in result.output


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.jpg"
    path.touch()
    with pytest.raises(UnusableImage, match="empty file"):
        open_image(path)


@pytest.mark.parametrize(
    "content", [b"<html>not found</html>", b"\0" * 100, b"x", "a tweet".encode("utf-16")]
)
def test_what_is_not_an_image_is_refused(content: bytes) -> None:
    assert refusal(content).startswith("not an image")


@pytest.mark.parametrize("format", FORMATS)
def test_a_truncated_image_is_refused_though_its_header_is_whole(format: str) -> None:
    content = encode(photo(), format)
    reason = refusal(content[: len(content) * 2 // 3])
    whole_or_nothing = format in ("WEBP", "AVIF", "JPEG2000")
    assert reason.startswith(f"damaged {format}" if whole_or_nothing else "truncated")


@pytest.mark.parametrize("format", FORMATS)
def test_damage_anywhere_raises_unusable_image_and_nothing_else(format: str) -> None:
    content = encode(photo(), format)
    dice = random.Random(0)
    opened, reasons = 0, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(150):
            damaged = bytearray(content)
            for _ in range(dice.choice((1, 3, 20))):
                damaged[dice.randrange(min(len(damaged), dice.choice((40, 400, 5000))))] = dice.randrange(256)
            damaged = damaged[: dice.choice((len(damaged), dice.randrange(len(damaged))))]
            try:
                opened += image_from_bytes(bytes(damaged)).mode == "RGB"
            except UnusableImage as error:
                reasons.append(str(error))
    assert opened + len(reasons) == 150
    assert all(0 < len(reason) < 250 and "\n" not in reason for reason in reasons)
    assert len(reasons) > 20


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(png(100_000, 100_000), id="png"),
        pytest.param(
            b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0),
            id="bmp",
        ),
        pytest.param(
            b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",\0\0\0\0\xff\xff\xff\xff\0\x08\0;",
            id="gif",
        ),
        pytest.param(
            b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + 2 * (16382).to_bytes(3, "little"), id="webp"
        ),
    ],
)
def test_a_decompression_bomb_is_refused_from_its_header(content: bytes) -> None:
    assert len(content) < 200
    assert refusal(content).startswith("too large: ")


def test_the_pixel_limit_needs_no_warning_and_no_setting_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    just_too_many = png(MAX_PIXELS // 1000 + 1, 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refusal(just_too_many) == f"too large: 89479 x 1000 pixels, limit {MAX_PIXELS}"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert refusal(just_too_many) == f"too large: 89479 x 1000 pixels, limit {MAX_PIXELS}"


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000)])
def test_images_one_pixel_thin_are_images(size: tuple[int, int]) -> None:
    assert image_from_bytes(encode(Image.new("RGB", size, RED), "PNG")).size == size


def test_an_image_without_pixels_is_refused() -> None:
    assert refusal(png(0, 5)).startswith("damaged PNG")


def test_cmyk_becomes_the_colour_that_it_prints() -> None:
    assert (
        image_from_bytes(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")).getpixel((4, 4)) == RED
    )


@pytest.mark.parametrize(("format", "order"), [("PNG", "<"), ("TIFF", "<"), ("TIFF", ">")])
def test_16_bit_grey_is_scaled_and_not_clipped(format: str, order: str) -> None:
    grey = np.linspace(0, 65535, 64 * 64).round().astype(f"{order}u2").reshape(64, 64)
    image = np.asarray(image_from_bytes(encode(Image.fromarray(grey), format))).astype(float)
    assert image.shape == (64, 64, 3)
    assert np.abs(image - grey.astype(float)[..., None] * 255 / 65535).max() <= 0.501


@pytest.mark.parametrize("dtype", ["f4", "i4"])
def test_samples_of_32_bits_are_refused_since_their_range_is_unknown(dtype: str) -> None:
    assert refusal(encode(Image.fromarray(np.full((4, 4), 70000, dtype)), "TIFF")).startswith(
        "samples of 32 bits"
    )


def test_transparency_is_laid_over_white() -> None:
    layer = Image.new("RGBA", (2, 1), (*RED, 255))
    layer.putpixel((1, 0), (*GREEN, 0))
    image = image_from_bytes(encode(layer, "PNG"))
    assert (image.getpixel((0, 0)), image.getpixel((1, 0))) == (RED, WHITE)


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_laid_over_white(format: str) -> None:
    paletted = Image.new("P", (2, 1), 0)
    paletted.putpalette([*GREEN, *BLUE])
    paletted.putpixel((1, 0), 1)
    image = image_from_bytes(encode(paletted, format, transparency=0))
    assert (image.getpixel((0, 0)), image.getpixel((1, 0))) == (WHITE, BLUE)


def test_half_transparent_palette_is_mixed_with_white() -> None:
    paletted = Image.new("P", (1, 1), 0)
    paletted.putpalette([*BLUE])
    assert image_from_bytes(encode(paletted, "PNG", transparency=bytes([128]))).getpixel((0, 0)) == (
        127,
        127,
        255,
    )


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_counts(format: str) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, GREEN, BLUE)]
    options = {"lossless": True} if format == "WEBP" else {}
    content = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert image_from_bytes(content).getpixel((1, 1)) == RED


@pytest.mark.parametrize(
    # Where EXIF says that the stored first row and first column lie; a red pixel is stored in the first row
    # and column.
    ("orientation", "corner"),
    [(1, "tl"), (2, "tr"), (3, "br"), (4, "bl"), (5, "tl"), (6, "tr"), (7, "br"), (8, "bl")],
)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "AVIF"])
def test_exif_rotation_is_applied_once(tmp_path: Path, format: str, orientation: int, corner: str) -> None:
    stored = Image.new("RGB", (5, 3), WHITE)
    stored.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned"
    exact: dict[str, Any] = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
    path.write_bytes(encode(stored, format, exif=exif, **exact.get(format, {})))
    image = open_image(path)
    assert image.size == ((5, 3) if orientation < 5 else (3, 5))
    x, y = (0 if corner[1] == "l" else image.width - 1), (0 if corner[0] == "t" else image.height - 1)
    assert np.abs(np.subtract(image.getpixel((x, y)), RED)).max() <= (3 if format == "AVIF" else 0)
    assert 0x0112 not in image.getexif()
    row = image_row(path, path.read_bytes())
    assert (row["width"], row["height"]) == image.size


def test_a_photo_with_a_damaged_exif_block_is_still_a_photo() -> None:
    content = encode(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage")
    assert image_from_bytes(content).size == (48, 32)


def test_inspection_gives_the_digest_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encode(photo(7, 9), "PNG"))
    row = image_row(path, path.read_bytes())
    assert [row[name] for name in ("key", "width", "height")] == [
        hashlib.sha256(path.read_bytes()).hexdigest(),
        7,
        9,
    ]


def test_inspection_finds_what_only_decoding_finds(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(photo(), "JPEG")[:-200])
    with Image.open(path) as image:
        assert image.size == (48, 32)
    row = image_row(path, path.read_bytes())
    assert (row["status"], "truncated" in row["reason"]) == ("unreadable", True)


def test_an_image_is_opened_by_its_key_only_while_its_content_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encode(photo(), "PNG"))
    key = hashlib.sha256(path.read_bytes()).hexdigest()
    assert open_keyed(path, key).size == (48, 32)
    path.write_bytes(encode(photo(10, 10), "PNG"))
    with pytest.raises(UnusableImage, match="changed"):
        open_keyed(path, key)


def test_what_is_no_regular_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in ((".", "not a file"), ("absent.jpg", "not there"), ("pipe.jpg", "not a file")):
        with pytest.raises(MissedImage, match=reason):
            open_image(tmp_path / name)


def test_a_file_of_absurd_length_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png(1, 1, b"\0\0\0\0"))
    os.truncate(path, 1 << 40)  # sparse: takes no space on disk
    with pytest.raises(UnusableImage, match="too large: 1099511627776 bytes"):
        open_image(path)


def test_real_photos_open(data: Path) -> None:
    paths = sorted((data / "photos").glob("*.jpg"))[:10]
    assert paths
    for path in paths:
        image = open_image(path)
        assert image.mode == "RGB"
        assert min(image.size) > 100
