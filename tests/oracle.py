"""HMNeT by hand: equations 1-11 of the paper in loops over float64 numbers, one sample at a time, no torch.

It is written from the paper and from nothing else, so that a test that agrees with it agrees with the
equations. Arrays are numpy's, of float64, and a sample has no batch dimension. What is absent is left out
rather than masked, so that a leaking mask cannot agree by accident. Encoder weights are a mapping from the
public names of BERT's parameters (`encoder.layer.0.attention.self.query.weight`, ...) to arrays.

Shapes: n text length, d hidden size, H heads, L layers, c levels, C_i channels of level i, p pooled side,
a views.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = Mapping[str, Array]

LEAKY_SLOPE = 0.01
"""The slope of LeakyReLU below zero where nobody says otherwise."""


# Visual side, equations 1 and 2.


def adaptive_pool(maps: Array, side: int) -> Array:
    """Return the means over side x side bins that cover every row and column: (C, h, w) -> (C, side, side).

    Bin i spans rows floor(i h / side) up to, not including, ceil((i + 1) h / side).
    """
    channels, height, width = maps.shape
    pooled = np.zeros((channels, side, side))
    for channel in range(channels):
        for i in range(side):
            for j in range(side):
                rows = range(i * height // side, -(-(i + 1) * height // side))
                columns = range(j * width // side, -(-(j + 1) * width // side))
                total = 0.0
                for row in rows:
                    for column in columns:
                        total += float(maps[channel, row, column])
                pooled[channel, i, j] = total / (len(rows) * len(columns))
    return pooled


def project(pooled: Array, weight: Array, bias: Array) -> Array:
    """Return equations 1-2, the 1x1 convolution of one level of one view: (C_i, p, p) -> (d, p, p).

    weight: (d, C_i).
    """
    size, channels = weight.shape
    side = pooled.shape[-1]
    out = np.zeros((size, side, side))
    for k in range(size):
        for i in range(side):
            for j in range(side):
                total = float(bias[k])
                for channel in range(channels):
                    total += float(weight[k, channel]) * float(pooled[channel, i, j])
                out[k, i, j] = total
    return out


# Gate, equations 3 to 5.


def gate(levels: Sequence[Array], weight: Array, bias: Array | None) -> Array:
    """Return equations 3-4 for one view and one text layer: c maps (d, p, p) -> (c,) probabilities.

    weight: (c, d).
    """
    size, side = levels[0].shape[0], levels[0].shape[-1]
    squeezed = []
    for k in range(size):
        total = 0.0
        for level in levels:
            pooled = 0.0
            for i in range(side):
                for j in range(side):
                    pooled += float(level[k, i, j])
            total += pooled / (side * side)
        squeezed.append(total / len(levels))
    logits = []
    for level_index in range(weight.shape[0]):
        logit = 0.0 if bias is None else float(bias[level_index])
        for k in range(size):
            logit += float(weight[level_index, k]) * squeezed[k]
        logits.append(logit if logit > 0 else LEAKY_SLOPE * logit)
    return np.array(softmax(logits))


def mix(levels: Sequence[Array], probabilities: Array) -> Array:
    """Return equation 5 for a view, the levels weighted by probability: c maps (d, p, p) -> (d, p, p)."""
    out = np.zeros_like(levels[0])
    for level, probability in zip(levels, probabilities, strict=True):
        out = out + float(probability) * level
    return out


# Prefix, equations 6 to 8.


def visual_sequence(views: Sequence[Array]) -> Array:
    """Return equation 6, views in order, cells row by row: a maps (d, p, p) -> (a * p * p, d)."""
    cells = []
    for view in views:
        for i in range(view.shape[1]):
            for j in range(view.shape[2]):
                cells.append([float(value) for value in view[:, i, j]])
    size = views[0].shape[0] if views else 0
    return np.array(cells).reshape(len(cells), size)


def linear(rows: Array, weight: Array, bias: Array | None) -> Array:
    """Return every row times a matrix kept as (out, in), plus a bias: (n, in) -> (n, out)."""
    out = np.zeros((rows.shape[0], weight.shape[0]))
    for i in range(rows.shape[0]):
        for k in range(weight.shape[0]):
            total = 0.0 if bias is None else float(bias[k])
            for j in range(weight.shape[1]):
                total += float(weight[k, j]) * float(rows[i, j])
            out[i, k] = total
    return out


def prefix(sequence: Array, weight: Array, bias: Array | None) -> tuple[Array, Array]:
    """Return equation 8: phi_k and phi_v, each (a * p * p, d), the first and the second d of the 2d outputs.

    weight: (2d, d).
    """
    both = linear(sequence, weight, bias)
    size = weight.shape[1]
    return both[:, :size], both[:, size:]


def heads(rows: Array, count: int) -> list[Array]:
    """Return the heads; head h of a row is its h-th run of d/H features: (n, d) -> H arrays (n, d/H)."""
    width = rows.shape[1] // count
    return [
        np.array([[row[h * width + k] for k in range(width)] for row in rows]).reshape(len(rows), width)
        for h in range(count)
    ]


# The text encoder and its attention, equations 7 and 9.


def softmax(logits: Sequence[float]) -> list[float]:
    top = max(logits)
    powers = [math.exp(logit - top) for logit in logits]
    total = math.fsum(powers)
    return [power / total for power in powers]


def layer_norm(rows: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    out = np.zeros_like(rows)
    for i, row in enumerate(rows):
        mean = math.fsum(row) / len(row)
        variance = math.fsum((value - mean) ** 2 for value in row) / len(row)
        for k, value in enumerate(row):
            out[i, k] = (value - mean) / math.sqrt(variance + epsilon) * float(weight[k]) + float(bias[k])
    return out


def gelu(rows: Array) -> Array:
    """Return x times the normal distribution function at x, exactly, as BERT has it."""
    return np.array(
        [[0.5 * value * (1.0 + math.erf(value / math.sqrt(2.0))) for value in row] for row in rows]
    )


def embed(ids: Sequence[int], positions: Sequence[int], weights: Weights, epsilon: float) -> Array:
    """Return word + position + segment 0, then LayerNorm: n ids -> (n, d)."""
    rows = []
    for token, position in zip(ids, positions, strict=True):
        rows.append(
            weights["embeddings.word_embeddings.weight"][token]
            + weights["embeddings.position_embeddings.weight"][position]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
    return layer_norm(
        np.array(rows), weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"], epsilon
    )


def attend(queries: Array, keys: Array, values: Array, count: int) -> Array:
    """Return equation 9 over `count` heads: queries (n, d) on keys and values (k, d) -> (n, d)."""
    size = queries.shape[1]
    outputs = []
    for q, k, v in zip(heads(queries, count), heads(keys, count), heads(values, count), strict=True):
        rows = []
        for query in q:
            logits = [
                math.fsum(float(a) * float(b) for a, b in zip(query, key, strict=True))
                / math.sqrt(size / count)
                for key in k
            ]
            shares = softmax(logits)
            rows.append(
                [
                    math.fsum(share * float(value[j]) for share, value in zip(shares, v, strict=True))
                    for j in range(v.shape[1])
                ]
            )
        outputs.append(rows)
    return np.array([[value for rows in outputs for value in rows[i]] for i in range(len(queries))])


def attention(rows: Array, phi: tuple[Array, Array] | None, name: str, weights: Weights, count: int) -> Array:
    """Return one layer's self-attention before its output projection: text on [phi_k; K] and [phi_v; V]."""
    q, k, v = (
        linear(rows, weights[f"{name}.{part}.weight"], weights[f"{name}.{part}.bias"])
        for part in ("query", "key", "value")
    )
    if phi is not None and len(phi[0]):
        k, v = np.concatenate([phi[0], k]), np.concatenate([phi[1], v])
    return attend(q, k, v, count)


