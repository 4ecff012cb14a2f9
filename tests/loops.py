"""The parts that the multimodal systems share, in loops over float64 numbers, one sample at a time, no torch.

They are written from the equations and from nothing else, as tests/oracle.py is, whose conventions hold here:
arrays are numpy's, of float64, without a batch dimension; what is absent is left out rather than masked. A
module's weights are a mapping from the names of its parameters to arrays (`weights_of` a part's).
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .oracle import Array, attend, layer_norm, linear

Weights = Mapping[str, Array]


def weights_of(weights: Weights, part: str) -> Weights:
    """Return the weights of one part of a module, by their names within it."""
    return {
        name.removeprefix(f"{part}."): value for name, value in weights.items() if name.startswith(f"{part}.")
    }


def dense(rows: Array, weights: Weights, name: str) -> Array:
    """Return a linear map of every row, with the bias that it has or without one."""
    return linear(rows, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def norm(rows: Array, weights: Weights, name: str, eps: float) -> Array:
    return layer_norm(rows, weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


def elementwise(rows: Array, function: Callable[[float], float]) -> Array:
    return np.array([[function(float(value)) for value in row] for row in rows]).reshape(rows.shape)


def shares_of(scores: Sequence[float]) -> list[float]:
    """Return the softmax of the scores of the keys that are there: none for none."""
    top = max(scores, default=0.0)
    powers = [math.exp(score - top) for score in scores]
    return [power / math.fsum(powers) for power in powers]


def mean_by(shares: Sequence[float], rows: Array, width: int) -> list[float]:
    """Return the sum of the rows, each times its share: zeros where there is no row."""
    return [
        math.fsum(share * float(row[k]) for share, row in zip(shares, rows, strict=True))
        for k in range(width)
    ]


def additive(
    queries: Array, keys: Array, weights: Weights, *, concatenated: bool = False
) -> tuple[Array, Array]:
    """Return additive attention's output and weights: queries (n, d_q) on the present keys (K, d_k)."""
    asked, offered = dense(queries, weights, "query"), dense(keys, weights, "key")
    score = weights["score.weight"][0]
    outputs, all_shares = [], []
    for query in asked:
        scores = []
        for key in offered:
            parts = [*query, *key] if concatenated else [a + b for a, b in zip(query, key, strict=True)]
            scores.append(math.fsum(float(w) * math.tanh(part) for w, part in zip(score, parts, strict=True)))
        all_shares.append(shares_of(scores))
        outputs.append(mean_by(all_shares[-1], keys, keys.shape[1]))
    return np.array(outputs), np.array(all_shares).reshape(len(queries), len(keys))


def multi_head(queries: Array, keys: Array, weights: Weights, heads: int) -> Array:
    """Return multi-head attention's output: queries (n, d) on the present keys (K, d); zeros without keys.

    Values are projected where there are weights to do it, and so is the output.
    """
    if not len(keys):
        return np.zeros_like(queries)
    q, k = dense(queries, weights, "query"), dense(keys, weights, "key")
    v = dense(keys, weights, "value") if "value.weight" in weights else keys
    mixed = attend(q, k, v, heads)
    return dense(mixed, weights, "output") if "output.weight" in weights else mixed


def feed_forward(rows: Array, weights: Weights, activation: Callable[[float], float]) -> Array:
    return dense(elementwise(dense(rows, weights, "inner"), activation), weights, "outer")


def block(
    queries: Array,
    keys: Array,
    weights: Weights,
    *,
    heads: int,
    eps: float,
    activation: Callable[[float], float],
) -> Array:
    """Return a transformer block: queries (n, d) on the present keys (K, d)."""
    attended = multi_head(queries, keys, weights_of(weights, "attention"), heads)
    states = norm(queries + attended, weights, "attention_norm", eps)
    inner = feed_forward(states, weights_of(weights, "feed_forward"), activation)
    return norm(states + inner, weights, "feed_forward_norm", eps)


def bert_layer(rows: Array, weights: Weights, *, heads: int, eps: float) -> Array:
    """Return one of BERT's layers, by transformers' names of its weights: rows (n, d) on themselves."""
    own = weights_of(weights, "attention.self")
    queries, keys, values = (dense(rows, own, name) for name in ("query", "key", "value"))
    mixed = dense(attend(queries, keys, values, heads), weights, "attention.output.dense")
    rows = norm(rows + mixed, weights, "attention.output.LayerNorm", eps)
    inner = dense(elementwise(dense(rows, weights, "intermediate.dense"), gelu), weights, "output.dense")
    return norm(rows + inner, weights, "output.LayerNorm", eps)


def visualbert(
    ids: Sequence[int], views: Array, weights: Weights, *, heads: int, eps: float, layers: int
) -> Array:
    """Return VisualBERT's states of the text: n ids beside the vectors (V, D) of the present views."""
    tables = weights_of(weights, "embeddings")
    words = [
        tables["word_embeddings.weight"][token]
        + tables["position_embeddings.weight"][place]
        + tables["token_type_embeddings.weight"][0]
        for place, token in enumerate(ids)
    ]
    seen = [
        row
        + tables["visual_token_type_embeddings.weight"][1]
        + tables["visual_position_embeddings.weight"][0]
        for row in (dense(views, tables, "visual_projection") if len(views) else [])
    ]
    rows = norm(np.array([*words, *seen]), tables, "LayerNorm", eps)
    for number in range(layers):
        rows = bert_layer(rows, weights_of(weights, f"encoder.layer.{number}"), heads=heads, eps=eps)
    return rows[: len(ids)]


def gelu(value: float) -> float:
    return 0.5 * value * (1.0 + math.erf(value / math.sqrt(2.0)))


def relu(value: float) -> float:
    return max(value, 0.0)
