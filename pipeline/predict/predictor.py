"""Entities and relations of new posts, from the folder of a trained model alone.

find = Predictor.from_pretrained("runs/twitter2015/models/hmnet/seed-1")
find("Messi arrives in Paris", image="photo.jpg").entities
for result in find.stream(posts, batch_size=64): ...
"""

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
from ...stages.predict.posts import Post, Words, words_of
from ...stages.predict.results import NONE, UNREADABLE, UNUSED, Entity, PostImage, Result, Seen
from ...stages.predict.work import (
    Given,
    Mention,
    find_mentions,
    find_relations,
)
from ...stages.systems.hub import model_folder
from ...stages.systems.registry import system_info
from ...stages.text.limits import Span
from ...stages.text.words import WORD_RULES, rule_of_record
from .explained import with_explanations
from .images import given_images
from .relations import Asked, answers, questions
from .visual import ImageRun

__all__ = ["LONG", "PredictOptions", "Predictor", "distinct"]

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
    batch_size: texts that go through a model together.
    """

    min_score: float = 0.0
    recall: float | None = None
    max_pairs: int = 20
    types: bool = True
    long: str = "windows"
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.long not in LONG:
            raise unknown_name("long", self.long, LONG)


@dataclass(frozen=True)
class Predictor:
    """A model of entities, one of relations, or both, with what makes the images of posts into features.

    weights: files in the place of those that the models were made with, "detector" and "backbone".
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
        **options: Any,
    ) -> "Predictor":
        """Open a model of entities or of relations; `relations` is one of relations beside it.

        Each is a model's folder, or a name on the hub, "user/name".
        words: the rule by which raw texts become words, in the place of the model's own. options: those of
        PredictOptions. Raises WeightsError where a folder holds no model, and InputError where a model cannot
        be used on posts.
        """
        first = open_model(model_folder(model), device=device, precision=precision)
        second = None
        if relations is not None:
            second = open_model(model_folder(relations), device=device, precision=precision)
        if second is not None and (first.config.task, second.config.task) != ("ner", "re"):
            raise InputError(
                f"{model} is to find entities and {relations} relations, and they were trained for "
                f"{first.config.task} and {second.config.task}; give the model of entities first"
            )
        entities, pairs = (first, second) if first.config.task == "ner" else (None, first)
        chosen = PredictOptions(**options)
        weights = {"detector": detector_weights, "backbone": backbone_weights}
        if words and words not in WORD_RULES:
            raise unknown_name("words", words, WORD_RULES)
        rule = words or _words_of(first)
        found = cls(entities, pairs, rule, chosen, weights, device)
        for run in found.runs(Path()):
            run.check()
        return found

    @property
    def models(self) -> list[OpenModel]:
        return [model for model in (self.entities, self.relations) if model is not None]

    @property
    def reads_trees(self) -> bool:
        """Return whether a model reads a tree of each text."""
        return any("dependencies" in system_info(model.config.system).graphs for model in self.models)

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
            post = _post(posts)
            post = replace(
                post,
                image=post.image if image is None else image,
                head=post.head if head is None else head,
                tail=post.tail if tail is None else tail,
            )
            return self.found([post], explain=explain)[0]
        if not isinstance(posts, Iterable) or isinstance(posts, bytes | bytearray):
            raise _no_post(posts)
        many = [_post(post) for post in posts]
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
        while group := [_post(post) for post in islice(source, batch_size)]:
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
            samples = _samples(posts, worded, images)
            for run in distinct(runs):
                run.make(rows, samples, tools)
            results = self.over(posts, worded, images, runs, tools, mentions)
            if explain:
                results = with_explanations(results, self.models[0], runs[0], posts, worded, rows, tools)
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
        tools: Tools = SILENT,
        known: Sequence[list[Mention]] | None = None,
    ) -> list[Result]:
        """Return what is found in each post, whose image lies in the runs, one for each model.

        known: the mentions of each post, in the place of what the model of entities finds.
        """
        ids = [str(number) for number in range(len(posts))]
        sound = [i for i, words in enumerate(worded) if isinstance(words, Words)]
        failed: dict[str, str] = {}
        objects: dict[str, list[dict[str, Any]]] = {}
        given: list[Given] = []
        words = [one for one in worded if isinstance(one, Words)]
        for run in runs:
            failed |= run.failed()
            objects = objects or run.objects()
            visuals, extras = run.open(tools)
            keys = [images[i].key for i in sound]
            given.append(
                Given([ids[i] for i in sound], words, keys, visuals, extras, self.options.batch_size)
            )
        mentions: list[tuple[list[Mention], bool]] = [([], True) for _ in sound]
        if known is not None:
            mentions = [(known[i], True) for i in sound]
        elif self.entities is not None:
            mentions = find_mentions(
                self.entities,
                given[0],
                min_score=self.options.min_score,
                recall=self.options.recall,
                windows=self.options.long == "windows",
            )
        found = {
            number: self._result(posts[number], words[place], *mentions[place])
            for place, number in enumerate(sound)
        }
        if self.relations is not None:
            self._relate(posts, words, sound, mentions, given[-1], found)
        if self.options.long == "error":
            for number, one in found.items():
                if one.truncated:
                    error = f"its text is longer than the model reads: {len(one.text)} characters"
                    found[number] = replace(one, entities=(), relations=(), error=error)
        results = []
        for number, post in enumerate(posts):
            result = found.get(number) or Result(
                post.text if isinstance(post.text, str) else _joined(post.tokens),
                post.id,
                error=str(worded[number]),
                more=post.more,
            )
            image = self._image(post, images[number], failed)
            seen = tuple(map(Seen.of_row, objects.get(image.key or "", ())))
            results.append(replace(result, image=image, objects=seen))
        return results

    def _image(self, post: Post, image: PostImage, failed: Mapping[str, str]) -> PostImage:
        if not self.reads_images:
            return PostImage(NONE if post.image is None else UNUSED)
        if image.key is not None and image.key in failed:
            return PostImage(UNREADABLE, failed[image.key])
        return image

    def _result(self, post: Post, words: Words, mentions: Sequence[Mention], whole: bool) -> Result:
        entities = []
        for one in mentions:
            start, end = words.characters(one.span)
            own = one.span if words.given else (None, None)
            entities.append(Entity(one.type, words.text[start:end], start, end, one.score, *own))
        tokens = tuple(words.tokens) if words.given else None
        return Result(words.text, post.id, tokens, tuple(entities), truncated=not whole, more=post.more)

    def _relate(
        self,
        posts: Sequence[Post],
        words: Sequence[Words],
        sound: Sequence[int],
        mentions: Sequence[tuple[list[Mention], bool]],
        given: Given,
        found: dict[int, Result],
    ) -> None:
        """Add to the results the relations of the pairs that are given, or of all pairs of mentions."""
        assert self.relations is not None
        asked: dict[int, list[Asked]] = {}
        for place, number in enumerate(sound):
            own = mentions[place][0] if self.entities is not None else None
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
                        mentions[place][0],
                        negative,
                        types=self.options.types,
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


def _post(value: Posts) -> Post:
    """Return a post as it may be given. Raises InputError for anything else."""
    if isinstance(value, Post):
        return value
    if isinstance(value, str):
        return Post(value)
    if isinstance(value, Mapping):
        own = ("text", "tokens", "image", "id", "head", "tail")
        more = {name: one for name, one in value.items() if name not in own}
        return Post(**{name: value[name] for name in own if value.get(name) is not None}, more=more)
    raise _no_post(value)


def _no_post(value: object) -> InputError:
    return InputError(
        f"a post is a text, a Post, or a mapping with text or tokens, not {type(value).__name__}"
    )


def _joined(tokens: Any) -> str:
    """Return what stands for the text of a post whose words are wrong."""
    return " ".join(map(str, tokens)) if isinstance(tokens, list | tuple) else str(tokens or "")


def _samples(
    posts: Sequence[Post], worded: Sequence[Words | InputError], images: Sequence[PostImage]
) -> list[dict[str, Any]]:
    """Return the posts as rows of SAMPLES without labels."""
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
