"""What `hmnet-pipe predict` does: which model is meant, one post, a stream, or a file in parts."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...manifests.advice import typed
from ...manifests.errors import InputError, StageError
from ...manifests.files import check_folder
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.trial import Trial
from ...stages.base.tools import Tools
from ...stages.predict.outputs import FILE_NAMES, results_in, write
from ...stages.predict.posts import Post, rest_of
from ...stages.predict.results import MISSING, Entity, PostImage, Result
from ...stages.vision.folder import ImageFolder
from ...stages.vision.images import UnusableImage
from ..run.evaluate import finetuned_model
from ..run.runner import Report, run_stage
from .part import Models
from .predictor import Predictor
from .stage import Predict, Source, check_image_folder

__all__ = ["model_meant", "predict_file", "shown", "streamed"]


def model_meant(name: str, system: str, seed: int, *, finetuned: bool = False) -> str:
    """Return the folder, or the name on the hub, of the model that a user means.

    name: either, or a run, of which it is the model of a system and a seed. finetuned: the one that finetune
    made. Raises InputError where a run has no such model.
    """
    path = Path(name)
    try:
        is_run = (path / "run.toml").exists()
    except OSError:  # a name that no file can have
        is_run = False
    if not is_run:
        return name
    run, trial = RunFolder(path), Trial(system, seed)
    if finetuned:
        return str(finetuned_model(run, trial))
    folder = run.model(trial)
    if not folder.is_dir():
        names = (f"{one.trained.options}{' --finetuned' * tuned}" for one, tuned in _models_of(run))
        there = list(dict.fromkeys(names))  # one model may have been tuned from several starts
        remedy = f"it has {', '.join(there)}" if there else f"run `{typed('train', path)}` first"
        raise InputError(f"{path} has no model of {system} with seed {seed}; {remedy}")
    return str(folder)


def _models_of(run: RunFolder) -> list[tuple[Trial, bool]]:
    """Return the trials that a system and a seed name, and whether finetune made their models."""
    found = [
        (trial, bool(prefix))
        for prefix in ("", "finetuned-")
        for folder in run.models.glob(f"*/{prefix}seed-*")
        if (trial := Trial.of(folder, prefix)) is not None
    ]
    return sorted(one for one in found if one[0].trained == Trial(one[0].system, one[0].seed))


def predict_file(
    models: Models, source: Source, output: Path, chunk: int, tools: Tools, format: str = "jsonl"
) -> Report:
    """Predict a file of posts into a folder, in parts of `chunk` posts.

    format: one of stages.predict.outputs.FORMATS, which is made from the predictions when all are there.
    Raises InputError where the folder is a run, and StageError where it holds another model's predictions.
    """
    if (output / "run.toml").exists():
        raise InputError(f"{output} is a run; give --output a folder of its own")
    check_folder(output)
    stage = Predict(output, models, source, chunk)
    record = StageRecord.read(stage.run.record(stage.name))
    if record is not None and record.weights != stage.weights():
        raise StageError(
            f"{output} holds the predictions of another model; give --output another folder, or delete it"
        )
    report = run_stage(stage, tools)
    if format == "jsonl":
        return report
    target = output / FILE_NAMES[format]
    numbered = results_in(output / FILE_NAMES["jsonl"])
    write(format, numbered, target, words=stage.predictor.words, model=models.model)
    return replace(report, output=target)


def streamed(predictor: Predictor, source: Source, size: int) -> Iterator[Result]:
    """Yield what is found in each post of a file, or of standard input, in its order.

    A line that is no post has a result with its error. Raises InputError where the folder of the images is
    none.
    """
    folder = None
    if source.images is not None and predictor.reads_images:
        check_image_folder(source.images)
        folder = ImageFolder(source.images.absolute(), known=source.images)
    group: list[Post] = []
    changes: list[Callable[[Result], Result]] = []

    def flushed() -> Iterator[Result]:
        for result, change in zip(predictor.found(group), changes, strict=True):
            yield change(result)

    for _, post in source.posts():
        if isinstance(post, InputError):
            group.append(rest_of(post))
            changes.append(partial(replace, error=str(post)))
        else:
            placed, image = _placed(post, folder)
            group.append(placed)
            changes.append(partial(_named, name=post.image, image=image))
        if len(group) == size:
            yield from flushed()
            group, changes = [], []
    yield from flushed()


def _named(result: Result, name: Any, image: PostImage | None) -> Result:
    """Return a result with the image's name in its post, and with what became of it where that is known."""
    known = isinstance(name, str)
    return replace(result, image=replace(image or result.image, name=name if known else None))


def _placed(post: Post, folder: ImageFolder | None) -> tuple[Post, PostImage | None]:
    """Return the post with its image's path, or without an image and with what became of it."""
    if folder is None or not isinstance(post.image, str):
        return post, None
    try:
        return replace(post, image=folder.locate(post.image)[0]), None
    except UnusableImage as error:
        return replace(post, image=None), PostImage(MISSING, str(error))


def shown(result: Result) -> list[str]:
    """Return what is found in a post as lines for people."""
    lines = [result.text]
    for entity in result.entities:
        lines.append(_shown(entity))
        lines += [f"  or{_shown(other)}" for other in entity.alternatives]
    for one in result.relations:
        head, tail = (
            result.entities[end].word if isinstance(end, int) else result.text[slice(*end)]
            for end in (one.head, one.tail)
        )
        lines.append(f"  {head} -> {tail}: {one.relation} {one.score:.1%}")
        lines += [f"    or {name} {score:.1%}" for name, score in one.alternatives]
    for word in result.marginals:
        ranked = sorted(word.types.items(), key=lambda one: -one[1])
        lines.append(f"  {word.word}: {', '.join(f'{name} {value:.1%}' for name, value in ranked)}")
    if not result.entities and not result.relations and not result.error:
        lines.append("  nothing found")
    if result.objects:
        seen = ", ".join(f"{one.label} {one.score:.0%}" for one in result.objects)
        lines.append(f"  image: {seen}")
    elif result.image.status != "none":
        reason = f" ({result.image.reason})" if result.image.reason else ""
        lines.append(f"  image: {result.image.status}{reason}")
    if result.truncated:
        lines.append("  the text is longer than the model reads; its end was not read")
    if result.error:
        lines.append(f"  error: {result.error}")
    return lines


def _shown(one: Entity) -> str:
    return f"  {one.entity_group:<8} {one.score:6.1%}  {one.word}  [{one.start}:{one.end}]"
