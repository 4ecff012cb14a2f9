"""Commands that a message tells its reader to type."""

import shlex

__all__ = ["typed"]


def typed(command: str, *words: object) -> str:
    """Return `hmnet-pipe COMMAND WORDS` as a shell reads it: a path may hold blanks or quotes."""
    return shlex.join(["hmnet-pipe", command, *map(str, words)])
