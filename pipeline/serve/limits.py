"""How much a client may ask of the server."""

from dataclasses import dataclass

__all__ = ["DEFAULT_LIMITS", "Limits"]


@dataclass(frozen=True)
class Limits:
    """The most that is taken of a request, and the longest that is waited for it.

    body: bytes. text: characters. line: requests whose bodies are held, the one that the model works on
    included. The pixels of an image are limited where images are opened (stages.vision.images).
    header_seconds, body_seconds: until a request's head, and its body, are there. seconds: until the model
    has answered, waiting included. connections: open at once.
    """

    body: int = 20_000_000
    text: int = 20_000
    line: int = 16
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    seconds: float = 60.0
    connections: int = 100


DEFAULT_LIMITS = Limits()
