"""The types of encoders that take a visual prefix, and those that do not, with the reasons.

It needs no torch. An addition is one entry here, and tests/stages/text/test_families.py tries each
with a small network.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ....manifests.errors import WeightsError

__all__ = ["FAMILIES", "REFUSED", "Family", "attention_width", "family_of", "value_of"]


@dataclass(frozen=True)
class Family:
    """One type of encoder.

    name: its `model_type` in transformers. example: a public encoder of the type. note: what is special about
    its prefix or its use. whole: whether tests make whole runs on it, beside steps. names: where the type's
    configuration has what BERT's calls otherwise, by BERT's name: the type's own name, or the number that it
    always has.
    """

    name: str
    example: str
    note: str = ""
    whole: bool = False
    names: Mapping[str, str | float] = field(default_factory=dict)


_CONTENT = "to the prefix it attends by content alone, as a cell of an image has no distance from a word"

_ALL = (
    Family("bert", "bert-base-uncased"),
    Family("roberta", "roberta-base", whole=True),
    Family("xlm-roberta", "xlm-roberta-base"),
    Family("camembert", "camembert-base"),
    Family("electra", "google/electra-base-discriminator"),
    Family("ernie", "nghuyong/ernie-3.0-base-zh"),
    Family("data2vec-text", "facebook/data2vec-text-base"),
    Family("roberta-prelayernorm", "andreasmadsen/efficient_mlm_m0.40"),
    Family("xlm-roberta-xl", "facebook/xlm-roberta-xl"),
    Family(
        "xmod",
        "facebook/xmod-base",
        "reads every text by the adapters of `default_language` in its config.json, which must be set",
    ),
    Family(
        "distilbert",
        "distilbert-base-uncased",
        whole=True,
        names={
            "hidden_dropout_prob": "dropout",
            "intermediate_size": "hidden_dim",
            "layer_norm_eps": 1e-12,
        },
    ),
    Family(
        "albert", "albert-base-v2", "its layers share their weights, and each still has a prefix of its own"
    ),
    Family(
        "mobilebert",
        "google/mobilebert-uncased",
        "the prefix has the width of its attention (`true_hidden_size`)",
        names={"attention_width": "true_hidden_size"},
    ),
    Family(
        "modernbert",
        "answerdotai/ModernBERT-base",
        "every sub-word sees the whole prefix, also where it sees only a window of the text",
        whole=True,
        names={"hidden_dropout_prob": "mlp_dropout", "layer_norm_eps": "norm_eps"},
    ),
    Family(
        "eurobert",
        "EuroBERT/EuroBERT-210m",
        "each head has a prefix of its own, also where heads share the keys of the text",
        names={"hidden_dropout_prob": "attention_dropout", "layer_norm_eps": "rms_norm_eps"},
    ),
    Family("nomic_bert", "nomic-ai/nomic-bert-2048", "as transformers saves it, without code of its own"),
    Family("deberta", "microsoft/deberta-base", _CONTENT),
    Family("deberta-v2", "microsoft/deberta-v3-base", f"also v3; {_CONTENT}", whole=True),
)

FAMILIES = {family.name: family for family in _ALL}
"""The types that take a prefix, by name."""

_LEFT_TO_RIGHT = "each of its sub-words sees those before it alone"
_OWN = "its attention is written out in its own code, which has no place for a prefix"
_APPROXIMATE = "it approximates attention by a sum that a prefix does not fit into"

REFUSED = {
    "big_bird": "it attends to blocks of the text",
    "canine": "it reads characters and has no sub-words",
    "convbert": "a half of its heads are convolutions",
    "esm": "it reads proteins",
    "flaubert": _OWN,
    "fnet": "it has no attention",
    "funnel": "its inner layers have fewer states than the text has sub-words",
    "gpt2": _LEFT_TO_RIGHT,
    "ibert": "its attention is one of integers",
    "layoutlm": "it needs the place of each word on a page",
    "llama": _LEFT_TO_RIGHT,
    "longformer": "it attends to windows of the text by an attention of its own",
    "luke": "it needs the entities of the text, which are what is looked for",
    "megatron-bert": _OWN,
    "modernbert-decoder": _LEFT_TO_RIGHT,
    "mpnet": _OWN,
    "mra": _APPROXIMATE,
    "nystromformer": _APPROXIMATE,
    "rembert": _OWN,
    "roc_bert": "it needs the shape and the sound of each character",
    "roformer": _OWN,
    "squeezebert": _OWN,
    "t5": "it is an encoder for a decoder, without a token that opens a text",
    "visual_bert": "it is the encoder of the system visualbert, which reads views behind the text",
    "xlm": _OWN,
    "xlnet": _OWN,
    "yoso": _APPROXIMATE,
}
"""Types of transformers that are refused, and why. A type that neither list has is refused as unknown."""


def family_of(config: Any) -> Family:
    """Return the family of an encoder's configuration. Raises WeightsError where it takes no prefix."""
    kind = config.model_type
    if kind in FAMILIES:
        return FAMILIES[kind]
    reason = REFUSED.get(kind, "nobody has tried it")
    raise WeightsError(
        f"{kind} is not an encoder that takes a prefix ({reason}); use one of the types {', '.join(FAMILIES)}"
    )


def value_of(config: Any, name: str) -> Any:
    """Return what BERT's configuration calls `name`, from that of any encoder."""
    family = FAMILIES.get(config.model_type)
    own = name if family is None else family.names.get(name, name)
    return getattr(config, own) if isinstance(own, str) else own


def attention_width(config: Any) -> int:
    """Return the width of all heads of a layer together: the d of equations 2 to 9."""
    if size := getattr(config, "head_dim", None) or getattr(config, "attention_head_size", None):
        return int(size) * int(config.num_attention_heads)
    own = family_of(config).names.get("attention_width", "hidden_size")
    return int(getattr(config, str(own)))
