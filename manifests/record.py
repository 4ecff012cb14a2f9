"""The record that each finished stage leaves in its run: what its result was made from, and what came out."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .errors import StageError
from .files import read_text, reason_of, write_text
from .fingerprint import digest_json

__all__ = ["StageRecord"]

# The letters of a value that is shown whole where it has changed.
_LONG = 60


@dataclass(frozen=True)
class StageRecord:
    """The provenance of a finished stage, kept as stages/<stage>.json.

    `schema_version`, `parameters`, `inputs` and `weights` make the fingerprint: whatever can change the
    stage's result and nothing else (no paths, no worker count). `inputs`, `weights` and `outputs` map a name
    to a content digest. `facts` holds what is useful to know and changes nothing: versions, host, counts,
    seconds.
    """

    stage: str
    schema_version: int
    parameters: dict[str, Any]
    inputs: dict[str, str]
    weights: dict[str, str]
    outputs: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        return digest_json(
            {
                "stage": self.stage,
                "schema_version": self.schema_version,
                "parameters": self.parameters,
                "inputs": self.inputs,
                "weights": self.weights,
            }
        )

    def changes(self, other: "StageRecord") -> list[str]:
        """Return each fingerprinted field in which `other` (the newer) differs: `seed: 1 -> 2`."""
        mine, theirs = self._fields(), other._fields()
        return [
            f"{name}: {' -> '.join(_apart(mine.get(name, 'absent'), theirs.get(name, 'absent')))}"
            for name in sorted({*mine, *theirs})
            if mine.get(name, "absent") != theirs.get(name, "absent")
        ]

    def _fields(self) -> dict[str, Any]:
        groups = {"inputs": self.inputs, "weights": self.weights}
        digests = {
            f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()
        }
        return {"schema_version": self.schema_version, **self.parameters, **digests}

    def write(self, path: Path) -> None:
        write_text(
            path,
            json.dumps({"fingerprint": self.fingerprint, **asdict(self)}, indent=2, sort_keys=True) + "\n",
        )

    @classmethod
    def known(cls, path: Path) -> "StageRecord | None":
        """Return the record at `path`, or None where there is none that can be read."""
        try:
            return cls.read(path)
        except StageError:
            return None

    @classmethod
    def read(cls, path: Path) -> "StageRecord | None":
        """Return the record at `path`, or None where the stage never finished.

        Raises StageError where the file is damaged.
        """
        try:
            values = json.loads(read_text(path))
            values.pop("fingerprint")
            record = cls(**values)
            record._check_types()
            return record
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise StageError(
                f"{path} is damaged ({reason_of(error)}); delete it and run its stage again"
            ) from error

    def _check_types(self) -> None:
        """Raise TypeError where a field of a record that was read is not of its type."""
        if not isinstance(self.stage, str) or type(self.schema_version) is not int:
            raise TypeError("its stage is no text, or its schema_version no whole number")
        for name in ("parameters", "inputs", "weights", "outputs", "facts"):
            values = getattr(self, name)
            if not isinstance(values, dict):
                raise TypeError(f"its {name} are no table")
            if name in ("inputs", "weights", "outputs") and not all(
                isinstance(digest, str) for digest in values.values()
            ):
                raise TypeError(f"its {name} are no digests")
        for name in ("counts", "machine", "settings", "versions"):
            if not isinstance(self.facts.get(name, {}), dict):
                raise TypeError(f"its facts' {name} are no table")


def _apart(old: Any, new: Any) -> tuple[str, str]:
    """Return two values as texts that a person can compare: of long ones, only the words that differ."""
    pair = _short(old), _short(new)
    if max(map(len, pair)) <= _LONG:
        return pair
    words = [text.split() for text in pair]
    least = min(map(len, words))
    first = next((i for i in range(least) if words[0][i] != words[1][i]), least)
    same = next((i for i in range(least - first) if words[0][-1 - i] != words[1][-1 - i]), least - first)
    before, after = "... " * (first > 0), " ..." * (same > 0)
    old_part, new_part = (" ".join(part[first : len(part) - same])[:_LONG] for part in words)
    return f"{before}{old_part}{after}", f"{before}{new_part}{after}"


def _short(value: Any) -> str:
    """Return a value as text; digests are shortened to what a person can compare."""
    text = str(value)
    return text[:12] if len(text) == 64 and all(letter in "0123456789abcdef" for letter in text) else text
