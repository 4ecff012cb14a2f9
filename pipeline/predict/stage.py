"""The predict stage: a file of posts, of any length, to predictions, in parts that survive a kill.

The images of all posts become features once per content, in runs of their own in the output's folder, by the
stages that made the models' own. Then each part of the posts is one unit of work.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...manifests.advice import typed
from ...manifests.errors import InputError
from ...manifests.files import atomic_path, make_folder, remove_file, remove_temporaries
from ...manifests.fingerprint import digest_file, digest_json
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.schemas import IMAGES, OUTCOMES, PROBLEMS
from ...manifests.tables import table_of, write_table
from ...stages.base.stage import Progress, Rerun, Stage, changed_outputs, problem_reasons
from ...stages.base.tools import SILENT, Counts, Tools, UnitFailure
from ...stages.learning.made_by import output_digest
from ...stages.predict.inputs import posts_of
from ...stages.predict.posts import NoPost, Post, rest_of
from ...stages.predict.results import MISSING, NONE, UNREADABLE, USED, as_line
from ...stages.systems.registry import BACKBONE_FILE, TEMPERATURE_FILE
from ...stages.vision.folder import Found, ImageFolder, image_row, unreadable_row
from ...stages.vision.images import MissedImage, UnusableImage, image_bytes
from ...stages.vision.outcomes import Failure, outcome
from .part import Models, Part, give_up, predict_part, put_together
from .predictor import Predictor, distinct

__all__ = ["PREDICTIONS", "Predict", "Source", "check_image_folder"]

PREDICTIONS = "predictions.jsonl"


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
            # Of the bytes, in a pass of its own: to read the posts in them takes 80 times as long.
            found = {"posts": digest_file(self.posts.path)}
        except OSError as error:
            raise InputError(f"{self.posts.path} cannot be read ({error.strerror})") from error
        if self.models.boxes:
            found["boxes"] = digest_file(Path(self.models.boxes).expanduser())
        if self.predictor.reads_images:
            names = [[name, image.key, image.reason] for name, image in sorted(self._images.items())]
            found["images"] = digest_json(names)
        return found

    def weights(self) -> dict[str, str]:
        files = ("config.json", "model.safetensors", BACKBONE_FILE, TEMPERATURE_FILE)
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
                post = NoPost(
                    f"row {line}: its image is the bytes of a file; leave out --output, or name its file",
                    post.id,
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
        todo = [unit for unit in units if not unit.output.exists()]
        bar = tools.bar(sum(map(len, todo)), "predict", "post")
        pieces: dict[str, list[Part]] = {}
        for unit, result in tools.map(predict_part, todo):
            if isinstance(result, UnitFailure):
                give_up(unit, result.reason)
            pieces.setdefault(unit.posts, []).append(unit)
            bar.update(len(unit))
        bar.close()
        for unit in todo:
            put_together(unit, pieces[unit.posts])
        self._note_missed(Path(shared), rows)
        return self._join([unit.output for unit in units], sum(map(len, units)) - sum(map(len, todo)))

    def _note_missed(self, shared: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Write a row of OUTCOMES for each image that was gone or changed after it was looked up.

        The next run, for which it may be back, has the same causes, and would otherwise have nothing to do.
        """
        missed = {key: str(row["reason"]) for key, row in rows.items() if row["status"] == MISSING}
        for run in distinct(self.predictor.runs(shared)):
            failed = run.failed([key for key, row in rows.items() if row["status"] == "ok"])
            missed |= {key: str(one.reason) for key, one in failed.items() if one.status == MISSING}
        remove_file(self.run.outcomes(self.name))
        if missed:
            found = [outcome(key, Failure(missed[key], passing=True)) for key in sorted(missed)]
            write_table(self.run.outcomes(self.name), table_of(OUTCOMES, found))

    def _shared(self, tools: Tools) -> tuple[str, dict[str, dict[str, Any]]]:
        """Compute the features of all images; return the folder of their runs, and rows of IMAGES by key."""
        rows: dict[str, dict[str, Any]] = {}
        if self.predictor.reads_images:
            for found in self._images.values():
                if found.path is not None and found.key is not None and found.key not in rows:
                    rows[found.key] = _row(found.path, found.key)
        write_table(self.run.images, table_of(IMAGES, [row for _, row in sorted(rows.items())]))
        usable = [row for _, row in sorted(rows.items()) if row["status"] == "ok"]
        folder = self.run.path / "images"
        for run in distinct(self.predictor.runs(folder)):
            run.make_images(usable, tools)
        return str(folder), rows

    def _cut(self, parts: Path, shared: str, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[Part]:
        """Write the posts of each part with what became of their images, and yield the units."""
        group: list[dict[str, Any]] = []
        number = 0

        def written() -> Part:
            path = parts / f"{number:06}.posts.jsonl"
            part = Part(self.models, str(path), len(group), shared, (0, len(group)))
            if not part.output.exists():
                with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
                    file.writelines(json.dumps(line) + "\n" for line in group)
            return part

        for line, post in self._posts():
            if isinstance(post, InputError):
                group.append({"line": line, "id": rest_of(post).id, "error": str(post)})
            else:
                values = {name: value for name, value in vars(post).items() if value is not None}
                group.append({"line": line, "post": values, "image": self._became(post, rows)})
            if len(group) == self.chunk:
                yield written()
                number, group = number + 1, []
        if group:
            yield written()

    def _became(self, post: Post, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return what became of a post's image, as the fields of a PostImage."""
        if post.image is None or not self.predictor.reads_images:
            return {"status": NONE}
        found = self._images[str(post.image)]
        if found.key is None:
            return {"status": MISSING, "reason": found.reason}
        row = rows[found.key]
        if row["status"] != "ok":
            return {"status": row["status"], "reason": row["reason"]}
        return {"status": USED, "key": found.key}

    def _join(self, parts: Sequence[Path], kept: int) -> Counts:
        """Put the parts together, and count what they hold. kept: the posts of those of an earlier run."""
        counts: Counter[str] = Counter()
        problems: list[dict[str, Any]] = []
        with atomic_path(self.place) as temporary, temporary.open("w", encoding="utf-8") as file:
            for part in parts:
                with part.open(encoding="utf-8") as lines:
                    for line in lines:
                        number, found = json.loads(line)
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
        return Counts("posts", counts["posts"] - kept, kept, counts["errors"], details)

    def finish(self) -> None:
        super().finish()
        shutil.rmtree(self.run.path / "images", ignore_errors=True)


def check_image_folder(folder: Path) -> None:
    """Raise InputError where the folder that is to hold the images is none."""
    if not folder.is_dir():
        raise InputError(f"{folder} (--images) is not a folder; give the folder that holds the images")


def _found(path: Path) -> Found:
    try:
        return Found(path.absolute(), digest_file(path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Found(reason=f"cannot be read: {reason}")


def _row(path: Path, key: str) -> dict[str, Any]:
    """Return the row of IMAGES of a file whose content had this key when it was looked up.

    The status of one that has gone or changed since is MISSING.
    """
    try:
        row = image_row(path, image_bytes(path))
        if row["key"] == key:
            return row
        raise MissedImage("changed since it was looked up")
    except UnusableImage as error:
        status = MISSING if isinstance(error, MissedImage) else UNREADABLE
        return {**unreadable_row(path, error), "key": key, "status": status}


def _problems(path: Path | None, line: int, found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    where, sample = f"{path}:{line}", str(found.get("id", line))
    if "error" in found:
        yield {"kind": "post", "sample": sample, "where": where, "reason": found["error"]}
    if found["image_status"] in (MISSING, UNREADABLE):
        reason = found.get("image_reason", "")
        yield {"kind": "image", "sample": sample, "where": where, "reason": reason}
