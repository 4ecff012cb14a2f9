"""How a stage's settings are declared: a default, and the help that its option and run.toml show."""

from dataclasses import field, fields
from pathlib import Path
from typing import Any

__all__ = ["local_files", "setting"]


def setting(default: Any, help: str, option: str | None = None, words: tuple[str, ...] | None = None) -> Any:
    """Return a field of a settings dataclass.

    help: the help of its command-line option and its comment in run.toml.
    option: the name of the option where it differs from the field's (`from` cannot be a field).
    words: for a field that may name a file or folder, the values that never do, even if such a file exists.
    """
    return field(default=default, metadata={"help": help, "option": option, "words": words})


def local_files(settings: Any) -> dict[str, Path]:
    """Return, by field, the files and folders that the settings name and that exist here."""
    found: dict[str, Path] = {}
    for each in fields(settings):
        words, value = each.metadata.get("words"), getattr(settings, each.name)
        if words is not None and value not in words and (path := Path(value).expanduser()).exists():
            found[each.name] = path
    return found
