"""The first stage: from texts and images in any known format to the tables samples, images and problems."""

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...manifests.errors import InputError, StageError
from ...manifests.files import make_folder, remove_file, remove_temporaries
from ...manifests.fingerprint import SETTLING_NS, digest_json, digest_table
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.schemas import IMAGES, MENTION_BOXES, PROBLEMS, SAMPLES
from ...manifests.tables import (
    GROUP_ROWS,
    read_batches,
    read_table,
    sound_digests,
    table_of,
    write_groups,
    write_table,
)
from ..base.settings import local_files
from ..base.stage import Rerun, Stage, changed_outputs, given_settings, problem_reasons
from ..base.tools import SILENT, Counts, Tools, counted
from ..learning.negative import NO_NEGATIVE, negative_relation
from ..text.words import AUTO, recorded_rule
from ..vision.copies import failed_copies
from ..vision.folder import Found, ImageFolder
from .boxes import mention_boxes
from .dealing import dealt
from .formats.registry import FORMATS
from .formats.voc import VocFolder
from .images import Inspected
from .readers import SPLITS, Samples, Texts, find_texts, open_texts, samples_of
from .settings import PrepareSettings

__all__ = ["Prepare"]

# What the summary counts where there is any, and always, with the kind of its rows in the problems table.
_CONVERSIONS = {"rows left out": "row", "spans moved to whole words": "span"}
_REPAIRS = {"ner": {"repaired tags": "tag"}, "re": {"respelled relations": "relation"}}


