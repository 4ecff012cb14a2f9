"""The schema of every table that stages pass to one another: the contract between them, on one page."""

import pyarrow as pa

from .fingerprint import ADDED, NOT_DIGESTED

__all__ = [
    "CHAIN",
    "DEPENDENCIES",
    "DETECTIONS",
    "DONE",
    "ERRORS",
    "EXPLANATIONS",
    "FAILED",
    "GEOMETRY",
    "HISTORY",
    "IMAGES",
    "MENTION_BOXES",
    "MISSED",
    "OUTCOMES",
    "PREDICTIONS",
    "PROBLEMS",
    "SAMPLES",
    "SCENES",
    "SCENE_GRAPH",
    "SPLITS",
    "TASKS",
]


TASKS = ("ner", "re")
SPLITS = ("train", "valid", "test")
DONE, FAILED, MISSED = "done", "failed", "missed"


def _schema(
    *fields: tuple[str, pa.DataType], not_digested: tuple[str, ...] = (), added: tuple[str, ...] = ()
) -> pa.Schema:
    marks = {**dict.fromkeys(not_digested, NOT_DIGESTED), **dict.fromkeys(added, ADDED)}
    return pa.schema([pa.field(name, kind, metadata=marks.get(name)) for name, kind in fields])


_RANGE = pa.list_(pa.int32(), 2)  # half-open [start, end) of words, or of characters

# One row per sample, in the order (split, id). `split` is one of SPLITS, `task` one of TASKS. `tags` is
# filled for task "ner"; head, tail and relation for task "re". `groups` names, for each mention in the order
# of the text (or for the one pair), a group whose scores are reported separately. `image` is the name that
# the input gave, `image_key` the sha256 of that image's content, or null where there is no usable image.
# `text` is the raw text that the input gave and `offsets` the range of each word in its characters, as Python
# counts them (code points); both are null where it gave words. No stage reads them, so that they are in no
# digest; `tokens` are.
SAMPLES = _schema(
    ("id", pa.string()),
    ("split", pa.string()),
    ("task", pa.string()),
    ("tokens", pa.list_(pa.string())),
    ("tags", pa.list_(pa.string())),
    ("head", _RANGE),
    ("tail", _RANGE),
    ("relation", pa.string()),
    ("groups", pa.list_(pa.string())),
    ("image", pa.string()),
    ("image_key", pa.string()),
    ("text", pa.string()),
    ("offsets", pa.list_(_RANGE)),
    added=("text", "offsets"),
)