def encode(
    ids: Sequence[int],
    positions: Sequence[int],
    prefixes: Sequence[tuple[Array, Array] | None],
    weights: Weights,
    *,
    head_count: int,
    epsilon: float,
) -> list[Array]:
    """Return the embedding and each layer's output, (n, d), of a BERT of len(prefixes) layers on a text.

    The text holds no padding.
    """
    rows = embed(ids, positions, weights, epsilon)
    outputs = [rows]
    for index, phi in enumerate(prefixes):
        layer = f"encoder.layer.{index}"

        def dense(inputs: Array, name: str, layer: str = layer) -> Array:
            return linear(inputs, weights[f"{layer}.{name}.weight"], weights[f"{layer}.{name}.bias"])

        def norm(inputs: Array, name: str, layer: str = layer) -> Array:
            return layer_norm(
                inputs, weights[f"{layer}.{name}.weight"], weights[f"{layer}.{name}.bias"], epsilon
            )

        mixed = attention(rows, phi, f"{layer}.attention.self", weights, head_count)
        rows = norm(dense(mixed, "attention.output.dense") + rows, "attention.output.LayerNorm")
        rows = norm(dense(gelu(dense(rows, "intermediate.dense")), "output.dense") + rows, "output.LayerNorm")
        outputs.append(rows)
    return outputs


# The five systems: which level reaches which layer of which views.


@dataclass(frozen=True)
class Fusion:
    """The visual weights of one system, by level (0 to c - 1) and by text layer (0 to L - 1).

    Unused ones are left out.
    """

    projection: Mapping[int, tuple[Array, Array]]
    gates: Mapping[int, tuple[Array, Array | None]] = field(default_factory=dict)
    prefixes: Mapping[int, tuple[Array, Array | None]] = field(default_factory=dict)


