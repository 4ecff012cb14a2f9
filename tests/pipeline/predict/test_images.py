"""Images that come with posts as objects of Pillow: what their files would give, or a row with the reason."""

from io import BytesIO
from pathlib import Path

from hmnet_pipe.pipeline.predict.images import given_images
from hmnet_pipe.stages.predict.results import UNREADABLE
from hmnet_pipe.stages.vision.images import image_from_bytes
from PIL import Image


def file_of(image: Image.Image) -> bytes:
    exif = image.getexif()
    exif[0x112] = 6  # to be turned by a quarter
    buffer = BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def test_an_image_of_pillow_is_upright_as_its_file_is(tmp_path: Path) -> None:
    data = file_of(Image.linear_gradient("L").resize((40, 20)).convert("RGB"))
    _, [row] = given_images([Image.open(BytesIO(data))], tmp_path)
    seen = image_from_bytes(Path(row["path"]).read_bytes())
    assert (row["width"], row["height"]) == (20, 40)
    assert seen.tobytes() == image_from_bytes(data).tobytes()


def test_an_image_of_pillow_that_cannot_be_read_is_unreadable_and_not_missing(tmp_path: Path) -> None:
    half = Image.open(BytesIO(file_of(Image.effect_noise((200, 200), 90))[:3000]))
    closed = Image.open(BytesIO(file_of(Image.new("RGB", (8, 8)))))
    closed.close()
    found, rows = given_images([half, closed, Image.new("RGB", (0, 0))], tmp_path)
    assert [one.status for one in found] == [UNREADABLE] * 3
    assert all(one.reason for one in found)
    assert rows == []