class Prepare(Stage):
    """Reads every sample, and every image to its end, so that every later stage can open every file it meets.

    A sample whose image is missing or unusable is kept without it, and a row of the problems table says why.
    """

    kind = "prepare"
    files = ("samples", "images", "problems", "mention_boxes")
    schema_version = 3
    inputs_outside = True
    failures_are = "in problems.parquet"  # their samples are used all the same

    def __init__(self, run: RunFolder, settings: PrepareSettings, *, settling_ns: int = SETTLING_NS) -> None:
        self.run = run
        self.settings = settings
        self._settling_ns = settling_ns
        self._last: tuple[StageRecord, _Sources] | None = None

    def parameters(self) -> dict[str, Any]:
        """Return the settings, with the format that was found.

        So naming a format changes nothing where "auto" finds the same one, and so it is with the rule for
        words. This is there where the format may hold raw texts or the rule is not the format's own, as a
        model reads raw texts by it later. `strict_spans` refuses or changes nothing.
        """
        found = self._texts().format
        words = recorded_rule(self.settings.words, found)
        reading: dict[str, Any] = {"words": words} if FORMATS[found].raw or words != AUTO else {}
        if found == "twitter":
            # At their defaults they were no settings once, and read what could be read then as they do now.
            if self.settings.column:
                reading["column"] = self.settings.column
            if self.settings.labels == "written":
                reading["labels"] = "written"
        if self.settings.deal_images:
            reading |= {"deal_images": self.settings.deal_images, "deal_share": self.settings.deal_share}
        return {"task": self.settings.task, "format": found, **reading}

    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        """Return digests of each text file with its name and of all images that samples refer to.

        The name counts because the problems table contains it. So too of the boxes of mentions, where they
        lie in files of their own.
        """
        return self._read(tools).digests

    def causes(self, tools: Tools = SILENT) -> StageRecord:
        """Return the causes and keep what was read for them, so that `compute` reads nothing again."""
        sources = self._read(tools)
        causes = StageRecord(
            self.name, self.schema_version, self.parameters(), sources.digests, self.weights(), {}
        )
        self._last = causes, sources
        return causes

    def outputs(self) -> dict[str, str]:
        tables = {
            "samples": (self.run.samples, SAMPLES),
            "images": (self.run.images, IMAGES),
            "problems": (self.run.problems, PROBLEMS),
            "mention_boxes": (self.run.mention_boxes, MENTION_BOXES),
        }
        digests = sound_digests(tables)
        if "images" in digests and not self._lies_here():
            del digests["images"]
        return digests

    def _lies_here(self) -> bool:
        """Return whether the paths of the images table lead into today's image folder.

        Paths are in no digest, and a folder can be moved.
        """
        first = next(read_batches(self.run.images, IMAGES, columns=["path"]), None)
        if self.settings.images is None or first is None or not first.num_rows:
            return True
        return Path(first.column("path")[0].as_py()).is_relative_to(self.settings.images.absolute())

    def output_path(self, output: str) -> Path:
        return self.run.path / f"{output}.parquet"

    @property
    def place(self) -> Path:
        return self.run.path

    def finish(self) -> None:
        """Keep the digests of files for the next run."""

    def given(self) -> dict[str, Any]:
        return given_settings(self.settings)

    def sources(self) -> Iterator[Path]:
        texts = self._texts()
        for path in texts.files.values():
            yield from FORMATS[texts.format].files(path)
        if self.settings.images is not None:
            yield self.settings.images
        yield from local_files(self.settings).values()

    def other_sources(self, record: StageRecord) -> str | None:
        here = {f"text.{split}" for split in self._texts().files}
        there = {name for name in record.inputs if name.startswith("text.")}
        return None if here == there else f"{self.settings.text} holds other files"

    def failures(self) -> dict[str, int]:
        return problem_reasons(self.run.problems)

    def damage(self) -> list[tuple[Path, str]]:
        """Return the table of samples where a word is not what its offsets cut from the text.

        Neither is in a digest, but the words are.
        """
        if "samples" not in self.outputs():  # missing or unreadable, which needs no closer look
            return []
        wrong = 0
        try:
            for batch in read_batches(self.run.samples, SAMPLES, columns=["tokens", "text", "offsets"]):
                texts = batch.filter(pc.is_valid(batch.column("text")))
                for tokens, text, offsets in zip(*texts.to_pydict().values(), strict=True):
                    wrong += tokens != [text[start:end] for start, end in offsets or ()]
        except StageError as error:
            return [(self.run.samples, str(error))]
        reason = f"{counted(wrong, 'samples')} whose words are not those of their texts"
        return [(self.run.samples, reason)] if wrong else []

    def again(
        self, record: StageRecord, share: float, elsewhere: bool, scratch: RunFolder, tools: Tools
    ) -> Rerun:
        """Make all of it again: only reading the sources shows that they are unchanged."""
        again = Prepare(scratch, self.settings)
        causes = again.causes(tools)
        again.compute(causes, tools)
        wrong = changed_outputs(record, again.outputs())
        remarks = [f"{name} is not as recorded" for name in wrong]
        remarks += [f"the sources have changed since: {change}" for change in record.changes(causes)]
        return Rerun(self.name, "different" if wrong else "equal", "everything", remarks=remarks)

    def compute(self, causes: StageRecord, tools: Tools) -> Counts:
        sources = self._last[1] if self._last and self._last[0] is causes else self._read(tools)
        self._last = None  # a million samples are not held any longer than this
        samples, found, task = sources.samples, sources.images, self.settings.task
        kinds = _counts(samples.repairs["kind"])
        is_scheme = pc.equal(samples.repairs["kind"], "scheme")
        schemes = _counts(samples.repairs["reason"].filter(is_scheme))
        renamed = len({image.path for image in found.values() if image.renamed})
        for split in sorted(set(SPLITS) - samples.identities.keys()):
            tools.say(
                f"note: {self.settings.text} holds no file for the split {split}; the run goes on without it"
            )
        make_folder(self.run.record(self.name).parent)
        images = sources.inspected.table(found.values(), tools)
        usable = {row["key"] for row in images if row["status"] == "ok"}
        reasons = {row["key"]: row["reason"] for row in images}
        if found and not usable:
            self._say_unusable(found, reasons, tools)
        keys, problems, missing = sources.keys(usable, reasons)
        dealt_out = pc.sum(pc.not_equal(sources.names, samples.column("image"))).as_py() or 0
        relations = set(pc.unique(samples.rows["relation"]).to_pylist())
        negative = negative_relation(relations, self.settings.negative)
        if task == "re":
            self._say_negative(negative, relations, tools)
        sizes = {row["key"]: (row["width"], row["height"]) for row in images if row["status"] == "ok"}
        boxes, refused = mention_boxes(samples, sources.names, keys, sizes, sources.boxes)
        for path in (self.run.images, self.run.problems, self.run.mention_boxes, self.run.samples):
            remove_temporaries(path.parent, path.name)
        write_table(self.run.images, table_of(IMAGES, images))
        rows = pa.concat_tables([problems, samples.repairs, refused]).combine_chunks()
        write_table(self.run.problems, rows)
        given = sources.boxes is not None or samples.marks.num_rows > 0
        if given:
            write_table(self.run.mention_boxes, boxes)
        else:
            remove_file(self.run.mention_boxes)
        # Written last, so that where the samples exist, the other tables exist too.
        write_groups(self.run.samples, SAMPLES, samples.groups(GROUP_ROWS, image_key=keys))
        return Counts(
            unit="samples",
            done=len(samples),
            details={
                "samples per split": {split: number for split, number in samples.sizes.items() if number},
                ("mentions" if task == "ner" else "relations") + " per split": _labels(samples, task),
                **({"negative relation": negative} if negative else {}),
                "images": len(usable),
                **({"images under another name": renamed} if renamed else {}),
                **({"samples with a random image": dealt_out} if self.settings.deal_images else {}),
                "samples whose image is missing": missing,
                "samples whose image is unreadable": len(problems) - missing,
                **{name: kinds[kind] for name, kind in _REPAIRS[task].items()},
                **{name: kinds[kind] for name, kind in _CONVERSIONS.items() if kinds[kind]},
                **(_counts_of_boxes(boxes, refused) if given else {}),
                **({"samples with other tags than BIO": dict(sorted(schemes.items()))} if schemes else {}),
                **({"rows of these": str(self.run.problems)} if len(rows) else {}),
                "data": {split: str(identity) for split, identity in samples.identities.items()},
            },
        )

    def _say_unusable(
        self, found: Mapping[tuple[str, str], Found], reasons: Mapping[str, str | None], tools: Tools
    ) -> None:
        """Say that no image is usable, and what is wrong with the first one."""
        (_, name), first = min(found.items())
        place = (
            f"from {self.settings.images_from}; is it the right source"
            if self.settings.images_from
            else f"in {self.settings.images}; is it the right folder"
        )
        tools.say(
            f"warning: none of the {len(found)} images that the texts name is usable {place}? "
            f"The first is {name}: {first.reason or reasons[str(first.key)]}"
        )

    def _say_negative(self, negative: str | None, there: set[str | None], tools: Tools) -> None:
        """Say where nothing is known to be the negative relation, or it is in no text."""
        if negative is None:
            tools.say(f"note: {NO_NEGATIVE}")
        elif negative not in there:
            tools.say(
                f"warning: no text has the relation {negative!r}, which is negative in [prepare] of "
                f"run.toml; they have {', '.join(sorted(map(str, there)))}"
            )

    def _texts(self) -> Texts:
        return find_texts(self.settings.text, self.settings.task, self.settings.format)

    def _read(self, tools: Tools) -> "_Sources":
        """Read the texts, and look up and read the images that they name."""
        settings, texts = self.settings, self._texts()
        files = open_texts(texts)
        samples = samples_of(files, settings.task, texts.format, settings.reading, tools)
        digests = {
            f"text.{split}": digest_json([file.path.name, file.digest]) for split, file in files.items()
        }
        names = samples.column("image")
        if settings.images is None:
            return _Sources(samples, names, {}, Inspected(), digests, None)
        boxes = VocFolder.read(Path(settings.mention_boxes).expanduser()) if settings.mention_boxes else None
        if boxes is not None:
            digests["mention_boxes"] = boxes.digest
        if settings.deal_images:
            dealt_out = dealt(names.to_pylist(), self._folder(), settings.deal_images, settings.deal_share)
            names = pa.chunked_array([pa.array(dealt_out, pa.string())])
        inspected = Inspected(self._decoded())
        wanted = [
            (split, name)
            for split, block in samples.blocks(names)
            for name in pc.unique(block.drop_null()).to_pylist()
        ]
        images = self._look_up(wanted, inspected, tools)
        digests["images"] = digest_json(
            [[*name, image.key, image.reason] for name, image in sorted(images.items())]
        )
        return _Sources(samples, names, images, inspected, digests, boxes)

    def _folder(self) -> Path:
        """Return the folder of the images. Raises InputError where it is none."""
        folder = self.settings.images
        if folder is None or not folder.is_dir():
            raise InputError(
                f"{folder} is not a folder; give the folder that holds the images, or none to use text alone"
            )
        return folder

    def _look_up(
        self, names: list[tuple[str, str]], inspected: Inspected, tools: Tools
    ) -> dict[tuple[str, str], Found]:
        """Return where each (split, image name) leads. Images that have to be read are inspected at once."""
        place = self._folder().absolute()
        known = self.run.path / "stages" / f"{self.name}.seen.parquet"
        reasons = failed_copies(place) if self.settings.images_from else {}
        return ImageFolder(place, known, inspected.read, self._settling_ns, reasons).look_up(names, tools)

    def _decoded(self) -> dict[str, dict[str, Any]]:
        """Return, by key, the usable images that a finished run of this version has already decoded."""
        record = StageRecord.read(self.run.record(self.name))
        if record is None or record.schema_version != self.schema_version:
            return {}
        try:
            table = read_table(self.run.images, IMAGES)
        except StageError:
            return {}
        if digest_table(table) != record.outputs.get("images"):
            return {}
        return {row["key"]: row for row in table.to_pylist() if row["status"] == "ok"}


