"""From the body of a request to a post: JSON with the image in base64, or a form with a file."""

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ...stages.predict.posts import Post
from .limits import Limits
from .refusal import Refusal

__all__ = ["asked_of"]

_KEYS = ("text", "tokens", "image", "id", "head", "tail", "explain")

# Values in a JSON body at most, by its commas: a text has fewer, and base64 has none. Without it, 20 MB of
# empty lists would take a gigabyte in Python.
_MOST_VALUES = 100_000

_FIELD = 2**20
"""Bytes of a field of a form that is no file."""


async def asked_of(request: Request, limits: Limits) -> tuple[Post, bool]:
    """Return the post that a request holds, and whether it asks for an explanation.

    Raises Refusal for whatever is wrong with the body, and starlette's ClientDisconnect.
    """
    kind, _ = parse_options_header(request.headers.get("content-type", ""))
    readers = {b"application/json": _of_json, b"multipart/form-data": _of_form}
    if kind not in readers:
        raise Refusal(415, "Send JSON (application/json) or a form with a file (multipart/form-data).")
    try:
        async with asyncio.timeout(limits.body_seconds):
            values = await readers[kind](request, limits)
    except TimeoutError as error:
        raise Refusal(
            408, f"The body did not arrive within {limits.body_seconds:g} seconds.", Connection="close"
        ) from error
    return _post(values, limits)


async def _body(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives, and raise Refusal as soon as it is too large."""
    too_large = Refusal(413, f"A body has at most {limits.body // 1_000_000} MB; send a smaller image.")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > 18 or int(announced) > limits.body):
        raise too_large
    arrived = 0
    async for chunk in request.stream():
        arrived += len(chunk)
        if arrived > limits.body:  # in chunks of unknown number, or more than was announced
            raise too_large
        yield chunk


async def _of_json(request: Request, limits: Limits) -> dict[str, Any]:
    body = b"".join([chunk async for chunk in _body(request, limits)])
    if body.count(b",") > _MOST_VALUES:
        raise Refusal(413, f"The JSON holds more than {_MOST_VALUES} values.")
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "The body is not the JSON that its Content-Type says.") from error
    if not isinstance(values, dict):
        raise Refusal(400, f"The JSON must be an object with the keys {', '.join(_KEYS)}.")
    image = values.get("image")
    if image is not None:
        if not isinstance(image, str):
            raise Refusal(400, "image must be the base64 of an image file.")
        try:
            values["image"] = base64.b64decode(image.encode("ascii"), validate=True)
        except (UnicodeEncodeError, binascii.Error) as error:
            raise Refusal(
                400, "image must be the base64 of an image file; paths and addresses are not opened."
            ) from error
    return values


class _WholeForm(MultiPartParser):
    """Parses a form, and knows whether its end was there: what is cut off would be left out silently."""

    ended = False

    def on_end(self) -> None:
        self.ended = True


async def _of_form(request: Request, limits: Limits) -> dict[str, Any]:
    parser = _WholeForm(
        request.headers, _body(request, limits), max_files=1, max_fields=len(_KEYS), max_part_size=_FIELD
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refusal(400, f"The form cannot be read: {error.message.rstrip('.')}.") from error
    try:
        if not parser.ended:
            raise Refusal(400, "The form is cut off before its end.")
        values: dict[str, Any] = {}
        for name, value in form.multi_items():
            if name in values:
                raise Refusal(400, f"The form has {_named(name)} more than once.")
            if isinstance(value, UploadFile) != (name == "image"):
                raise Refusal(
                    400, "image, and nothing else, is a file of the form; paths and addresses are not opened."
                )
            # A form of a page has the field also where no file is chosen.
            values[name] = (await value.read() or None) if isinstance(value, UploadFile) else value
    finally:
        await form.close()
    if "text" in values:  # browsers end the lines of a form by two characters, which no offset counts
        values["text"] = values["text"].replace("\r\n", "\n")
    for name in ("tokens", "head", "tail", "explain"):
        if name in values:
            try:
                values[name] = json.loads(values[name])
            except (ValueError, RecursionError) as error:
                raise Refusal(400, f"The field {name} must be JSON.") from error
    return values


def _post(values: Mapping[str, Any], limits: Limits) -> tuple[Post, bool]:
    """Return the post of checked values. Raises Refusal."""
    if unknown := next((name for name in values if name not in _KEYS), None):
        raise Refusal(400, f"{_named(unknown)} is not one of {', '.join(_KEYS)}.")
    text, tokens, number = values.get("text"), values.get("tokens"), values.get("id")
    if (text is None) == (tokens is None):
        raise Refusal(400, "Give either text or tokens.")
    if text is not None and not isinstance(text, str):
        raise Refusal(400, "text must be a text.")
    if tokens is not None and not (
        isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)
    ):
        raise Refusal(400, "tokens must be a list of words.")
    length = len(text) if text is not None else sum(len(token) + 1 for token in tokens or ())
    if length > limits.text:
        raise Refusal(413, f"A text has at most {limits.text} characters, and this one has {length}.")
    if number is not None and (not isinstance(number, str | int) or len(str(number)) > 200):
        raise Refusal(400, "id must be a short text or a number.")
    explain = values.get("explain")
    if explain is None:
        explain = True
    if not isinstance(explain, bool):
        raise Refusal(400, "explain must be true or false.")
    spans = {name: _span(name, values[name]) for name in ("head", "tail") if values.get(name) is not None}
    own = None if number is None else str(number)
    return Post(text, tokens, values.get("image"), own, spans.get("head"), spans.get("tail")), explain


def _span(name: str, value: object) -> tuple[int, int]:
    if not (isinstance(value, list) and len(value) == 2 and all(type(end) is int for end in value)):
        raise Refusal(400, f"{name} must be a start and an end, two numbers.")
    return value[0], value[1]


def _named(name: str) -> str:
    """Return a name that a client chose, so that it fits into a sentence."""
    return repr(name if len(name) <= 40 else f"{name[:40]}...")
