"""Entities and relations of new posts, from the folder of a trained model alone.

find = Predictor.from_pretrained("runs/twitter2015/models/hmnet/seed-1")
find("Messi arrives in Paris", image="photo.jpg").entities
for result in find.stream(posts, batch_size=64): ...
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from tempfile import gettempdir
from typing import Any, overload

from ...manifests.errors import InputError, unknown_name
from ...manifests.files import scratch_folder
from ...manifests.run import RunFolder
from ...stages.base.tools import SILENT, Tools
from ...stages.learning.made_by import CONFIG
from ...stages.learning.negative import negative_relation
from ...stages.learning.opened import OpenModel, open_model
from ...stages.predict.posts import Post, Words, no_post, words_of
from ...stages.predict.results import NONE, UNUSED, Entity, PostImage, Result, Seen, WordTypes
from ...stages.predict.work import Given, Mention, PostFound, Wanted, find_mentions, find_relations
from ...stages.systems.hub import model_folder
from ...stages.systems.registry import system_info
from ...stages.text.limits import Span
from ...stages.text.words import WORD_RULES, rule_of_record
from .explained import with_explanations
from .images import given_images
from .relations import Asked, answers, questions
from .visual import ImageRun, unseen

__all__ = ["LONG", "PredictOptions", "Predictor", "distinct", "nothing_in", "samples_of"]

Posts = str | Post | Mapping[str, Any]


LONG = ("windows", "cut", "error")
"""What may become of a text that is longer than a model reads."""


@dataclass(frozen=True)
class PredictOptions:
    """What a user may choose.

    min_score: mentions of less probability are left out. recall: mentions of at least this probability are
    added. max_pairs: the pairs of mentions of a text that are looked at. types: whether relations whose names
    say the types of their arguments are restricted to them. long: what becomes of a text that is
    longer than the model reads, one of LONG: it is read in windows, cut as in training, or an error.
    marginals: whether the probabilities of each word's types are wanted. alternatives: how many other
    readings of each mention, and other relations of each pair.
    batch_size: texts that go through a model together.
    """

    min_score: float = 0.0
    recall: float | None = None
    max_pairs: int = 20
    types: bool = True
    long: str = "windows"
    marginals: bool = False
    alternatives: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.long not in LONG:
            raise unknown_name("long", self.long, LONG)
        if self.alternatives < 0:
            raise InputError(f"alternatives must be a whole number from 0, not {self.alternatives}")

    @property
    def wanted(self) -> Wanted:
        """Return what is wanted of a model of entities."""
        return Wanted(self.min_score, self.recall, self.alternatives, self.marginals)


@dataclass(frozen=True)
class Predictor:
    """A model of entities, one of relations, or both, with what makes the images of posts into features.

    weights: files in the place of those that the models were made with, "detector" and "backbone", and the
    "boxes" that another detector found.
    """

    entities: OpenModel | None
    relations: OpenModel | None
    words: str
    options: PredictOptions = field(default_factory=PredictOptions)
    weights: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"

    @classmethod
    def from_pretrained(
        cls,
        model: Path | str,
        *,
        relations: Path | str | None = None,
        device: str = "auto",
        precision: str = "auto",
        words: str = "",
        detector_weights: str = "",
        backbone_weights: str = "",
        boxes: str = "",
        revision: str | None = None,
        token: str | None = None,
        cache_dir: Path | str | None = None,
        **options: Any,
    ) -> "Predictor":
        """Open a model of entities or of relations; `relations` is one of relations beside it.

        Each is a model's folder, or a name on the hub, "user/name". revision, token, cache_dir: of the hub,
        as in huggingface_hub; `revision` is that of `model`, and of `relations` it is the latest.
        boxes: the file of what another detector found in the images of the posts, for a model that was
        trained on such boxes.
        words: the rule by which raw texts become words, in the place of the model's own. options: those of
        PredictOptions. Raises WeightsError where a folder holds no model, and InputError where a model cannot
        be used on posts.
        """
        place = model_folder(model, revision=revision, token=token, cache_dir=cache_dir)
        first = open_model(place, device=device, precision=precision)
        second = None
        if relations is not None:
            place = model_folder(relations, token=token, cache_dir=cache_dir)
            second = open_model(place, device=device, precision=precision)
        if second is not None and (first.config.task, second.config.task) != ("ner", "re"):
            raise InputError(
                f"{model} is to find entities and {relations} relations, and they were trained for "
                f"{first.config.task} and {second.config.task}; give the model of entities first"
            )
        entities, pairs = (first, second) if first.config.task == "ner" else (None, first)
        chosen = PredictOptions(**options)
        weights = {"detector": detector_weights, "backbone": backbone_weights}
        if boxes:
            weights["boxes"] = str(Path(boxes).expanduser().absolute())
        if words and words not in WORD_RULES:
            raise unknown_name("words", words, WORD_RULES)
        rule = words or _words_of(first)
        if chosen.marginals and entities is None:
            raise InputError(f"{model} is a model of relations, and marginals are of the words of mentions")
        found = cls(entities, pairs, rule, chosen, weights, device)
        for run in found.runs(Path()):
            run.check()
        return found

    @property
    def models(self) -> list[OpenModel]:
        return [model for model in (self.entities, self.relations) if model is not None]

    @property
    def reads_images(self) -> bool:
        return any(system_info(model.config.system).is_visual for model in self.models)

    @overload  # a text is a sequence of texts, too
    def __call__(  # type: ignore[overload-overlap]
        self,
        posts: Posts,
        image: Any = None,
        *,
        head: Span | None = None,
        tail: Span | None = None,
        explain: bool = False,
    ) -> Result: ...
    @overload
    def __call__(
        self, posts: Sequence[Posts], image: Sequence[Any] | None = None, *, explain: bool = False
    ) -> list[Result]: ...
    def __call__(
        self,
        posts: Posts | Sequence[Posts],
        image: Any = None,
        *,
        head: Span | None = None,
        tail: Span | None = None,
        explain: bool = False,
    ) -> Result | list[Result]:
        """Return what is found in a post, or in each of a list of posts.

        posts: texts, Posts, or mappings with the keys of Post. image: that of the post, or one for each.
        head, tail: half-open ranges of characters of a text, between which a relation is looked for. explain:
        whether the results say what the model looked at (pipeline.predict.explained): that of entities, or
        that of relations where it is alone. A post in which nothing can be looked for has a result with its
        `error`.
        """
        if isinstance(posts, str | Post | Mapping):
            post = Post.of(posts)
            post = replace(
                post,
                image=post.image if image is None else image,
                head=post.head if head is None else head,
                tail=post.tail if tail is None else tail,
            )
            return self.found([post], explain=explain)[0]
        if not isinstance(posts, Iterable) or isinstance(posts, bytes | bytearray):
            raise no_post(posts)
        many = [Post.of(post) for post in posts]
        if image is not None:
            several = isinstance(image, Iterable) and not isinstance(image, str | bytes | Mapping)
            images = list(image) if several else []
            if len(images) != len(many):
                raise InputError(f"{len(many)} posts are given with another number of images")
            many = [replace(post, image=one) for post, one in zip(many, images, strict=True)]
        return self.found(many, explain=explain)

    def stream(self, posts: Iterable[Posts], batch_size: int = 64) -> Iterator[Result]:
        """Yield what is found in each post, in their order, holding `batch_size` of them at a time."""
        source = iter(posts)
        while group := [Post.of(post) for post in islice(source, batch_size)]:
            yield from self.found(group)

    def found(
        self,
        posts: Sequence[Post],
        tools: Tools = SILENT,
        mentions: Sequence[list[Mention]] | None = None,
        explain: bool = False,
    ) -> list[Result]:
        """Return what is found in each post; their images are computed in a folder that is then removed.

        mentions: those of each post, in the place of what the model of entities finds. explain: see __call__.
        """
        with scratch_folder(Path(gettempdir()), "posts") as folder:
            wanted = [post.image if self.reads_images else None for post in posts]
            images, rows = given_images(wanted, folder / "images")
            worded = [self.words_or_error(post) for post in posts]
            runs = self.runs(folder)
            for run in distinct(runs):
                run.make_images(rows, tools)
            samples = samples_of(worded, images)
            runs = [run.with_texts(folder / "texts", samples, tools) for run in runs]
            results = self.over(posts, worded, images, runs, mentions)
            if explain:
                results = with_explanations(results, self.models[0], runs[0], posts, worded, rows)
            return results

    def runs(self, folder: Path) -> list[ImageRun]:
        """Return the run of each model below a folder; models whose images become the same share one."""
        runs = []
        for model in self.models:
            run = ImageRun(RunFolder(folder), model, self.weights, self.device)
            runs.append(replace(run, run=RunFolder(folder / run.identity)))
        return runs

    def words_or_error(self, post: Post) -> Words | InputError:
        """Return the words of a post, or why it has none."""
        try:
            return words_of(post, self.words)
        except InputError as error:
            return error

    def over(
        self,
        posts: Sequence[Post],
        worded: Sequence[Words | InputError],
        images: Sequence[PostImage],
        runs: Sequence[ImageRun],
        known: Sequence[list[Mention]] | None = None,
    ) -> list[Result]:
        """Return what is found in each post, whose image lies in the runs, one for each model.

        known: the mentions of each post, in the place of what the model of entities finds.
        """
        ids = [str(number) for number in range(len(posts))]
        sound = [i for i, words in enumerate(worded) if isinstance(words, Words)]
        keys = [images[i].key for i in sound]
        failed: dict[str, PostImage] = {}
        objects: dict[str, list[dict[str, Any]]] = {}
        given: list[Given] = []
        words = [one for one in worded if isinstance(one, Words)]
        for run in runs:
            failed |= run.failed(keys)
            objects = objects or run.objects(keys)
            visuals, extras = run.open()
            given.append(
                Given([ids[i] for i in sound], words, keys, visuals, extras, self.options.batch_size)
            )
        mentions = [PostFound([] if known is None else known[i], []) for i in sound]
        if known is None and self.entities is not None:
            windows = self.options.long == "windows"
            mentions = find_mentions(self.entities, given[0], self.options.wanted, windows=windows)
        found = {
            number: _result(posts[number], words[place], mentions[place])
            for place, number in enumerate(sound)
        }
        if self.relations is not None:
            self._relate(posts, words, sound, mentions, given[-1], found)
        if self.options.long == "error":
            for number, one in found.items():
                if one.truncated:
                    error = f"its text is longer than the model reads: {len(one.text)} characters"
                    found[number] = replace(one, entities=(), relations=(), error=error)
        for each in given:
            failed |= unseen(each.visuals)
        results = []
        for number, post in enumerate(posts):
            result = found.get(number) or replace(nothing_in(post), error=str(worded[number]))
            image = self._image(post, images[number], failed)
            seen = tuple(map(Seen.of_row, objects.get(image.key or "", ())))
            results.append(replace(result, image=image, objects=seen))
        return results

    def _image(self, post: Post, image: PostImage, failed: Mapping[str, PostImage]) -> PostImage:
        """Return what became of a post's image in the end, under the name that it was given by."""
        if not self.reads_images:
            image = PostImage(NONE if post.image is None else UNUSED)
        elif image.key is not None:
            image = failed.get(image.key, image)
        named = isinstance(post.image, str | os.PathLike)
        return replace(image, name=os.fspath(post.image) if named else None)

    def _relate(
        self,
        posts: Sequence[Post],
        words: Sequence[Words],
        sound: Sequence[int],
        mentions: Sequence[PostFound],
        given: Given,
        found: dict[int, Result],
    ) -> None:
        """Add to the results the relations of the pairs that are given, or of all pairs of mentions."""
        assert self.relations is not None
        asked: dict[int, list[Asked]] = {}
        for place, number in enumerate(sound):
            own = mentions[place].mentions if self.entities is not None else None
            try:
                asked[place], left_out = questions(posts[number], words[place], own, self.options.max_pairs)
                found[number] = replace(found[number], left_out=left_out)
            except InputError as error:
                found[number] = replace(found[number], error=str(error))
        pairs = [(place, pair.head, pair.tail) for place, some in asked.items() for pair in some]
        said = iter(find_relations(self.relations, given, pairs))
        negative = negative_relation(self.relations.config.labels)
        for place, some in asked.items():
            own_said = list(islice(said, len(some)))
            result = found[sound[place]]
            found[sound[place]] = replace(
                result,
                relations=tuple(
                    answers(
                        some,
                        own_said,
                        words[place],
                        mentions[place].mentions,
                        negative,
                        types=self.options.types,
                        alternatives=self.options.alternatives,
                    )
                ),
                truncated=result.truncated or not all(one.whole for one in own_said),
            )


