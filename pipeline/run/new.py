"""What commands make of their options: the configuration of a run, new or existing, and the trials."""

import errno
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from ...manifests.errors import InputError
from ...manifests.files import read_text, write_text
from ...manifests.run import RunFolder
from ...manifests.schemas import SAMPLES
from ...manifests.tables import read_batches
from ...manifests.trial import RUN, Trial
from ...stages.base.settings import absolute_files
from ...stages.base.tools import Tools, counted
from ...stages.demo.corpus import write_demo_corpus
from ...stages.demo.diagnostic import write_diagnostic_corpus
from ...stages.learning.recipe import Recipes
from ...stages.prepare.identity import compare_with_paper
from ...stages.prepare.readers import read_samples
from ...stages.prepare.settings import PrepareSettings
from ...stages.vision.copies import copy_images, failed_copies, is_source
from .config import RunConfig
from .locks import hold
from .presets import preset
from .runner import Report, run_stage

__all__ = [
    "add_recipes",
    "add_starts",
    "configured",
    "prepare_config",
    "prepare_run",
    "trials_of",
    "with_options",
    "write_options",
]


_GENERATED: Mapping[str, Callable[..., None]] = {
    "demo": write_demo_corpus,
    "diagnostic": write_diagnostic_corpus,
}
"""What draws the corpus of a preset that brings its own."""


def configured(run: RunFolder, options: Mapping[str, Mapping[str, Any]]) -> RunConfig:
    """Return the configuration of a run with `options`, by table; `write_options` keeps them."""
    return with_options(RunConfig.read(run.config), options)


def with_options(config: RunConfig, options: Mapping[str, Mapping[str, Any]]) -> RunConfig:
    """Return a configuration with `options`, by table."""
    for table, values in options.items():
        config = config.override(table, values)
        # A later command may be run from another folder, so relative paths are stored as absolute ones.
        named = absolute_files(config.tables[table])
        places = {name: place for name, place in named.items() if values.get(name)}
        config = config.override(table, places)
    return config


def write_options(run: RunFolder, options: Mapping[str, Mapping[str, Any]]) -> Callable[[], None]:
    """Write `options`, by table, into run.toml for a stage that starts, and return what takes them back.

    That puts run.toml back, unless somebody has changed it in the meantime.
    """
    if configured(run, options) == RunConfig.read(run.config):
        return lambda: None
    # Two commands that start at once, each with options of its own stage, must not overwrite each other's.
    with _writing(run):
        before = read_text(run.config)
        configured(run, options).write(run.config)
        after = read_text(run.config)

    def take_back() -> None:
        with _writing(run):
            if read_text(run.config) == after:
                write_text(run.config, before)

    return take_back


def add_recipes(run: RunFolder, recipes: Recipes) -> None:
    """Write recipes into run.toml as tables [recipes.NAME].

    Raises InputError where a recipe of the same name and other values is there: a training by it would no
    longer be what its name says.
    """
    with _writing(run):
        config = RunConfig.read(run.config)
        for name, values in recipes.items():
            there = config.recipes.get(name, values)
            if dict(there) != dict(values):
                raise InputError(
                    f"{run.config} has other values in [recipes.{name}]: {dict(there)}, not {dict(values)}; "
                    "give one of the two another name, or remove the table to train by the new values"
                )
        replace(config, recipes={**config.recipes, **recipes}).write(run.config)


def add_starts(run: RunFolder, starts: Mapping[str, Path]) -> None:
    """Write into run.toml where the models lie that trainings start from, by the digits of their digests."""
    places = {digits: str(path.absolute()) for digits, path in starts.items()}
    with _writing(run):
        config = RunConfig.read(run.config)
        if places.items() - config.starts.items():
            replace(config, starts={**config.starts, **places}).write(run.config)


def _writing(run: RunFolder) -> AbstractContextManager[None]:
    """Return a context manager that lets one process at a time write run.toml, which takes a moment."""
    return hold(run.lock("run"), f"{run.config} is being written", patience=60)


