"""The presets: run.toml of a new run, for the paper's data sets, the demonstration and users' own data."""

from pathlib import Path
from typing import Any

from ...manifests.errors import InputError, unknown_name
from ...manifests.schemas import TASKS
from .config import RunConfig
from .graph import SETTINGS
from .recipes import PRESETS

__all__ = ["preset"]


def preset(name: str, *, task: str | None, text: Path, images: Path | None, format: str) -> RunConfig:
    """Return a new run's configuration.

    Raises InputError for an unknown preset, or where the task is neither given nor the preset's.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    own = PRESETS[name]
    if task is None and own.task is None:
        raise InputError(f"--task is needed with --preset {name}: ner (entities) or re (relations)")
    if task is not None and own.task is not None and task != own.task:
        raise InputError(f"--preset {name} is for --task {own.task}, not {task}")
    chosen = task or own.task
    if chosen not in TASKS:
        raise InputError(f"--task must be one of {', '.join(TASKS)}, not {chosen!r}")
    values: dict[str, dict[str, Any]] = {table: {**own.tables.get(table, {})} for table in SETTINGS}
    values["prepare"] |= {"text": text, "images": images, "task": chosen, "format": format}
    values["train"] |= own.train[chosen]
    if own.encoder:
        values["train"]["encoder"] = str(text / own.encoder)
    return RunConfig(name, chosen, {table: SETTINGS[table](**given) for table, given in values.items()})
