"""One training from tables to a model's folder, in the parts that `train` and `finetune` share.

It imports no stage.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from ...cache.spec import FeatureSpec
from ...manifests.errors import InputError, StageError
from ...manifests.files import remove_temporaries, write_text
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.schemas import HISTORY, SAMPLES
from ...manifests.tables import read_table, table_of, write_table
from ..base.tools import Counts, Tools, counted
from ..systems.batch import ModelConfig
from ..systems.hub import CARD
from ..systems.registry import SUBWORDS, TEMPERATURE_FILE, SystemInfo, system_info
from ..systems.system import Model
from ..text.encoded import counted_pieces, shortened
from ..text.reader import TextReader
from ..text.subwords import Subwords
from ..text.vectors import Vectors
from .batches import Visuals
from .card import card_of, keep_card
from .checkpoint import Checkpoints
from .columns import COLUMNS, distinct
from .draws import drawn, subset_digest
from .inputs import new_options, open_extras
from .loop import Task, Trainer
from .made_by import TRAINED
from .negative import NO_NEGATIVE, negative_relation
from .predictions import predictions_table, score_split
from .ranks import Ranks, current_ranks
from .recipe import TrainingJob
from .signals import wishes
from .splits import Split, read_split
from .transfer import kept_options, source_of
from .words import new_words, word_dim, word_options

__all__ = ["Data", "config_of", "fit", "join", "labels_of", "read_data"]


# The share of unknown sub-words from which on an encoder hardly fits the texts.
_UNKNOWN_SHARE = 0.03


@dataclass(frozen=True)
class Data:
    """The texts of a training: its splits, its labels, and what reads them.

    negative: the relation that counts as nothing to find, or None. options, encoder: of a new model
    (ModelConfig), the encoder's as far as it is known before there is one. vectors: those of a file that
    words start from, or None.
    """

    splits: dict[str, Split]
    labels: tuple[str, ...]
    reader: TextReader
    negative: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    encoder: dict[str, Any] = field(default_factory=dict)
    vectors: Vectors | None = None


def join(job: TrainingJob) -> Ranks:
    """Return the ranks that train together, seeded.

    Raises InputError where they are not as many as run.toml says.
    """
    ranks, wanted = current_ranks(), job.recipe.processes
    if ranks.size != wanted:
        raise InputError(
            f"{job.config} says processes = {wanted} in [train], and there are {ranks.size}; set it there or "
            f"with --processes {ranks.size}, or start "
            f"`torchrun --nproc-per-node {wanted} --no-python {job.command}`"
        )
    torch.manual_seed(job.trial.seed)
    return ranks


def read_data(
    job: TrainingJob, visuals: Visuals | None, tools: Tools, spec: FeatureSpec | None = None
) -> Data:
    """Read and encode the samples, and say what is unusual about them.

    spec: of the features that the system reads. Raises StageError without a training sample, or without a
    table that the system reads.
    """
    samples = read_table(job.samples, SAMPLES, "prepare", COLUMNS)
    splits = {name: read_split(samples, name, task=job.task) for name in ("train", "valid", "test")}
    negative = negative_relation(samples.column("relation").unique().to_pylist(), job.negative)
    splits["train"] = drawn(splits["train"], job.trial, negative)
    info, run = system_info(job.trial.system), RunFolder(job.config.parent)
    options = new_options(info, run, splits["train"].image_keys, spec)
    if job.start is not None:
        options.update(kept_options(job.start))
    reader: TextReader
    encoder, vectors = {}, None
    if info.text == SUBWORDS:
        assert job.encoder is not None
        reader = (
            Subwords.of_encoder(job.encoder, job.task)
            if job.start is None
            else Subwords.of_model(job.start).for_task(job.task)
        )
    else:
        others = [*splits["valid"].tokens, *splits["test"].tokens]
        reader, vectors = new_words(job, splits["train"].tokens, others, options, tools)
        options.update(word_options(job, vectors))
        encoder = {"word_dim": word_dim(job, vectors)}
    splits = {name: split.encoded(reader, job.recipe.max_length) for name, split in splits.items()}
    labels = labels_of(splits["train"], job.task)
    if job.task == "re" and negative is None:
        tools.say(f"note: {NO_NEGATIVE}")
    _warn(job, tools, splits, labels, visuals, negative)
    _warn_of_unknown(job, tools, splits, reader)
    if spec is not None and (note := features_note(info, job.trial.features, spec)):
        tools.say(f"note: {note}")
    extras = open_extras(info, run, options, reader, job.recipe.max_length)
    splits = {name: replace(split, extras=extras) for name, split in splits.items()}
    return Data(splits, labels, reader, negative, options, encoder, vectors)


def config_of(job: TrainingJob, data: Data, spec: FeatureSpec | None) -> ModelConfig:
    """Return the configuration of a new model. spec: of the features that it reads, None for text alone."""
    recipe = job.recipe
    levels = spec.levels if spec is not None else ()
    features = spec.identity if spec is not None else None
    return ModelConfig(
        job.trial.system,
        job.task,
        data.labels,
        levels,
        recipe.relation_head,
        recipe.max_length,
        data.encoder,
        features,
        {**data.options, **({"head_dropout": recipe.head_dropout} if recipe.head_dropout >= 0 else {})},
    )


def fit(
    job: TrainingJob, model: Model, data: Data, visuals: Visuals | None, ranks: Ranks, tools: Tools
) -> Counts:
    """Train `model`, resuming if it can.

    Rank 0 writes the model of the best epoch, its scores, predictions and history. Raises Stopped, with a
    checkpoint written, where a signal asks for it.
    """
    splits, pad_id = data.splits, data.reader.pad_id
    trial, negative = job.trial, data.negative
    task = Task(job.title, job.recipe, trial.seed, splits, visuals, pad_id, job.rates, job.logs, negative)
    trainer = Trainer(task, model, Checkpoints(job.checkpoints, job.checkpoint_seconds), ranks)
    with wishes() as trainer.wish:
        samples = trainer.run(tools)
        predicted = trainer.predict(splits["test"], tools)
        details = _finished(job, trainer, data, visuals, predicted, tools) if ranks.leads else {}
        trainer.close()
    return Counts("sample passes", done=samples, details=details)


def _finished(
    job: TrainingJob,
    trainer: Trainer,
    data: Data,
    visuals: Visuals | None,
    predicted: Sequence[Sequence[str]],
    tools: Tools,
) -> dict[str, Any]:
    """Write what a finished training makes, and return the details of its summary.

    predicted: the test split's predictions.
    """
    model, splits = trainer.model, data.splits
    details: dict[str, Any] = {"best epoch": trainer.progress.best_epoch}
    remove_temporaries(job.folder)
    model.set_made_by({**job.made_by, TRAINED: {"parameters": {"precision": trainer.precision}}})
    model.save_pretrained(job.folder, data.reader)
    (job.folder / TEMPERATURE_FILE).unlink(missing_ok=True)  # it was the one of another model
    metrics: dict[str, Any] = {
        "system": job.trial.system,
        "task": job.task,
        "seed": job.trial.seed,
        **job.trial.extras,
        **({"subset": _subset(splits["train"])} if job.trial.draws else {}),
        **({"started_from": source_of(job.start)} if job.start is not None else {}),
        **({"qualifiers": model.config.qualifiers} if model.config.qualifiers else {}),
        "best_epoch": trainer.progress.best_epoch,
        "valid": trainer.progress.best_scores,
        "test": score_split(splits["test"], predicted, job.task, data.negative)
        if len(splits["test"])
        else None,
        "parameter_groups": trainer.parameter_groups,
    }
    write_table(job.folder / "predictions.parquet", predictions_table(splits["test"], predicted, visuals))
    write_table(job.folder / "history.parquet", table_of(HISTORY, trainer.progress.history))
    write_text(job.folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    recipe = {**asdict(job.recipe), "precision": trainer.precision}
    prepared = StageRecord.known(RunFolder(job.config.parent).record("prepare"))
    title = job.trial.title + (", end to end" if "backbone" in job.rates else "")
    if not keep_card(job.folder, card_of(title, model.config, metrics, recipe, prepared)):
        tools.say(f"note: {job.folder / CARD} is not as it was written, and stays as it is")
    for split, words in (("test", "test F1"), ("valid", "validation F1")):
        if metrics[split]:
            details[words] = metrics[split]["f1"]
            break
    at, size = trainer.progress, len(splits["train"])
    details["epochs"] = f"{at.epoch} of {counted(size, 'samples')}"
    return details


def _subset(split: Split) -> dict[str, Any]:
    """Return what tells whether two trainings were given the same samples."""
    return {"samples": len(split), "digest": subset_digest(split)}


def _warn(
    job: TrainingJob,
    tools: Tools,
    splits: dict[str, Split],
    labels: Sequence[str],
    visuals: Visuals | None,
    negative: str | None,
) -> None:
    if not len(splits["train"]):
        raise StageError(f"{job.samples} holds no training sample; check the training file that prepare read")
    for name in ("valid", "test"):
        split = splits[name]
        if not len(split):
            consequence = "the last epoch is kept" if name == "valid" else "no test score is made"
            tools.say(f"warning: there is no {name} split; {consequence}")
        elif unseen := sorted((there := distinct(split.gold)) - set(labels)):
            tools.say(
                f"warning: {name} holds labels that training never saw, which can only be missed: "
                f"{', '.join(unseen)}"
            )
        elif there <= {"O", negative}:
            tools.say(
                f"warning: {name} holds nothing to find (every label is negative); its F1 is 0 by definition"
            )
    cut = sum(shortened(split.texts, split.tokens) for split in splits.values())
    if cut:
        tools.say(
            f"warning: {counted(cut, 'texts')} longer than max_length {job.recipe.max_length} "
            f"{'words' if job.encoder is None else 'sub-words'} "
            f"{'was' if cut == 1 else 'were'} shortened"
        )
    if visuals is not None:
        total = sum(map(len, splits.values()))
        with_features = sum(key in visuals for split in splits.values() for key in split.image_keys)
        if with_features < total:
            tools.say(
                f"note: {total - with_features} of {total} samples have no image features; "
                "for them the model is its text encoder"
            )


def _warn_of_unknown(job: TrainingJob, tools: Tools, splits: dict[str, Split], reader: TextReader) -> None:
    """Say how many sub-words the encoder does not know, where it is more than a few."""
    if job.encoder is None:
        return  # words that the training split lacks are unknown to any vocabulary of its own
    counts = [counted_pieces(split.texts, reader.unknown_id) for split in splits.values()]
    unknown = sum(number for number, _ in counts) / sum(pieces for _, pieces in counts)
    if unknown > _UNKNOWN_SHARE:
        tools.say(
            f"warning: {unknown:.1%} of the sub-words are unknown to the encoder in {job.encoder}; is it one "
            "of the language and script of these texts?"
        )


def features_note(info: SystemInfo, asked: str, spec: FeatureSpec) -> str:
    """Return what a system sees of an image by the feature set `asked`, or "" where that is its own.

    spec: of the set. A system made for 49 cells of an image is trained on 4 as well, and scores otherwise.
    """
    own = info.feature_set()
    if asked in ("", own):
        return ""
    views, cells = counted(spec.views, "views"), counted(spec.pooled**2, "cells")
    return (
        f"{info.name} reads {asked}, not {own}, which it was made for: of an image at most {views} "
        f"({spec.regions}), each of {cells}"
    )


def labels_of(split: Split, task: str) -> tuple[str, ...]:
    """Return the BIO tags (O first) or relations of the training split, in alphabetical order."""
    labels = distinct(split.gold)
    if task == "re":
        return tuple(sorted(labels))
    return (
        "O",
        *(
            f"{prefix}-{kind}"
            for kind in sorted({tag[2:] for tag in labels if tag != "O"})
            for prefix in "BI"
        ),
    )
