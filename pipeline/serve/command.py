"""What `hmnet-pipe serve` does: open the models, try them once, and serve the page."""

import ipaddress
import socket
from collections.abc import Callable

from PIL import Image

from ...stages.predict.posts import Post
from ..predict.part import Models
from ..predict.predictor import Predictor
from .app import application
from .examples import examples_of
from .limits import DEFAULT_LIMITS, Limits
from .port import address_of
from .server import run

__all__ = ["serve_models"]


def serve_models(
    models: Models,
    held: socket.socket,
    *,
    name: str,
    host: str,
    say: Callable[[str], None],
    complain: Callable[[str], None],
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Serve a page to try the models until a signal ends the process.

    held: of `hold_port`. name: of the model, for the page. host: as it was given. say, complain: take lines
    for people, and those of errors. Raises what opening and using the models raises.
    """
    predictor = models.open()
    _try(predictor)
    examples = examples_of(predictor.models[0].folder)

    def ready() -> None:
        address = held.getsockname()[0]
        if not ipaddress.ip_address(address).is_loopback:
            say(f"Whoever reaches {address} can use the model, as --host asks.")
        say(f"{name} is at {address_of(held)} (Ctrl-C ends it)")

    app = application(predictor, examples, limits, name=name, host=host, complain=complain)
    run(app, held, limits, ready)


def _try(predictor: Predictor) -> None:
    """Use the models once, so that weights that are missing end the command and not the first request."""
    image = Image.new("RGB", (64, 64)) if predictor.reads_images else None
    predictor(Post("Ada in Oslo", image=image, head=(0, 3), tail=(7, 11)), explain=True)