# One row per distinct image CONTENT, in the order of `key`. `width` and `height` are pixels after EXIF
# rotation. `path` is where one copy of the content lies; it is in no digest, so that a run can be moved.
# `status` is "ok" or "unreadable", the latter with its `reason` and a size of 0 by 0.
IMAGES = _schema(
    ("key", pa.string()),
    ("path", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("status", pa.string()),
    ("reason", pa.string()),
    not_digested=("path",),
)

# One row per box of a mention, for texts whose mentions have boxes: by the sample's place in samples.parquet,
# then by the mention's in the text. `words` and `type` are the mention's. Boxes are x0, y0, x1, y1 in pixels
# of the upright image. A mention that somebody looked for, and that the image does not show, has one row
# without a box (null); one that nobody looked for, or whose boxes were all refused, has no row.
MENTION_BOXES = _schema(
    ("id", pa.string()),
    ("words", _RANGE),
    ("type", pa.string()),
    ("x0", pa.float32()),
    ("y0", pa.float32()),
    ("x1", pa.float32()),
    ("y1", pa.float32()),
)

# One row for each thing that a stage refused or repaired. `kind` in prepare's is "image" (the sample is kept
# without its image), "tag" (an orphan I- tag), "relation" (the negative relation in another spelling), "span"
# (a span of characters that was moved to whole words, or dropped), "scheme" (tags that were not BIO, read as
# BIO), "row" (what no sample could be made of, which has no name of one) or "box" (one of a mention that was
# left out; it names the sample where there is one); in those of scenes and dependencies it is "scene" or
# "tree".
PROBLEMS = _schema(
    ("kind", pa.string()),
    ("sample", pa.string()),
    ("where", pa.string()),
    ("reason", pa.string()),
)

# One row per (image_key, rank); rank 0 has the highest score. Boxes are x0, y0, x1, y1 in pixels of the
# upright image.
DETECTIONS = _schema(
    ("image_key", pa.string()),
    ("rank", pa.int8()),
    ("x0", pa.float32()),
    ("y0", pa.float32()),
    ("x1", pa.float32()),
    ("y1", pa.float32()),
    ("label", pa.string()),
    ("score", pa.float32()),
)

# The scene graph of an image: its objects by falling score, and the relations between them. One row per
# usable image, in the order of the key. `source` is GEOMETRY, SCENE_GRAPH, or "" where there is no graph.
# boxes, labels, scores: of the objects; boxes are x0, y0, x1, y1 as shares of the image's sides. subjects,
# predicates, objects, strengths: of the relations; subjects and objects are numbers of objects.
GEOMETRY, SCENE_GRAPH = "geometry", "scene-graph"
SCENES = _schema(
    ("image_key", pa.string()),
    ("source", pa.string()),
    ("boxes", pa.list_(pa.list_(pa.float32(), 4))),
    ("labels", pa.list_(pa.string())),
    ("scores", pa.list_(pa.float32())),
    ("subjects", pa.list_(pa.int16())),
    ("predicates", pa.list_(pa.string())),
    ("objects", pa.list_(pa.int16())),
    ("strengths", pa.list_(pa.float32())),
)

# One row per sample that has a dependency tree, in the order of samples.parquet. `words` are the sample's
# own. `head` is the number of each word's head, or -1 for a root; a sample of several sentences has several.
# `tool`, `model` and `version` say what parsed it; the tool CHAIN links each word to the next.
CHAIN = "chain"
DEPENDENCIES = _schema(
    ("id", pa.string()),
    ("words", pa.list_(pa.string())),
    ("head", pa.list_(pa.int16())),
    ("deprel", pa.list_(pa.string())),
    ("tool", pa.string()),
    ("model", pa.string()),
    ("version", pa.string()),
)

# One row per image that a visual stage processed. `status` is DONE; FAILED; or MISSED, where the image could
# not be read at that moment: that is no result, and the next run tries it again. `reason` says why it is not
# done.
OUTCOMES = _schema(
    ("image_key", pa.string()),
    ("status", pa.string()),
    ("reason", pa.string()),
)

# One row per scored sample. For "ner" gold and predicted are tag sequences as long as `tokens`; for "re" they
# are lists of one relation.
PREDICTIONS = _schema(
    ("id", pa.string()),
    ("split", pa.string()),
    ("tokens", pa.list_(pa.string())),
    ("gold", pa.list_(pa.string())),
    ("predicted", pa.list_(pa.string())),
    ("has_image", pa.bool_()),
)

# One row for each error in a split's predictions, in their order. kind: one of KINDS of
# stages.learning.errors but "correct". The types are null where nothing is there: gold's of what is spurious,
# predicted's of what is missed. The words are those of entities. probability: of exactly what was predicted,
# where it is known.
ERRORS = _schema(
    ("id", pa.string()),
    ("split", pa.string()),
    ("kind", pa.string()),
    ("gold_type", pa.string()),
    ("gold_words", _RANGE),
    ("predicted_type", pa.string()),
    ("predicted_words", _RANGE),
    ("probability", pa.float64()),
    ("tokens", pa.list_(pa.string())),
)

# What a model attended to in a sample, for figures. positions: the words, or [CLS], [E1] and [E2], that
# `attention` belongs to. over: what it is spread over, "views", "cells" of the whole image, row by row, or
# "objects". views: whether the sample has each of them. gates: layer, view, level. attention: layer,
# position, view; the mean over heads. word_gates: of each gate that the system has for every word, by name,
# its value at every position.
_CUBE = pa.list_(pa.list_(pa.list_(pa.float32())))
EXPLANATIONS = _schema(
    ("id", pa.string()),
    ("split", pa.string()),
    ("image_key", pa.string()),
    ("positions", pa.list_(pa.string())),
    ("over", pa.string()),
    ("views", pa.list_(pa.bool_())),
    ("gates", _CUBE),
    ("attention", _CUBE),
    ("word_gates", pa.map_(pa.string(), pa.list_(pa.float32()))),
)

# One row per training epoch. Times are seconds.
HISTORY = _schema(
    ("epoch", pa.int32()),
    ("step", pa.int32()),
    ("loss", pa.float64()),
    ("learning_rate", pa.float64()),
    ("valid_f1", pa.float64()),
    ("seconds", pa.float64()),
    ("samples_per_second", pa.float64()),
)
