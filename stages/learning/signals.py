"""What signals ask of a training: SIGTERM, as Slurm sends it at its time limit, to stop; SIGUSR1, to save."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ...manifests.errors import Stopped

__all__ = ["Wish", "stopped_by_term", "wishes"]

_SAVE = getattr(signal, "SIGUSR1", None)  # which Windows has not


class Wish:
    """What was asked for since it was last answered: nothing, to "save" a checkpoint, or to "stop"."""

    def __init__(self) -> None:
        self.asked = ""

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked != "stop":
            self.asked = "save" if number == _SAVE else "stop"


@contextmanager
def wishes() -> Iterator[Wish]:
    """Yield the wish of the signals that come meanwhile, which interrupt nothing."""
    wish = Wish()
    with _handled({signal.SIGTERM: wish._ask, **({_SAVE: wish._ask} if _SAVE else {})}):
        yield wish


@contextmanager
def stopped_by_term() -> Iterator[None]:
    """Raise Stopped where the process is at when SIGTERM comes, and let SIGUSR1 pass."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    with _handled({signal.SIGTERM: stop, **({_SAVE: signal.SIG_IGN} if _SAVE else {})}):
        yield


@contextmanager
def _handled(handlers: dict[signal.Signals, "signal._HANDLER"]) -> Iterator[None]:
    """Handle these signals so for a while. Only the main thread can; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
