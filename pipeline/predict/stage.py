"""The predict stage: a file of posts, of any length, to predictions, in parts that survive a kill.

The images of all posts become features once per content, in runs of their own in the output's folder, by the
stages that made the models' own. Then each part of the posts is one unit of work.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ...manifests.advice import typed
from ...manifests.errors import InputError, StageError
from ...manifests.files import atomic_path, make_folder, remove_temporaries
from ...manifests.fingerprint import digest_file, digest_json
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.schemas import IMAGES, PROBLEMS
from ...manifests.tables import table_of, write_table
from ...stages.base.stage import Progress, Rerun, Stage, changed_outputs, problem_reasons
from ...stages.base.tools import SILENT, Counts, Tools, UnitFailure
from ...stages.learning.made_by import output_digest
from ...stages.predict.inputs import posts_of
from ...stages.predict.posts import Post
from ...stages.predict.results import MISSING, NONE, UNREADABLE, USED, PostImage, as_line
from ...stages.systems.registry import BACKBONE_FILE
from ...stages.vision.folder import Found, ImageFolder, image_row, unreadable_row
from ...stages.vision.images import UnusableImage, image_bytes
from .predictor import PredictOptions, Predictor, distinct

__all__ = ["PREDICTIONS", "Models", "Predict", "Source", "check_image_folder"]

PREDICTIONS = "predictions.jsonl"


@dataclass(frozen=True)
class Models:
    """What a Predictor is opened from; see `Predictor.from_pretrained`."""

    model: str
    relations: str | None
    words: str
    detector_weights: str
    backbone_weights: str
    device: str
    precision: str
    options: PredictOptions

    def open(self) -> Predictor:
        return Predictor.from_pretrained(
            self.model,
            relations=self.relations,
            device=self.device,
            precision=self.precision,
            words=self.words,
            detector_weights=self.detector_weights,
            backbone_weights=self.backbone_weights,
            **asdict(self.options),
        )


@dataclass(frozen=True)
class Source:
    """A file of posts, or standard input.

    images: the folder that its images' names are of, or None where they are paths.
    """

    path: Path | None
    images: Path | None
    format: str = "auto"
    text_column: str = "text"
    image_column: str = "image"

    def posts(self) -> Iterator[tuple[int, Post | InputError]]:
        return posts_of(self.path, self.format, text_column=self.text_column, image_column=self.image_column)


@dataclass(frozen=True)
class _Part:
    """The work of one part: posts with what became of their images, in a file, to their results.

    images: the folder of the runs in which all images are features; None: there is none.
    """

    models: Models
    posts: str
    output: str
    images: str | None

    @property
    def device(self) -> str:
        return self.models.device

    def __len__(self) -> int:
        return 1

    def halves(self) -> tuple["_Part", "_Part"]:
        raise NotImplementedError("a part is one")


class Predict(Stage):
    """Finds entities and relations in every post of a file. See Stage for the contract."""

    kind = "predict"
    schema_version = 1
    inputs_outside = True
    files = (PREDICTIONS, "problems.parquet")
    failures_are = "in problems.parquet"

    def __init__(self, output: Path, models: Models, source: Source, chunk: int = 1000) -> None:
        """Hold what is to be done; chunk: posts per part, which a kill can lose, and which is held whole."""
        self.run = RunFolder(output)
        self.models, self.posts, self.chunk = models, source, chunk

    @cached_property
    def predictor(self) -> Predictor:
        """Return the opened models; opening them says first what is wrong with them."""
        return self.models.open()

    def parameters(self) -> dict[str, Any]:
        options = asdict(self.models.options)
        del options["batch_size"]
        one = self.predictor.models[0]
        return {**options, "words": self.predictor.words, "precision": one.precision}

    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        try:
            assert self.posts.path is not None
            found = {"posts": digest_file(self.posts.path)}
        except OSError as error:
            raise InputError(f"{self.posts.path} cannot be read ({error.strerror})") from error
        if self.predictor.reads_images:
            names = [[name, image.key, image.reason] for name, image in sorted(self._images.items())]
            found["images"] = digest_json(names)
        return found

    def weights(self) -> dict[str, str]:
        files = ("config.json", "model.safetensors", BACKBONE_FILE, "temperature.json")
        return {
            f"{model.config.task}.{name}": output_digest(model.folder / name)
            for model in self.predictor.models
            for name in files
            if (model.folder / name).is_file()
        }

    def outputs(self) -> dict[str, str]:
        return {PREDICTIONS: digest_file(self.place)} if self.place.is_file() else {}

    def output_path(self, output: str) -> Path:
        return self.run.path / output

    @property
    def place(self) -> Path:
        return self.run.path / PREDICTIONS

    def given(self) -> dict[str, Any]:
        values = {**asdict(self.models), **asdict(self.posts)}
        found: dict[str, Any] = json.loads(json.dumps(values, default=str))
        return found

    def failures(self) -> dict[str, int]:
        return problem_reasons(self.run.problems)

    def command(self) -> str:
        return typed("predict", self.models.model, self.posts.path, "--output", self.run.path)

    def progress(self, causes: StageRecord) -> Progress | None:
        done, cut = (len(list(self._parts(causes).glob(f"*.{name}.jsonl"))) for name in ("done", "posts"))
        return Progress(done, max(done, cut), "parts of the posts") if done else None

    def again(
        self, record: StageRecord, share: float, elsewhere: bool, scratch: RunFolder, tools: Tools
    ) -> Rerun:
        """Predict all of it again."""
        again = Predict(scratch.path, self.models, self.posts, self.chunk)
        again.compute(again.causes(tools), tools)
        wrong = changed_outputs(record, again.outputs())
        return Rerun(self.name, "different" if wrong else "equal", "everything", remarks=wrong)

    def _posts(self) -> Iterator[tuple[int, Post | InputError]]:
        """Yield the posts; an image must have a file, from which any worker reads it."""
        for line, post in self.posts.posts():
            if isinstance(post, Post) and isinstance(post.image, bytes):
                post = InputError(
                    f"row {line}: its image is the bytes of a file; leave out --output, or name its file"
                )
            yield line, post

    def _parts(self, causes: StageRecord) -> Path:
        """Return the folder of the parts of these causes: parts of others are never taken up."""
        return self.run.work(self.name) / f"{causes.fingerprint[:16]}-{self.chunk}"

    @cached_property
    def _images(self) -> dict[str, Found]:
        """Return where each name of an image leads."""
        names = {
            str(post.image) for _, post in self._posts() if isinstance(post, Post) and post.image is not None
        }
        folder = self.posts.images
        if folder is None:
            return {name: _found(Path(name)) for name in sorted(names)}
        check_image_folder(folder)
        known = self.run.path / "stages" / f"{self.name}.seen.parquet"
        looked = ImageFolder(folder.absolute(), known).look_up((("test", name) for name in names), SILENT)
        return {name: found for (_, name), found in looked.items()}

    def compute(self, causes: StageRecord, tools: Tools) -> Counts:
        make_folder(self.run.path / "stages")
        remove_temporaries(self.run.path, PREDICTIONS)
        parts = self._parts(causes)
        make_folder(parts)
        shared, rows = self._shared(tools)
        units = list(self._cut(parts, shared, rows))
        todo = [unit for unit in units if not Path(unit.output).exists()]
        bar = tools.bar(len(todo), "predict", "part")
        for unit, result in tools.map(predict_part, todo):
            if isinstance(result, UnitFailure):
                raise StageError(f"{unit.posts} could not be predicted: {result.reason}")
            bar.update()
        bar.close()
        return self._join([Path(unit.output) for unit in units], len(units) - len(todo))

    def _shared(self, tools: Tools) -> tuple[str | None, dict[str, dict[str, Any]]]:
        """Compute the features of all images; return the folder of their runs, and rows of IMAGES by key.

        There is none where a model reads something of each text besides its words, or no images.
        """
        rows: dict[str, dict[str, Any]] = {}
        if self.predictor.reads_images:
            for found in self._images.values():
                if found.path is not None and found.key is not None and found.key not in rows:
                    rows[found.key] = {**_row(found.path), "key": found.key}
        write_table(self.run.images, table_of(IMAGES, [row for _, row in sorted(rows.items())]))
        if not self.predictor.reads_images or self.predictor.reads_trees:
            return None, rows
        usable = [row for _, row in sorted(rows.items()) if row["status"] == "ok"]
        folder = self.run.path / "images"
        runs = self.predictor.runs(folder)
        for run in distinct(runs):
            run.make(usable, [], tools)
        return str(folder), rows

    def _cut(self, parts: Path, shared: str | None, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[_Part]:
        """Write the posts of each part with what became of their images, and yield the units."""
        group: list[dict[str, Any]] = []
        number = 0

        def written() -> _Part:
            path = parts / f"{number:06}.posts.jsonl"
            output = path.with_name(f"{number:06}.done.jsonl")
            if not output.exists():
                with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
                    file.writelines(json.dumps(line) + "\n" for line in group)
            return _Part(self.models, str(path), str(output), shared)

        for line, post in self._posts():
            if isinstance(post, InputError):
                group.append({"line": line, "error": str(post)})
            else:
                values = {name: value for name, value in vars(post).items() if value is not None}
                group.append({"line": line, "post": values, "image": self._became(post, rows)})
            if len(group) == self.chunk:
                yield written()
                number, group = number + 1, []
        if group:
            yield written()

    def _became(self, post: Post, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return what became of a post's image, as the fields of a PostImage, and its path."""
        if post.image is None or not self.predictor.reads_images:
            return {"status": NONE}
        found = self._images[str(post.image)]
        if found.key is None:
            return {"status": MISSING, "reason": found.reason}
        row = rows[found.key]
        if row["status"] != "ok":
            return {"status": UNREADABLE, "reason": row["reason"]}
        return {"status": USED, "key": found.key, "path": str(found.path)}

    def _join(self, parts: Sequence[Path], kept: int) -> Counts:
        """Put the parts together, and count what they hold."""
        counts: Counter[str] = Counter()
        problems: list[dict[str, Any]] = []
        with atomic_path(self.place) as temporary, temporary.open("w", encoding="utf-8") as file:
            for part in parts:
                with part.open(encoding="utf-8") as lines:
                    for line in lines:
                        found = json.loads(line)
                        number = found.pop("line")
                        file.write(as_line(found))
                        counts["posts"] += 1
                        counts["entities"] += len(found["entities"])
                        counts["relations"] += len(found["relations"])
                        counts["truncated"] += found["truncated"]
                        counts["errors"] += "error" in found
                        counts[f"image {found['image_status']}"] += 1
                        problems += _problems(self.posts.path, number, found)
        write_table(self.run.problems, table_of(PROBLEMS, problems))
        details = {
            "entities": counts["entities"],
            "relations": counts["relations"],
            "images": {
                name.removeprefix("image "): number
                for name, number in sorted(counts.items())
                if name.startswith("image ")
            },
            "truncated texts": counts["truncated"],
            **({"problems": str(self.run.problems)} if problems else {}),
        }
        skipped = min(kept * self.chunk, counts["posts"])
        return Counts("posts", counts["posts"] - skipped, skipped, counts["errors"], details)

    def finish(self) -> None:
        super().finish()
        shutil.rmtree(self.run.path / "images", ignore_errors=True)


