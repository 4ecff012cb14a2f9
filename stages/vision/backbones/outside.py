"""Backbones of other libraries by `hf:` and `timm:`: what can be known of one before it is loaded; no torch.

What a network's maps are is found by one forward pass of it, and remembered by what it is: in this process,
and in a file of the user's cache folder, so that planning seldom imports torch.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ....manifests.errors import InputError, StageError
from ....manifests.files import write_text
from ....manifests.fingerprint import digest_file, digest_json
from ...base.settings import HUB, TIMM, split_hub
from ..hub import HubModel

__all__ = [
    "Facts",
    "NamedModel",
    "OutsideModel",
    "check_remembered",
    "facts_of",
    "is_outside",
    "outside_model",
]

_SCHEME = 3  # of what is remembered


@dataclass(frozen=True)
class Facts:
    """What one forward pass and a model's own files say of it.

    levels: channels of each level, from fine to coarse. strides: pixels of the view per cell of each level.
    mean, std, interpolation: how its pixels were prepared in training; size: the side of a view that it was
    trained with. own_size: whether it takes views of no other size.
    """

    levels: tuple[int, ...]
    strides: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    interpolation: str
    own_size: bool = False


@dataclass(frozen=True)
class NamedModel:
    """A network that timm has by name, with its published weights, a file of others, or random ones."""

    name: str
    choice: str

    @property
    def bare(self) -> str:
        """Return its name in timm, which may end in a dot and the name of its weights."""
        return split_hub(self.name)[1]

    @property
    def random(self) -> bool:
        """Return whether its weights are drawn from seed 0, as the user asked."""
        return self.choice == "random"

    def kind(self) -> str:
        """Return what decides its architecture: the name."""
        return self.bare

    def facts(self) -> dict[str, str]:
        """Return nothing: the name says it all."""
        return {}

    @property
    def file(self) -> Path:
        """Return the file of its weights, downloaded if need be.

        Raises InputError or WeightsError, which say how to get it.
        """
        if self.choice != "default":
            path = Path(self.choice).expanduser()
            if not path.is_file():
                raise InputError(f"--weights: {path} is not a file (give a file, 'default' or 'random')")
            return path
        found: Path = _resolved("timm").published(self.bare)
        return found

    def digest(self) -> str:
        """Return the digest of its weights."""
        return digest_json({"weights": self.choice if self.random else digest_file(self.file)})


OutsideModel = HubModel | NamedModel


def _resolved(module: str) -> Any:
    """Return a module beside this one that needs torch."""
    return import_module(f".{module}", __package__)


def is_outside(name: str) -> bool:
    """Return whether `name` is a backbone of another library than torchvision."""
    return bool(split_hub(name)[0])


def outside_model(name: str, choice: str) -> OutsideModel:
    """Return the backbone `name` with the weights that `choice` stands for.

    Raises InputError where nothing stands behind its prefix, or the library is not installed.
    """
    before, bare = split_hub(name)
    if not bare:
        raise InputError(f"--backbone {name}: give a name or a folder behind {before}")
    if before == TIMM and find_spec("timm") is None:
        raise InputError(f"--backbone {name} needs timm; run `pip install 'hmnet-pipe[timm]'`")
    folder = Path(bare).expanduser()
    own = choice not in ("default", "random") and Path(choice).expanduser().is_dir()
    if before == HUB or own or folder.is_dir() or "/" in bare or bare.startswith((".", "~")):
        return HubModel(name, choice, "backbone")
    return NamedModel(name, choice)


_KNOWN: dict[str, Facts] = {}


def facts_of(model: OutsideModel) -> Facts:
    """Return the facts of a backbone: remembered ones, or those of a forward pass of it.

    Raises InputError or WeightsError where it is none.
    """
    key = _key(model)
    if key not in _KNOWN:
        _KNOWN[key] = _remembered(key) or _measured(model, key)
    return _KNOWN[key]


def _key(model: OutsideModel) -> str:
    before = split_hub(model.name)[0]
    library = "transformers" if before == HUB else "timm"
    try:
        found = version(library)
    except PackageNotFoundError:
        found = ""
    known = {"model": before + model.kind(), "files": model.facts(), library: found, "scheme": _SCHEME}
    return digest_json(known)


def _place(key: str) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "hmnet-pipe" / "backbones" / f"{key}.json"


def _remembered(key: str) -> Facts | None:
    with suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
        values: Mapping[str, Any] = json.loads(_place(key).read_text(encoding="utf-8"))
        known: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        facts = Facts(**known)
        return facts if _possible(facts) else None
    return None


def _possible(facts: Facts) -> bool:
    """Return whether what was read can be the facts of a backbone: another program may have written it."""
    sides = (*facts.levels, *facts.strides, facts.size)
    return (
        len(facts.levels) == len(facts.strides) > 0
        and len(facts.mean) == len(facts.std) == 3
        and all(type(side) is int and side > 0 for side in sides)
        and all(type(value) is float for value in (*facts.mean, *facts.std))
        and type(facts.interpolation) is str
        and type(facts.own_size) is bool
    )


def check_remembered(model: OutsideModel, facts: Facts) -> None:
    """Raise StageError where the facts of a network are not the remembered ones, which planning used."""
    key = _key(model)
    known = _KNOWN.get(key) or _remembered(key)
    if known is not None and replace(known, own_size=facts.own_size) != facts:
        raise StageError(
            f"{_place(key)} remembers other maps of {model.name} than it has (levels {known.levels} and not "
            f"{facts.levels}); delete this file, and run the command again"
        )


def _measured(model: OutsideModel, key: str) -> Facts:
    facts: Facts = _resolved("other").build_other(model, random=True).facts
    with suppress(OSError, RuntimeError):  # no cache folder: the next process measures again
        _place(key).parent.mkdir(parents=True, exist_ok=True)
        write_text(_place(key), json.dumps(asdict(facts)))
    return facts