def prepare_config(
    run: RunFolder,
    preset_name: str,
    task: str | None,
    text: Path | None,
    images: str | Path | None,
    text_format: str,
    reading: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Return the configuration that prepare's options give a run, which may already exist.

    images: a folder, or what `is_source` knows: then they come into the run's folder of pictures. reading:
    further keys of [prepare], which count without --text too.

    Presets of generated corpora bring their own texts. Raises InputError where a new run gets no texts.
    """
    if preset_name in _GENERATED and text is None:
        task = task or (RunConfig.read(run.config).task if _is_there(run) else "ner")
        text = run.path / "corpus"
        images = images or text / "images"
    if text is not None:
        source = str(images) if images is not None and is_source(str(images)) else ""
        if source:
            images = run.path / "pictures"
            source = source if "://" in source else str(Path(source).absolute())
            reading = {**(reading or {}), "images_from": source}
        images = None if images is None else Path(images).resolve()
        config = preset(preset_name, task=task, text=text.resolve(), images=images, format=text_format)
        return with_options(_keeping_edits(config, run), {"prepare": reading or {}})
    if not _is_there(run):
        raise InputError(
            "prepare needs --text FOLDER, the folder with train.txt or train.jsonl "
            "(see hmnet-pipe prepare --help)"
        )
    if images is not None:
        raise InputError(
            "--images of a run that is there needs --text FOLDER, its texts, too; without both, prepare "
            "reads the places of run.toml again"
        )
    return configured(run, {"prepare": reading or {}})


def _is_there(run: RunFolder) -> bool:
    """Return whether the run has a run.toml, even one that cannot be read."""
    try:
        run.config.stat()
    except OSError as error:  # a link that leads back to itself is there, and refused when it is read
        return error.errno == errno.ELOOP
    return True


def _keeping_edits(config: RunConfig, run: RunFolder) -> RunConfig:
    """Keep what run.toml says about the other stages, unless the run gets another preset or task."""
    if not _is_there(run):
        return config
    old = RunConfig.read(run.config)
    if (old.preset, old.task) != (config.preset, config.task):
        return config
    edited = replace(old, tables={**old.tables, "prepare": config.tables["prepare"]})
    return edited.override("prepare", {"negative": old.of(PrepareSettings).negative})


def prepare_run(run: RunFolder, config: RunConfig, tools: Tools) -> Report:
    """Bring prepare up to date and write run.toml, drawing a generated corpus where it is missing.

    The report compares the data with the paper's table. The comparison is not part of the record, since a run
    can be given another preset without any change to its tables.
    """
    corpus = run.path / "corpus"
    generate = _GENERATED.get(config.preset)
    its_own = config.of(PrepareSettings).text == corpus.resolve()
    # The last file that the generator writes stands for all of them.
    if generate is not None and its_own and not (corpus / "test.jsonl").is_file():
        generate(corpus, config.task, tools=tools)
    _copy_images(config, tools)
    report = run_stage(config.stage("prepare", run), tools)
    config.write(run.config)
    # Read only if the preset has a table to compare with.
    rows = (row for part in read_batches(run.samples, SAMPLES) for row in part.to_pylist())
    return replace(report, details={**report.details, **compare_with_paper(config.preset, rows)})


def _copy_images(config: RunConfig, tools: Tools) -> None:
    """Copy the images that the texts name and the run lacks, where they come from elsewhere."""
    settings = config.of(PrepareSettings)
    if settings.images is None or not settings.images_from:
        return
    samples, _ = read_samples(settings.text, config.task, settings.format, settings.reading)
    names = {one.image for one in samples if one.image is not None}
    copied = copy_images(settings.images_from, settings.images, names, tools)
    failed = failed_copies(settings.images)
    tools.say(f"copied {counted(copied, 'images')} from {settings.images_from}, {len(failed)} failed")


def trials_of(
    systems: Sequence[str],
    seeds: Sequence[int],
    shots: Sequence[int] = (0,),
    subset_seeds: Sequence[int] = (1,),
    features: str = "",
    start: str = "",
    recipes: Sequence[str] = (RUN,),
    percent: int = 0,
    natural: bool = False,
) -> list[Trial]:
    """Return every combination as a trial, each one once: where nothing is drawn there is no subset."""
    trials = [
        Trial(
            system,
            seed,
            number,
            subset if number or percent else 1,
            start,
            features,
            recipe,
            percent,
            natural,
        )
        for system, recipe, seed, number, subset in product(systems, recipes, seeds, shots, subset_seeds)
    ]
    return list(dict.fromkeys(trials))