def layer_levels(system: str, layer: int, layers: int, levels: int = 4) -> list[int] | None:
    """Return the levels that reach a text layer, by Table 1's list of variants, or None for no image."""
    if system in ("hmnet", "hmnet-onlyobj", "hmnet-onlyglobal"):
        return list(range(levels))
    if system == "hmnet-flat":
        return [levels - 1]
    if system == "hmnet-single":
        return [levels - 1] if layer == layers - 1 else None
    if system == "hmnet-1v3":
        return [layer // (layers // levels)]
    raise ValueError(system)


def gate_of(system: str, layer: int, view: Sequence[Array], fusion: Fusion, layers: int) -> list[float]:
    """Return the share of each of a view's c pooled levels in what reaches the layer, or zeros."""
    wanted = layer_levels(system, layer, layers, len(view))
    shares = [0.0] * len(view)
    if wanted is None:
        return shares
    if len(wanted) == 1:
        shares[wanted[0]] = 1.0
        return shares
    projected = [project(view[level], *fusion.projection[level]) for level in wanted]
    return [float(share) for share in gate(projected, *fusion.gates[layer])]


def prefix_of(
    system: str,
    layer: int,
    views: Sequence[Sequence[Array]],
    present: Sequence[bool],
    fusion: Fusion,
    layers: int,
) -> tuple[Array, Array] | None:
    """Return equations 1-8 for one sample and one layer: (phi_k, phi_v) of the existing views, global first.

    Returns None where there is no view.

    Args:
        views: a views, the global image first, each as c pooled levels (C_i, p, p).
        present: for each view whether it exists.
    """
    wanted = layer_levels(system, layer, layers)
    kept = []
    for index, (view, there) in enumerate(zip(views, present, strict=True)):
        if wanted is None or not there:
            continue
        if (system == "hmnet-onlyobj" and index == 0) or (system == "hmnet-onlyglobal" and index > 0):
            continue
        shares = gate_of(system, layer, view, fusion, layers)
        projected = [project(view[level], *fusion.projection[level]) for level in wanted]
        kept.append(mix(projected, np.array([shares[level] for level in wanted])))
    if not kept:
        return None
    return prefix(visual_sequence(kept), *fusion.prefixes[layer])


def split_levels(pyramid: Array, channels: Sequence[int]) -> list[Array]:
    """Return the cached (sum C_i, p, p) of one view as its levels, lowest first."""
    ends = list(itertools.accumulate(channels))
    return [pyramid[end - count : end] for end, count in zip(ends, channels, strict=True)]


# Heads, equations 10 and 11.


def may_follow(before: str | None, tag: str) -> bool:
    """Return whether BIO allows it: I-x only after B-x or I-x. before: None at the start of a sentence."""
    if not tag.startswith("I-"):
        return True
    return before is not None and before[0] in "BI" and before[1:] == tag[1:]


def valid_sequences(tags: Sequence[str], length: int) -> Iterator[tuple[int, ...]]:
    """Yield every sequence of tag numbers that BIO allows."""
    for path in itertools.product(range(len(tags)), repeat=length):
        names = [None, *(tags[index] for index in path)]
        if all(may_follow(before, tag) for before, tag in itertools.pairwise(names) if tag is not None):
            yield path


@dataclass(frozen=True)
class Chain:
    """A linear chain's scores: starting with a tag (T), one following another (from, to), ending with one."""

    start: Array
    transitions: Array
    end: Array


def path_score(path: Sequence[int], emissions: Array, chain: Chain) -> float:
    score = float(chain.start[path[0]]) + float(chain.end[path[-1]])
    for index, tag in enumerate(path):
        score += float(emissions[index, tag])
        if index:
            score += float(chain.transitions[path[index - 1], tag])
    return score


def log_sum_exp(scores: Sequence[float]) -> float:
    top = max(scores)
    return top + math.log(math.fsum(math.exp(score - top) for score in scores))


def log_likelihood(path: Sequence[int], emissions: Array, chain: Chain, tags: Sequence[str]) -> float:
    """Return equation 10 for one sentence: log p(path | H), summing over every sequence that BIO allows."""
    others = [path_score(other, emissions, chain) for other in valid_sequences(tags, len(emissions))]
    return path_score(path, emissions, chain) - log_sum_exp(others)


def best_path(emissions: Array, chain: Chain, tags: Sequence[str]) -> list[int]:
    """Return the likeliest sequence that BIO allows, found by trying them all."""
    return list(
        max(valid_sequences(tags, len(emissions)), key=lambda path: path_score(list(path), emissions, chain))
    )


def cls_logits(states: Array, weight: Array, bias: Array) -> Array:
    """Return equation 11 with the paper's [CLS] head: (n, d) -> (R,)."""
    return linear(states[:1], weight, bias)[0]


def marker_logits(states: Array, head: int, tail: int, weight: Array, bias: Array) -> Array:
    """Return equation 11 on the states at the two opening markers, the head's first: (n, d) -> (R,).

    weight: (R, 2d).
    """
    return linear(np.concatenate([states[head], states[tail]])[None], weight, bias)[0]


def cross_entropy(logits: Array, label: int) -> float:
    return log_sum_exp([float(logit) for logit in logits]) - float(logits[label])
