"""How a stage's settings are declared: a default, the help of its option and of run.toml, and its range."""

import math
from dataclasses import field, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_origin

from ...manifests.errors import InputError, unknown_name
from ...manifests.files import is_utf8

__all__ = ["HUB", "TIMM", "absolute_files", "check_settings", "local_files", "setting", "split_hub"]

HUB = "hf:"
"""What stands before a Hugging Face name or a folder with such files, where other names are taken too."""

TIMM = "timm:"
"""What stands before a name of timm's, or a folder or a hub's name with files as timm writes them."""

# More than any file system takes.
_MOST_LETTERS = 4096


def setting(
    default: Any,
    help: str,
    option: str | None = None,
    words: tuple[str, ...] | None = None,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    one_of: tuple[str, ...] | None = None,
) -> Any:
    """Return a field of a settings dataclass, whose __post_init__ calls `check_settings`.

    help: the help of its command-line option and its comment in run.toml.
    option: the name of the option where it differs from the field's (`from` cannot be a field).
    words: for a field that may name a file or folder, the values that never do, even if such a file exists.
    at_least, at_most: the bounds of a number. An upper bound that the method does not set is one that no
    honest use reaches: beyond it a command would run for ever.
    one_of: the values of a text that may be one of a few.
    """
    facts = {"help": help, "option": option, "words": words}
    bounds = {"at_least": at_least, "at_most": at_most, "one_of": one_of}
    return field(default=default, metadata={**facts, **bounds})


def check_settings(table: str, settings: Any) -> None:
    """Check every value of a settings dataclass: of an option, run.toml, a lock or Python.

    table: the table of run.toml that holds them. A whole number where a float belongs is made one. Raises
    InputError for a value of another type, a number that is not finite or out of its range, a text that is
    none of its words, and a text or path that no file system takes.
    """
    for each in fields(settings):
        value, where = getattr(settings, each.name), f"[{table}] {each.name}"
        if each.type is float and type(value) is int:
            value = _as_float(value)
            object.__setattr__(settings, each.name, value)
        if not _is_of_type(value, each.type):
            raise InputError(f"{where} must be {_in_words(each.type)}, not {value!r}")
        if wrong := _out_of_range(value, each.metadata.get("at_least"), each.metadata.get("at_most")):
            raise InputError(f"{where} must be {wrong}, not {value!r}")
        if isinstance(value, str | Path) and (wrong := _no_text(str(value))):
            raise InputError(f"{where} {wrong}")
        words = each.metadata.get("one_of")
        if words is not None and value not in words:
            raise unknown_name(where, value, words)


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _is_of_type(value: Any, kind: Any) -> bool:
    """Return whether a value is of a field's type; a truth value is no number here."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind if isinstance(kind, UnionType) else get_origin(kind) or kind)


def _in_words(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return names.get(kind, "a path" if kind in (Path, Path | None) else f"of type {kind}")


def _out_of_range(value: Any, at_least: float | None, at_most: float | None) -> str | None:
    """Return what a number must be that is not finite or exceeds a bound, or None."""
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    if at_least is not None and value < at_least:
        return f"at least {at_least}"
    if at_most is not None and value > at_most:
        return f"at most {at_most}"
    return None


def _no_text(value: str) -> str | None:
    """Return what is wrong with a text that no path and no name can be, or None."""
    if "\0" in value:
        return f"holds a NUL character, which no path or name may: {value[:100]!r}"
    if not is_utf8(value):
        return f"is not UTF-8, as a path or name must be: {value[:100]!r}; rename it"
    if len(value) > _MOST_LETTERS:
        return f"is {len(value)} letters long; a path or name has at most {_MOST_LETTERS}"
    return None


def split_hub(name: str) -> tuple[str, str]:
    """Return HUB or TIMM, or nothing where `name` does not begin so, and the rest of it."""
    before = next((one for one in (HUB, TIMM) if name.startswith(one)), "")
    return before, name.removeprefix(before)


def local_files(settings: Any) -> dict[str, Path]:
    """Return, by field, the files and folders that the settings name and that exist here."""
    return {name: path for name, (_, path) in _named_files(settings).items()}


def absolute_files(settings: Any) -> dict[str, str]:
    """Return the same as values of the settings that name them from any folder."""
    return {name: f"{before}{path.absolute()}" for name, (before, path) in _named_files(settings).items()}


def _named_files(settings: Any) -> dict[str, tuple[str, Path]]:
    found: dict[str, tuple[str, Path]] = {}
    for each in fields(settings):
        words, value = each.metadata.get("words"), getattr(settings, each.name)
        if words is None or value in words:
            continue
        before, name = split_hub(value)
        if (path := _existing(name)) is not None:
            found[each.name] = before, path
    return found


def _existing(name: str) -> Path | None:
    """Return the path that `name` is if there is something, and None for a name that cannot be a path."""
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError):  # a part that is too long, or the home of a user who is not here
        return None
