"""What names one training of a run: its folder, its record and its row in every table."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .errors import InputError, unknown_name

__all__ = ["AS_PUBLISHED", "MOST_SEED", "PRETRAINED", "RUN", "TRAINED", "Trial", "check_recipe_name"]

PRETRAINED = ""
TRAINED = "train"

RUN, AS_PUBLISHED = "run", "as-published"
"""Recipes: [train] of run.toml, one for all systems; and the system's own, as it was published.

Any other name is that of a table [recipes.NAME] of run.toml.
"""

# No hyphen, which parts the words of a label, and no dot, which ends a name where files have suffixes.
_RECIPE = r"[a-z0-9_]+"

MOST_SEED = 2**63 - 1
"""The largest seed that every generator takes, and a table's column of whole numbers holds."""

# Of a sample's class, more than any data set has.
_MOST_SHOTS = 10**9

_LABEL = (
    r"seed-(?P<seed>[0-9]+)"
    r"(?:-(?:shots-(?P<shots>[0-9]+)|percent-(?P<percent>[0-9]+))(?P<natural>-natural)?"
    r"-subset-(?P<subset_seed>[0-9]+))?"
    rf"(?:-(?P<published>{AS_PUBLISHED})|-by-(?P<recipe>{_RECIPE}))?"
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
    recipe: RUN, AS_PUBLISHED, or the name of a table [recipes.NAME] of run.toml.
    percent: in place of shots, the share of all training samples that is drawn, whatever their classes.
    natural: with shots, samples without anything to find are drawn too, by their share in the whole split.
    """

    system: str
    seed: int = 1
    shots: int = 0
    subset_seed: int = 1
    start: str = PRETRAINED
    features: str = ""
    recipe: str = RUN
    percent: int = 0
    natural: bool = False

    def __post_init__(self) -> None:
        bounds = {"seed": MOST_SEED, "subset_seed": MOST_SEED, "shots": _MOST_SHOTS, "percent": 100}
        for name, most in bounds.items():
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= most:
                option = name.replace("_", "-")
                raise InputError(f"{option} must be a whole number from 0 to {most}, not {value!r}")
        if self.shots and self.percent:
            raise InputError("--shots and --percent cannot both be given; leave one of them out")
        if self.natural and not self.shots:
            raise InputError("--natural is for --shots; give both, or neither")
        if self.recipe not in (RUN, AS_PUBLISHED):
            check_recipe_name(self.recipe)

    @property
    def draws(self) -> bool:
        """Return whether it is trained on some of the training samples, which `subset_seed` draws."""
        return bool(self.shots or self.percent)

    @property
    def label(self) -> str:
        """Return the name of the trial among those of its system, `seed-1` where nothing else is set."""
        count = f"shots-{self.shots}" if self.shots else f"percent-{self.percent}"
        natural = "-natural" if self.natural else ""
        drawn = f"-{count}{natural}-subset-{self.subset_seed}" if self.draws else ""
        start = f"-from-{self.start}" if self.start else ""
        features = f"-on-{self.features}" if self.features else ""
        by = "-" if self.recipe == AS_PUBLISHED else "-by-"
        recipe = f"{by}{self.recipe}" if self.recipe != RUN else ""
        return f"seed-{self.seed}{drawn}{recipe}{start}{features}"

    @property
    def name(self) -> str:
        """Return the name of the trial in its run, `hmnet-seed-1`."""
        return f"{self.system}-{self.label}"

    @property
    def title(self) -> str:
        """Return the name of the trial for people, `hmnet seed 1`."""
        words = (
            name if value is True else f"{name.replace('_', ' ')} {value}"
            for name, value in self.extras.items()
        )
        return ", ".join([f"{self.system} seed {self.seed}", *words])

    @property
    def extras(self) -> dict[str, Any]:
        """Return whatever names the trial besides system and seed; nothing for most trials."""
        count = {"shots": self.shots} if self.shots else {"percent": self.percent}
        natural = {"natural": True} if self.natural else {}
        drawn = {**count, **natural, "subset_seed": self.subset_seed} if self.draws else {}
        start = {"start": self.start} if self.start else {}
        features = {"features": self.features} if self.features else {}
        recipe = {"recipe": self.recipe} if self.recipe != RUN else {}
        return {**drawn, **recipe, **start, **features}

    @property
    def options(self) -> str:
        """Return the options by which the commands name the trial, which include no start but `train`."""
        count = f"--shots {self.shots}" if self.shots else f"--percent {self.percent}"
        natural = " --natural" if self.natural else ""
        drawn = f" {count}{natural} --subset-seed {self.subset_seed}" if self.draws else ""
        start = f" --from {TRAINED}" if self.start == TRAINED else ""
        features = f" --features {self.features}" if self.features else ""
        recipe = f" --recipe {self.recipe}" if self.recipe != RUN else ""
        return f"--system {self.system} --seed {self.seed}{drawn}{recipe}{start}{features}"

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
        numbered = ("seed", "shots", "percent", "subset_seed")
        given = {name: found[name] for name in numbered if found[name]}
        if any(len(digits) > len(str(MOST_SEED)) for digits in given.values()):
            return None  # Python refuses to read thousands of digits
        numbers = {name: int(digits) for name, digits in given.items()}
        try:
            return cls(
                system,
                **numbers,
                start=found["start"] or PRETRAINED,
                features=found["features"] or "",
                recipe=found["published"] or found["recipe"] or RUN,
                natural=found["natural"] is not None,
            )
        except InputError:
            return None  # a folder of someone's own


def check_recipe_name(name: str) -> None:
    """Raise InputError for what cannot be the name of a table [recipes.NAME] of run.toml."""
    if not re.fullmatch(_RECIPE, name) or name == RUN:
        raise unknown_name(
            "--recipe", name, (RUN, AS_PUBLISHED, "a name of your own (small letters, digits and _)")
        )
