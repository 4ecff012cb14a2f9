"""The record that each finished stage leaves in its run: what its result was made from, and what came out."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .errors import StageError
from .files import write_text
from .fingerprint import digest_json

__all__ = ["StageRecord"]


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
            f"{name}: {_short(mine.get(name, 'absent'))} -> {_short(theirs.get(name, 'absent'))}"
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
            values = json.loads(path.read_text(encoding="utf-8"))
            values.pop("fingerprint")
            return cls(**values)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StageError(f"{path} is damaged ({error}); delete it and run its stage again") from error


def _short(value: Any) -> str:
    """Return a value as text; digests are shortened to what a person can compare."""
    text = str(value)
    return text[:12] if len(text) == 64 and all(letter in "0123456789abcdef" for letter in text) else text
