"""The errors that a user can cause. Each names its remedy; the command line prints no traceback."""

import signal
from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "HmnetPipeError",
    "InputError",
    "StageError",
    "Stopped",
    "WeightsError",
    "in_one_line",
    "unknown_name",
]


class HmnetPipeError(Exception):
    """Base of every error whose message says in one sentence what is wrong and what to do.

    `exit_code` is the exit code of the process.
    """

    exit_code = 2


class InputError(HmnetPipeError):
    """A path, an option or a line of the user's input is wrong. The message names the file and any line."""


class WeightsError(HmnetPipeError):
    """Model weights are missing, unreadable or made for another architecture.

    The message names the file and where to put it.
    """


class StageError(HmnetPipeError):
    """A stage cannot start or finish: input missing, a lock held, the disk full, no worker left."""

    exit_code = 1


def in_one_line(error: BaseException, most: int = 200) -> str:
    """Return what an error of a library says, as one line of at most `most` characters.

    An error without a word is named by its type.
    """
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= most else f"{said[:most]} ..."


class Stopped(KeyboardInterrupt):
    """A signal ends the command: SIGINT, which is Ctrl-C, or SIGTERM. What is finished is kept.

    Its text is the sentence for the user, and `how` its beginning; `exit_code` is what a shell gives for the
    signal.
    """

    def __init__(self, number: int) -> None:
        self.how = "Interrupted" if number == signal.SIGINT else f"Stopped by {signal.Signals(number).name}"
        super().__init__(f"{self.how}. Finished work is kept: run the same command again to resume.")
        self.exit_code = 128 + number


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Return the error for a name that is not one of `known`: it lists them, and names the nearest.

    kind: what is named, as in "backbone".
    """
    names = list(known)
    meant = get_close_matches(name, names, 1)
    hint = f"; did you mean {meant[0]}?" if meant else ""
    return InputError(f"{kind} {name!r} is not one of {', '.join(names)}{hint}")