def _words_of(model: OpenModel) -> str:
    """Return the rule by which the raw texts of a model's training became words.

    Raises InputError where the model does not say it.
    """
    prepared = model.config.made_by.get("prepare", {}).get("parameters", {})
    if "format" not in prepared:
        raise InputError(
            f"{model.folder / CONFIG} does not say how texts became words: the model was trained before that "
            f"was kept; train it again, or name the rule with --words, one of {', '.join(WORD_RULES)}"
        )
    return rule_of_record(prepared)


def _result(post: Post, words: Words, found: PostFound) -> Result:
    """Return what is found in a post, without relations and images."""
    bounds = [words.characters((i, i + 1)) for i in range(len(found.types))]
    return Result(
        words.text,
        post.id,
        tuple(words.tokens) if words.given else None,
        tuple(_entity(one, words) for one in found.mentions),
        truncated=not found.whole,
        more=post.more,
        marginals=tuple(
            WordTypes(words.text[start:end], start, end, types)
            for (start, end), types in zip(bounds, found.types, strict=True)
        ),
    )


def _entity(one: Mention, words: Words) -> Entity:
    start, end = words.characters(one.span)
    first, last = one.span if words.given else (None, None)
    others = tuple(_entity(other, words) for other in one.others)
    return Entity(one.type, words.text[start:end], start, end, one.score, first, last, others)


def nothing_in(post: Post) -> Result:
    """Return the result of a post in which nothing was looked for."""
    if isinstance(post.text, str):
        text = post.text
    else:
        words = post.tokens
        text = " ".join(map(str, words)) if isinstance(words, list | tuple) else str(words or "")
    return Result(text, post.id, more=post.more)


def samples_of(worded: Sequence[Words | InputError], images: Sequence[PostImage]) -> list[dict[str, Any]]:
    """Return posts as rows of SAMPLES without labels; those without words have none."""
    return [
        {
            "id": str(number),
            "split": "test",
            "task": "ner",
            "tokens": words.tokens,
            "image_key": images[number].key,
        }
        for number, words in enumerate(worded)
        if isinstance(words, Words)
    ]


def distinct(runs: Sequence[ImageRun]) -> list[ImageRun]:
    """Return the runs, those that share a folder once."""
    return list({run.run.path: run for run in runs}.values())
