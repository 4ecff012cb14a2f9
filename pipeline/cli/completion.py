"""What a shell offers as the next word: systems, presets, feature sets, settings, runs; needs no torch."""

import glob
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import Field
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ...manifests.errors import HmnetPipeError
from ...manifests.printable import printable
from ...manifests.run import RunFolder
from ...manifests.trial import AS_PUBLISHED, RUN
from ...stages.systems.registry import SYSTEMS
from ...stages.vision.backbones import BACKBONES
from ...stages.vision.detectors import DETECTORS
from ...stages.vision.sets import SETS
from ..run.config import RunConfig

__all__ = ["Offer", "feature_sets", "of_setting", "one_of", "recipes", "runs", "systems"]

Offer = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]
"""Returns the words that go on as the last, unfinished one begins: what click calls shell_complete."""

_NAMES: dict[str, Iterable[str]] = {
    "detector": DETECTORS,
    "backbone": BACKBONES,
    "device": ("auto", "cpu", "cuda", "mps"),
}


def one_of(words: Iterable[str], *, or_file: bool = False) -> Offer:
    """Return the offer of these words. or_file: where none fits, files are offered."""
    known = list(words)

    def offer(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem[str]]:
        fitting = _fitting(known, begun)
        return fitting if fitting or not or_file else [CompletionItem(begun, type="file")]

    return offer


def of_setting(field: "Field[Any]") -> Offer | None:
    """Return the offer for the option of a setting: its words, or None for a number."""
    words, files = field.metadata.get("one_of") or _NAMES.get(field.name), field.metadata.get("words")
    if words is None and files is None:
        return None
    return one_of(words or files or (), or_file=files is not None)


def runs(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem[str]]:
    """Offer the runs in this folder and the ones in it, otherwise folders."""
    head = begun[: begun.rfind("/") + 1]
    folder, name = Path(head or "."), glob.escape(begun.removeprefix(head))
    paths = (path for deep in ("*", "*/*") for path in folder.glob(f"{name}{deep}/run.toml"))
    found = {head + path.parent.relative_to(folder).as_posix() for path in paths}
    return _fitting(sorted(filter(_is_plain, found)), begun) or [CompletionItem(begun, type="dir")]


def systems(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem[str]]:
    """Offer the systems, or only those for the task of the run that is given already."""
    config = _config(ctx)
    names = (info.name for info in SYSTEMS.values() if config is None or config.task in info.tasks)
    return _fitting(names, begun)


def feature_sets(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem[str]]:
    """Offer the feature sets that are built in, and those of the run that is given already."""
    config = _config(ctx)
    return _fitting(dict.fromkeys([*SETS, *(config.sets if config else ())]), begun)


def recipes(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem[str]]:
    """Offer the recipes that every run has, and those of the run that is given already."""
    config = _config(ctx)
    return _fitting([RUN, AS_PUBLISHED, *(config.recipes if config else ())], begun)


def _is_plain(path: str) -> bool:
    """Return whether a shell can be handed a path as one line that steers no terminal."""
    return printable(path) == path


def _config(ctx: click.Context) -> RunConfig | None:
    """Return the configuration of the run that stands on the command line, where there is one."""
    # Behind an option without its value, which is to come, arguments are left as they are.
    run = ctx.params.get("run") or next((word for word in ctx.args if not word.startswith("-")), None)
    with suppress(HmnetPipeError):
        return RunConfig.read(RunFolder(Path(run)).config) if run else None
    return None


def _fitting(words: Iterable[str], begun: str) -> list[CompletionItem[str]]:
    return [CompletionItem(word) for word in words if word.startswith(begun)]
