"""`hmnet-pipe`, and `python -m hmnet_pipe`: the commands, and how a signal ends them."""

import os
import signal
from types import FrameType

from .manifests.errors import Stopped
from .manifests.files import remove_scratch

__all__ = ["main"]


def main() -> None:
    """Run the command that the process was started with, and exit with its code.

    Ctrl-C and SIGTERM end it at once with one sentence, wherever it is. Every stage survives being killed, so
    nothing has to be done first but by a training, which answers signals itself (stages.learning.signals).
    An exception would be no help: it may come in the middle of an import, or while Dask starts, where it is
    swallowed, or breaks what then complains at length.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup and a shell's & ask for
            signal.signal(number, _end)
    if hasattr(signal, "SIGUSR1"):  # it asks for a checkpoint, and there may be no training yet
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    # Whatever takes time is imported here, where a signal is answered already.
    from .pipeline.cli import main as commands

    commands()


def _end(number: int, frame: FrameType | None) -> None:
    """Say why the process ends, and end it. Its worker processes end when they lose it."""
    stopped = Stopped(number)
    try:
        os.write(2, f"\n{stopped}\n".encode())
        remove_scratch()
    finally:
        os._exit(stopped.exit_code)


if __name__ == "__main__":
    main()
