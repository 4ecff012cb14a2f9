"""MEGA's structural alignment: how like an object's place in its scene is to a word's place in its sentence.

It is xNetMF of REGAL (Heimann et al. 2018): nodes are alike whose neighbourhoods hold nodes of like degrees.
The published code embeds all nodes by the Nystrom method with random landmarks. The graphs of a sentence and
an image are so small that every node is a landmark, and there the distance of two embeddings is known in
closed form, sqrt(2 - 2 S): without landmarks, decomposition or chance. It is used for larger graphs too.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

__all__ = ["BINS", "Histograms", "neighbourhoods", "structural_weights"]

BINS = 16
"""Logarithmic bins of degrees: more than the graph of any sentence or image needs."""

# A neighbour at distance k counts 0.01^k. In units of 0.01^2 all histograms are whole numbers, so that nodes
# of like structure are at distance 0 exactly, and ties are ties whatever the order of the nodes.
_COUNTS = (10_000, 100, 1)

_NEAREST = 5  # objects that a word keeps

Histograms = npt.NDArray[np.int64]


def neighbourhoods(nodes: int, edges: Iterable[tuple[int, int]]) -> Histograms:
    """Return the histogram of degrees around each node of an undirected graph, (nodes, BINS), times 10,000.

    Bin b counts the nodes at distance 0, 1 and 2 whose degree has floor(log2) b, for 1, 0.01 and 0.0001 each.
    Nodes without an edge are counted nowhere. An edge that is given twice, or both ways, is one edge.
    """
    joined = np.zeros((nodes, nodes), bool)
    if ends := list(edges):
        first, second = np.array(ends).T
        joined[first, second] = joined[second, first] = True
    np.fill_diagonal(joined, False)
    degrees = joined.sum(axis=1)
    bins = np.zeros((nodes, BINS), np.int64)
    linked = np.flatnonzero(degrees)
    bins[linked, np.frexp(degrees[linked])[1] - 1] = 1  # frexp is exact where log2 may round
    near = joined.astype(np.int64)
    second_ring = (near @ near > 0) & ~joined
    np.fill_diagonal(second_ring, False)
    around = near @ bins, second_ring.astype(np.int64) @ bins
    found: Histograms = _COUNTS[0] * bins + _COUNTS[1] * around[0] + _COUNTS[2] * around[1]
    return found


def structural_weights(objects: Histograms, words: Histograms) -> npt.NDArray[np.float32]:
    """Return R, (objects, words): each word's alignment with its 5 nearest objects, 0 for the others.

    objects, words: the `neighbourhoods` of the two graphs, which share no edge. S = exp(-||f_u - f_v||), the
    distance of the normalised embeddings is sqrt(2 - 2 S), and the weight exp(-distance). Of objects at one
    distance the earlier one is nearer: they are by falling score.
    """
    apart = objects[:, None].astype(np.float64) - words[None]  # exact. shape: (N, w, BINS)
    norms = np.sqrt((apart**2).sum(axis=-1)) / _COUNTS[0]
    distance = np.sqrt(-2.0 * np.expm1(-norms))
    weights = np.exp(-distance)
    if len(objects) > _NEAREST:
        order = np.argsort(distance, axis=0, kind="stable")
        np.put_along_axis(weights, order[_NEAREST:], 0.0, axis=0)
    found: npt.NDArray[np.float32] = weights.astype(np.float32)
    return found