@dataclass(frozen=True)
class _Sources:
    """What was read.

    names: the image of each sample, in the order of the table; images: where each (split, image name) leads;
    inspected: their contents; digests: those of all inputs; boxes: the files of boxes of mentions, if any.
    """

    samples: Samples
    names: pa.ChunkedArray
    images: dict[tuple[str, str], Found]
    inspected: Inspected
    digests: dict[str, str]
    boxes: VocFolder | None

    def keys(
        self, usable: Set[str], reasons: Mapping[str, str | None]
    ) -> tuple[pa.ChunkedArray, pa.Table, int]:
        """Return the key of each sample's image, null where it has none that is usable, and why it has none.

        The second is a row of PROBLEMS for each sample that should have one, in the order of the table; the
        number counts those whose image is not there at all. usable, reasons: of the keys of images.
        """
        keys: list[pa.Array] = []
        faults: list[pa.Array] = []
        missing = 0
        for split, block in self.samples.blocks(self.names):
            names = pc.unique(block)
            found = [self.images.get((split, name or "")) for name in names.to_pylist()]
            good = [image.key if image is not None and image.key in usable else None for image in found]
            bad = [
                None if image is None or image.key in usable else image.reason or reasons[str(image.key)]
                for image in found
            ]
            absent = pa.array([image is not None and image.key is None for image in found], pa.bool_())
            for chunk in block.chunks:
                places = pc.index_in(chunk, names)
                keys.append(pa.array(good, pa.string()).take(places))
                faults.append(pa.array(bad, pa.string()).take(places))
                missing += pc.sum(absent.take(places)).as_py() or 0
        reason = pa.chunked_array(faults, pa.string())
        columns = {"sample": self.samples.column("id"), "where": self.names, "reason": reason}
        problems = pa.table(columns).filter(pc.is_valid(reason))
        kind = pa.array(["image"]).take(pa.array(np.zeros(len(problems), np.int64)))
        return (
            pa.chunked_array(keys, pa.string()),
            problems.append_column("kind", kind).select(PROBLEMS.names).cast(PROBLEMS),
            missing,
        )


