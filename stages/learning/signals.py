"""What signals ask of a training: to stop (Ctrl-C; SIGTERM, as Slurm sends it at its time limit) or to save
(SIGUSR1).
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ...manifests.errors import Stopped

__all__ = ["Wish", "wishes"]

_STOP = (signal.SIGINT, signal.SIGTERM)
_SAVE = getattr(signal, "SIGUSR1", None)  # which Windows has not
_AT_ONCE = 1.0  # seconds


class Wish:
    """What was asked for since it was last answered: nothing, to "save" a checkpoint, or to "stop"."""

    def __init__(self) -> None:
        self.asked = ""
        self.number, self._since = int(signal.SIGTERM), 0.0  # of the signal that asked to stop

    def ask(self, number: int) -> bool:
        """Take note of what a signal asks for; a wish to stop stays one.

        Return whether it asks to stop once more. Those that come at once do not count: torchrun sends another
        to who has got Ctrl-C from the terminal.
        """
        if self.asked == "stop":
            return number != _SAVE and time.monotonic() - self._since > _AT_ONCE
        self.asked, self.number = "save" if number == _SAVE else "stop", number
        self._since = time.monotonic()
        return False

    def stop(self) -> Stopped:
        """Return what to raise once the wish to stop is fulfilled."""
        return Stopped(self.number)


@contextmanager
def wishes() -> Iterator[Wish]:
    """Yield the wish of the signals that come meanwhile, which interrupt nothing.

    Who asks a second time to stop is answered at once, as outside of trainings; so is, at the end, a wish to
    stop that has not been fulfilled. Only the main thread can answer signals; elsewhere nothing changes. A
    signal to stop that is ignored stays so.
    """
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    numbers = [*_STOP, *([_SAVE] if _SAVE else [])]
    before = {number: signal.getsignal(number) for number in numbers}

    def ask(number: int, frame: FrameType | None) -> None:
        if wish.ask(number):
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)

    for number in numbers:
        if number == _SAVE or before[number] != signal.SIG_IGN:
            signal.signal(number, ask)
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if wish.asked == "stop":
        signal.raise_signal(wish.number)
