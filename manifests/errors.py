"""The errors that a user can cause, and that therefore carry their remedy. The command line prints them without a traceback."""

__all__ = ["HmnetPipeError", "InputError", "StageError", "WeightsError"]


class HmnetPipeError(Exception):
    """Base of every error whose one-sentence message names what is wrong and what to do. `exit_code` is the process's."""

    exit_code = 2


class InputError(HmnetPipeError):
    """A path, an option or a line of the user's input is wrong. The message names the file and, where there is one, the line."""


class WeightsError(HmnetPipeError):
    """Model weights are missing, unreadable or made for another architecture. The message names the file and where to put it."""


class StageError(HmnetPipeError):
    """A stage cannot run or cannot finish: the stage before it has not run, a lock is held, the disk is full, no worker is left."""

    exit_code = 1
