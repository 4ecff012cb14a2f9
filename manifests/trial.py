"""What names one training of a run: its folder, its record and its row in every table."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .errors import InputError, unknown_name

__all__ = ["AS_PUBLISHED", "MOST_SEED", "PRETRAINED", "RUN", "TRAINED", "Trial"]

PRETRAINED = ""
TRAINED = "train"

RUN, AS_PUBLISHED = "run", "as-published"
"""Recipes: that of run.toml, one for all systems; and the system's own, as it was published."""

MOST_SEED = 2**63 - 1
"""The largest seed that every generator takes, and a table's column of whole numbers holds."""

# Of a sample's class, more than any data set has.
_MOST_SHOTS = 10**9

_LABEL = (
    r"seed-(?P<seed>[0-9]+)"
    r"(?:-shots-(?P<shots>[0-9]+)-subset-(?P<subset_seed>[0-9]+))?"
    rf"(?:-(?P<recipe>{AS_PUBLISHED}))?"
    rf"(?:-from-(?P<start>{TRAINED}|[0-9a-f]{{8}}))?"
    r"(?:-on-(?P<features>[a-z0-9_-]+))?"
)


@dataclass(frozen=True, order=True)
class Trial:
    """One training. Two trials of a run never write to one place.

    seed, subset_seed: from 0 to MOST_SEED.
    shots: samples of each class in the low-resource setting, drawn with `subset_seed`; 0: all samples.
    start: where an end-to-end training starts: PRETRAINED weights, the TRAINED model of the same system, seed
    and shots, or the first 8 hexadecimal digits of the digest of another model.
    features: the feature set that the system reads; "": the one that the system asks for.
    recipe: RUN or AS_PUBLISHED.
    """

    system: str
    seed: int = 1
    shots: int = 0
    subset_seed: int = 1
    start: str = PRETRAINED
    features: str = ""
    recipe: str = RUN

    def __post_init__(self) -> None:
        for name, most in (("seed", MOST_SEED), ("subset_seed", MOST_SEED), ("shots", _MOST_SHOTS)):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= most:
                option = name.replace("_", "-")
                raise InputError(f"{option} must be a whole number from 0 to {most}, not {value!r}")
        if self.recipe not in (RUN, AS_PUBLISHED):
            raise unknown_name("--recipe", self.recipe, (RUN, AS_PUBLISHED))

    @property
    def label(self) -> str:
        """Return the name of the trial among those of its system, `seed-1` where nothing else is set."""
        shots = f"-shots-{self.shots}-subset-{self.subset_seed}" if self.shots else ""
        start = f"-from-{self.start}" if self.start else ""
        features = f"-on-{self.features}" if self.features else ""
        recipe = f"-{self.recipe}" if self.recipe != RUN else ""
        return f"seed-{self.seed}{shots}{recipe}{start}{features}"

    @property
    def name(self) -> str:
        """Return the name of the trial in its run, `hmnet-seed-1`."""
        return f"{self.system}-{self.label}"

    @property
    def title(self) -> str:
        """Return the name of the trial for people, `hmnet seed 1`."""
        extras = "".join(f", {name.replace('_', ' ')} {value}" for name, value in self.extras.items())
        return f"{self.system} seed {self.seed}{extras}"

    @property
    def extras(self) -> dict[str, Any]:
        """Return whatever names the trial besides system and seed; nothing for most trials."""
        shots = {"shots": self.shots, "subset_seed": self.subset_seed} if self.shots else {}
        start = {"start": self.start} if self.start else {}
        features = {"features": self.features} if self.features else {}
        recipe = {"recipe": self.recipe} if self.recipe != RUN else {}
        return {**shots, **recipe, **start, **features}

    @property
    def options(self) -> str:
        """Return the options by which the commands name the trial, which include no start but `train`."""
        shots = f" --shots {self.shots} --subset-seed {self.subset_seed}" if self.shots else ""
        start = f" --from {TRAINED}" if self.start == TRAINED else ""
        features = f" --features {self.features}" if self.features else ""
        recipe = f" --recipe {self.recipe}" if self.recipe != RUN else ""
        return f"--system {self.system} --seed {self.seed}{shots}{recipe}{start}{features}"

    @property
    def trained(self) -> "Trial":
        """Return the trial on cached features of the same system, seed and samples."""
        return replace(self, start=PRETRAINED)

    @classmethod
    def of(cls, folder: Path, prefix: str = "") -> "Trial | None":
        """Return the trial of a folder models/<system>/<prefix><label>, or None for other folders."""
        return cls._parsed(folder.parent.name, folder.name.removeprefix(prefix))

    @classmethod
    def named(cls, name: str) -> "Trial | None":
        """Return the trial that has this `name`, or None where none has it."""
        found = re.fullmatch(rf"(?P<system>.+?)-(?P<label>{_LABEL})", name)
        return None if found is None else cls._parsed(found["system"], found["label"])

    @classmethod
    def _parsed(cls, system: str, label: str) -> "Trial | None":
        if (found := re.fullmatch(_LABEL, label)) is None:
            return None
        given = {name: found[name] for name in ("seed", "shots", "subset_seed") if found[name]}
        if any(len(digits) > len(str(MOST_SEED)) for digits in given.values()):
            return None  # Python refuses to read thousands of digits
        numbers = {name: int(digits) for name, digits in given.items()}
        try:
            return cls(
                system,
                **numbers,
                start=found["start"] or PRETRAINED,
                features=found["features"] or "",
                recipe=found["recipe"] or RUN,
            )
        except InputError:
            return None  # a folder of someone's own