def check_image_folder(folder: Path) -> None:
    """Raise InputError where the folder that is to hold the images is none."""
    if not folder.is_dir():
        raise InputError(f"{folder} (--images) is not a folder; give the folder that holds the images")


def predict_part(unit: _Part) -> str:
    """Find what is in the posts of one part, commit it, and return its file. Idempotent."""
    predictor = _opened(unit.models)
    lines: list[int] = []
    posts: list[Post] = []
    images: list[tuple[PostImage, str | None]] = []
    errors: dict[int, str] = {}
    with Path(unit.posts).open(encoding="utf-8") as file:
        for number, text in enumerate(file):
            values = json.loads(text)
            lines.append(values["line"])
            if "error" in values:
                errors[number] = values["error"]
                posts.append(Post())
                images.append((PostImage(), None))
                continue
            post = dict(values["post"])
            for name in ("head", "tail"):
                if name in post:
                    post[name] = tuple(post[name])
            posts.append(Post(**post))
            became = dict(values["image"])
            path = became.pop("path", None)
            images.append((PostImage(**became), path))
    if unit.images is not None:
        runs = predictor.runs(Path(unit.images))
        found = predictor.over(
            posts, [predictor.words_or_error(post) for post in posts], [image for image, _ in images], runs
        )
    else:
        # What the images are was found out before; those that cannot be used are not tried again.
        given = [replace(post, image=path) for post, (_, path) in zip(posts, images, strict=True)]
        found = predictor.found(given)
        found = [
            result if path is not None or not predictor.reads_images else replace(result, image=image)
            for result, (image, path) in zip(found, images, strict=True)
        ]
    with atomic_path(Path(unit.output)) as temporary, temporary.open("w", encoding="utf-8") as file:
        for number, result in enumerate(found):
            if number in errors:
                result = replace(result, error=errors[number])
            values = {"line": lines[number], **result.to_json()}
            if posts[number].image is not None:
                values["image"] = str(posts[number].image)
            file.write(json.dumps(values) + "\n")
    return unit.output


@lru_cache(maxsize=1)
def _opened(models: Models) -> Predictor:
    """Return the models of a worker, opened once."""
    return models.open()


def _found(path: Path) -> Found:
    try:
        return Found(path.absolute(), digest_file(path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Found(reason=f"cannot be read: {reason}")


def _row(path: Path) -> dict[str, Any]:
    try:
        return image_row(path, image_bytes(path))
    except UnusableImage as error:
        return unreadable_row(path, error)


def _problems(path: Path | None, line: int, found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    where, sample = f"{path}:{line}", str(found.get("id", line))
    if "error" in found:
        yield {"kind": "post", "sample": sample, "where": where, "reason": found["error"]}
    if found["image_status"] in (MISSING, UNREADABLE):
        reason = found.get("image_reason", "")
        yield {"kind": "image", "sample": sample, "where": where, "reason": reason}
