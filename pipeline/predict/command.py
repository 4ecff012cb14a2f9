"""What `hmnet-pipe predict` does: which model is meant, one post, a stream, or a file in parts."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ...manifests.errors import InputError, StageError
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.trial import Trial
from ...stages.base.tools import Tools
from ...stages.predict.outputs import FILE_NAMES, results_in, write
from ...stages.predict.posts import Post
from ...stages.predict.results import Result
from ..run.runner import Report, run_stage
from .predictor import Predictor
from .stage import Models, Predict, Source

__all__ = ["model_meant", "predict_file", "shown", "streamed"]


def model_meant(name: str, system: str, seed: int) -> str:
    """Return the folder, or the name on the hub, of the model that a user means.

    name: either, or a run, of which it is the model of a system and a seed. Raises InputError where a run has
    no such model.
    """
    path = Path(name)
    if not (path / "run.toml").exists():
        return name
    folder = RunFolder(path).model(Trial(system, seed))
    if not folder.is_dir():
        there = sorted(
            f"--system {each.parent.name} --seed {each.name.removeprefix('seed-')}"
            for each in RunFolder(path).models.glob("*/seed-*")
            if each.name.removeprefix("seed-").isdigit()
        )
        remedy = f"it has {', '.join(there)}" if there else f"run `hmnet-pipe train {path}` first"
        raise InputError(f"{path} has no model of {system} with seed {seed}; {remedy}")
    return str(folder)


def predict_file(
    models: Models, source: Source, output: Path, chunk: int, tools: Tools, format: str = "jsonl"
) -> Report:
    """Predict a file of posts into a folder, in parts of `chunk` posts.

    format: one of stages.predict.outputs.FORMATS, which is made from the predictions when all are there.
    Raises InputError where the folder is a run, and StageError where it holds another model's predictions.
    """
    if (output / "run.toml").exists():
        raise InputError(f"{output} is a run; give --output a folder of its own")
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

    A line that is no post has a result with its error.
    """
    group: list[Post] = []
    errors: list[str] = []

    def flushed() -> Iterator[Result]:
        for result, error in zip(predictor.found(group), errors, strict=True):
            yield replace(result, error=error) if error else result

    for _, post in source.posts():
        error = str(post) if isinstance(post, InputError) else ""
        one = Post() if isinstance(post, InputError) else _placed(post, source.images)
        group.append(one)
        errors.append(error)
        if len(group) == size:
            yield from flushed()
            group, errors = [], []
    yield from flushed()


def _placed(post: Post, images: Path | None) -> Post:
    if images is None or not isinstance(post.image, str):
        return post
    return replace(post, image=str(images / post.image))


def shown(result: Result) -> list[str]:
    """Return what is found in a post as lines for people."""
    lines = [result.text]
    lines += [
        f"  {one.entity_group:<8} {one.score:6.1%}  {one.word}  [{one.start}:{one.end}]"
        for one in result.entities
    ]
    for one in result.relations:
        head, tail = (
            result.entities[end].word if isinstance(end, int) else result.text[slice(*end)]
            for end in (one.head, one.tail)
        )
        lines.append(f"  {head} -> {tail}: {one.relation} {one.score:.1%}")
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