def _counts_of_boxes(boxes: pa.Table, refused: pa.Table) -> dict[str, int]:
    """Return what the summary counts of the boxes of mentions, refused ones where there are any."""
    found = boxes.num_rows - boxes["x0"].null_count
    counts = {"boxes of mentions": found, "mentions that the image does not show": boxes["x0"].null_count}
    return {**counts, **({"boxes left out": refused.num_rows} if refused.num_rows else {})}


def _counts(values: pa.ChunkedArray) -> Counter[str]:
    """Return how often each value is there, nulls left out."""
    counts = pc.value_counts(values.drop_null())
    return Counter(
        dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))
    )


def _labels(samples: Samples, task: str) -> dict[str, dict[str, int]]:
    """Return, by split, the number of mentions of each type or samples of each relation, largest first."""
    found: dict[str, dict[str, int]] = {}
    start = 0
    for split, size in samples.sizes.items():
        rows = samples.rows.slice(start, size)
        start += size
        if task == "re":
            counts = _counts(rows["relation"])
        else:
            tags = _counts(pc.list_flatten(rows["tags"]))
            counts = Counter({tag[2:]: number for tag, number in tags.items() if tag.startswith("B-")})
        if size:
            found[split] = dict(sorted(counts.items(), key=lambda label: (-label[1], label[0])))
    return found
