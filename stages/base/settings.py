"""How a stage's settings are declared: a default, and the help that its option and run.toml show."""

from dataclasses import field
from typing import Any

__all__ = ["setting"]


def setting(default: Any, help: str, option: str | None = None) -> Any:
    """A field of a settings dataclass. `help` becomes the help of its command-line option and its comment in run.toml.

    option: the name of the command-line option where it is not the field's (`from` cannot be a field).
    """
    return field(default=default, metadata={"help": help, "option": option})
