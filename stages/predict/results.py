"""What is found in a post: entities, relations, the objects of its image, and what became of the image."""

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["IMAGE_STATES", "Entity", "PostImage", "Relation", "Result", "Seen", "WordTypes", "as_line"]

USED, NONE, MISSING, UNREADABLE, UNUSED = IMAGE_STATES = ("used", "none", "missing", "unreadable", "unused")
"""What became of a post's image. "unused": the model reads no images."""

# Of a result as JSON. What a post came with under such a name does not pass through.
_KEYS = frozenset(
    ("id", "text", "tokens", "entities", "relations", "marginals", "objects", "truncated", "error")
) | {"image", "image_status", "image_reason", "pairs_left_out", "explanation"}


def as_line(values: Mapping[str, Any]) -> str:
    """Return JSON values as a line, in letters where all of them can be written."""
    line = json.dumps(values, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:  # half a character, which only an escape can say
        line = json.dumps(values)
    return line + "\n"


@dataclass(frozen=True)
class Entity:
    """A mention in a post.

    start, end: half-open, in Python's characters of the post's text. score: the probability of exactly this
    span with this type. token_start, token_end: half-open, in words, where the post was given as words.
    alternatives: the most probable other readings of its words, where they were asked for; "O" is that they
    are of no mention.
    """

    entity_group: str
    word: str
    start: int
    end: int
    score: float
    token_start: int | None = None
    token_end: int | None = None
    alternatives: tuple["Entity", ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it with the keys that Hugging Face's pipelines use."""
        values = {name: value for name, value in vars(self).items() if value not in (None, ())}
        if self.alternatives:
            values["alternatives"] = [one.to_json() for one in self.alternatives]
        return {**values, "score": round(self.score, 6)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Entity":
        """Return the entity that `to_json` gave."""
        return cls(**{**values, "alternatives": tuple(map(cls.from_json, values.get("alternatives", ())))})


@dataclass(frozen=True)
class WordTypes:
    """A word of a text, and the probability of being of a mention of each type; "O": of none."""

    word: str
    start: int
    end: int
    types: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "types": {name: round(value, 6) for name, value in self.types.items()}}


@dataclass(frozen=True)
class Relation:
    """A relation between two mentions.

    head, tail: numbers of entities, or half-open ranges of characters that were given. score: the product of
    the probabilities of the head, of the tail and of the relation, which are the factors; of a given pair,
    that of the relation alone. negative: the probability of the negative relation, where the model has one.
    alternatives: the most probable other relations of the pair with their scores, where they were asked for.
    """

    relation: str
    head: int | tuple[int, int]
    tail: int | tuple[int, int]
    score: float
    factors: tuple[float, ...]
    negative: float | None = None
    alternatives: tuple[tuple[str, float], ...] = ()

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "relation": self.relation,
            "head": self.head if isinstance(self.head, int) else list(self.head),
            "tail": self.tail if isinstance(self.tail, int) else list(self.tail),
            "score": round(self.score, 6),
            "factors": [round(factor, 6) for factor in self.factors],
        }
        if self.negative is not None:
            found["negative"] = round(self.negative, 6)
        if self.alternatives:
            found["alternatives"] = [
                {"relation": name, "score": round(score, 6)} for name, score in self.alternatives
            ]
        return found

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Relation":
        """Return the relation that `to_json` gave."""
        alternatives = tuple((one["relation"], one["score"]) for one in values.get("alternatives", ()))
        return cls(**{**{name: _fixed(values[name]) for name in values}, "alternatives": alternatives})


@dataclass(frozen=True)
class Seen:
    """An object that the detector found in the image; box: x0, y0, x1, y1 in pixels of the upright image."""

    label: str
    score: float
    box: tuple[float, float, float, float]

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Seen":
        """Return the object of a row of DETECTIONS."""
        return cls(row["label"], row["score"], (row["x0"], row["y0"], row["x1"], row["y1"]))

    def to_json(self) -> dict[str, Any]:
        """Return it in the form of Hugging Face's object detection."""
        sides = zip(("xmin", "ymin", "xmax", "ymax"), self.box, strict=True)
        box = {side: round(value, 2) for side, value in sides}
        return {"label": self.label, "score": round(self.score, 6), "box": box}


@dataclass(frozen=True)
class PostImage:
    """What became of a post's image: one of IMAGE_STATES, with the reason where it is not used.

    key: the sha256 of its content. name: the file as the post names it; None where it was no file.
    """

    status: str = NONE
    reason: str | None = None
    key: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Result:
    """What is found in one post.

    truncated: whether the model read less than the whole text. error: why nothing was looked for; "" where
    all is well. left_out: pairs of mentions beyond --max-pairs. explanation: what the model looked at, as
    JSON values (pipeline.predict.explained), where that was asked for and the system can say it. more:
    whatever else the post came with. marginals: of each word that was read, the probabilities of its types,
    where they were asked for.
    """

    text: str
    id: str | None = None
    tokens: tuple[str, ...] | None = None
    entities: tuple[Entity, ...] = ()
    relations: tuple[Relation, ...] = ()
    objects: tuple[Seen, ...] = ()
    image: PostImage = field(default_factory=PostImage)
    truncated: bool = False
    error: str = ""
    left_out: int = 0
    explanation: Mapping[str, Any] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    marginals: tuple[WordTypes, ...] = ()

    @property
    def image_status(self) -> str:
        return self.image.status

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; docs/predict.md lists the keys."""
        found: dict[str, Any] = {} if self.id is None else {"id": self.id}
        found["text"] = self.text
        if self.tokens is not None:
            found["tokens"] = list(self.tokens)
        found["entities"] = [entity.to_json() for entity in self.entities]
        found["relations"] = [relation.to_json() for relation in self.relations]
        if self.marginals:
            found["marginals"] = [word.to_json() for word in self.marginals]
        found["objects"] = [seen.to_json() for seen in self.objects]
        if self.image.name is not None:
            found["image"] = self.image.name
        found["image_status"] = self.image.status
        if self.image.reason is not None:
            found["image_reason"] = self.image.reason
        found["truncated"] = self.truncated
        if self.left_out:
            found["pairs_left_out"] = self.left_out
        if self.error:
            found["error"] = self.error
        if self.explanation is not None:
            found["explanation"] = dict(self.explanation)
        return {**{name: value for name, value in self.more.items() if name not in _KEYS}, **found}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Result":
        """Return the result that `to_json` gave. Its scores have six decimals, and its image no key."""
        more = dict(values)
        tokens = more.pop("tokens", None)
        relations, objects = more.pop("relations"), more.pop("objects")
        return cls(
            text=more.pop("text"),
            id=more.pop("id", None),
            tokens=None if tokens is None else tuple(tokens),
            entities=tuple(map(Entity.from_json, more.pop("entities"))),
            relations=tuple(map(Relation.from_json, relations)),
            objects=tuple(Seen(**{**one, "box": tuple(one["box"].values())}) for one in objects),
            image=PostImage(
                more.pop("image_status"), more.pop("image_reason", None), name=more.pop("image", None)
            ),
            truncated=more.pop("truncated"),
            error=more.pop("error", ""),
            left_out=more.pop("pairs_left_out", 0),
            explanation=more.pop("explanation", None),
            marginals=tuple(WordTypes(**one) for one in more.pop("marginals", ())),
            more=more,
        )

    def to_displacy(self) -> dict[str, Any]:
        """Return what `spacy.displacy.render(..., style="ent", manual=True)` draws."""
        ents = [{"start": one.start, "end": one.end, "label": one.entity_group} for one in self.entities]
        return {"text": self.text, "ents": ents, "title": None}

    def to_spacy(self, nlp: Any) -> Any:
        """Return a Doc of a spaCy pipeline with the entities.

        A span that does not fall on the pipeline's words is moved to those that cover it.
        """
        doc = nlp.make_doc(self.text)
        spans = [
            doc.char_span(one.start, one.end, label=one.entity_group, alignment_mode="expand")
            for one in self.entities
        ]
        kept: list[Any] = []
        for span in spans:  # two may come to share a word
            if span is not None and all(span.start >= other.end for other in kept):
                kept.append(span)
        doc.ents = kept
        return doc

    def _repr_html_(self) -> str:
        """Return the text with its entities marked, as a notebook shows it."""
        parts, at = [], 0
        for one in sorted(self.entities, key=lambda entity: entity.start):
            label = html.escape(f"{one.entity_group} {one.score:.2f}")
            parts.append(html.escape(self.text[at : one.start]))
            parts.append(
                f'<mark title="{label}">{html.escape(self.text[one.start : one.end])} '
                f"<sup>{html.escape(one.entity_group)}</sup></mark>"
            )
            at = one.end
        parts.append(html.escape(self.text[at:]))
        return f"<div>{''.join(parts)}</div>"


def _fixed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
