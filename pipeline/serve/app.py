"""What the server answers: the page, predictions, examples, and how it is.

GET /          the page, and its style and script beside it
POST /predict  a post, as JSON or as a form, to the JSON object of `hmnet-pipe predict` with its explanation
GET /health    which model there is, and how many requests wait
GET /examples  test posts of the model's run; /examples/N/image is the image of one
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ... import __version__
from ...stages.predict.results import MISSING, UNREADABLE, as_line
from ...stages.vision.images import UnusableImage
from ..predict.predictor import Predictor
from .body import asked_of
from .examples import Example
from .guard import Guard
from .limits import Limits
from .line import Line
from .refusal import Refusal

__all__ = ["application"]

_PAGE = {
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}


_FRAME = 200_000
"""Bytes of a body that are kept for all but the image."""


def application(
    predictor: Predictor,
    examples: Sequence[Example],
    limits: Limits,
    *,
    name: str,
    host: str = "127.0.0.1",
    complain: Callable[[str], None] = print,
) -> Starlette:
    """Return the ASGI application that lets others use a predictor.

    name: of the model, for the page. host: under which the server is known besides its addresses. complain:
    takes the lines of an unexpected error.
    """
    line = Line(limits)

    async def predict(request: Request) -> Response:
        with line.place():
            post, explain = await asked_of(request, limits)
            result = await line.through(request, lambda: predictor(post, explain=explain))
        if result.error:
            raise Refusal(422, _sentence(result.error))
        if post.image is not None and result.image.status in (MISSING, UNREADABLE):
            raise Refusal(422, f"The image cannot be used: {result.image.reason}.")
        return Response(as_line(result.to_json()), media_type="application/json")

    async def health(request: Request) -> Response:
        own = {"model": name, "waiting": line.taken, "most_bytes": limits.body - _FRAME}
        return JSONResponse({**_facts(predictor), **own})

    async def listed(request: Request) -> Response:
        return JSONResponse({"examples": [one.to_json(number) for number, one in enumerate(examples)]})

    async def image(request: Request) -> Response:
        number: str = request.path_params["number"]
        if not re.fullmatch("[0-9]{1,9}", number) or int(number) >= len(examples):
            raise Refusal(404, "There is no such example; see /examples.")
        try:
            data, kind = await asyncio.to_thread(examples[int(number)].image)
        except UnusableImage as error:
            raise Refusal(404, f"The image of this example cannot be used now: {error}.") from error
        return Response(data, media_type=kind)

    return Starlette(
        routes=[
            *(_of_page(path, *file) for path, file in _PAGE.items()),
            Route("/predict", predict, methods=["POST"]),
            Route("/health", health),
            Route("/examples", listed),
            Route("/examples/{number}/image", image),
        ],
        middleware=[Middleware(Guard, host=host, complain=complain)],
        exception_handlers={Refusal: _refused, HTTPException: _unknown},
    )


def _of_page(path: str, file: str, kind: str) -> Route:
    content = files(__package__).joinpath("page", file).read_bytes()

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return Route(f"/{path}", answer)


def _facts(predictor: Predictor) -> dict[str, Any]:
    """Return what a page has to know of the models."""
    return {
        "status": "ok",
        "version": __version__,
        "system": predictor.models[0].config.system,
        "entities": predictor.entities is not None,
        "relations": predictor.relations is not None,
        "reads_images": predictor.reads_images,
    }


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response()


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return Refusal(405, f"This address takes {allowed} alone.", Allow=allowed).response()
    return Refusal(
        error.status_code, "There is nothing here; see /, /predict, /health and /examples."
    ).response()


def _sentence(error: str) -> str:
    return f"{error[:1].upper()}{error[1:]}."
