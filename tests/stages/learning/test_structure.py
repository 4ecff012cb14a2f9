"""Structural alignment, beside breadth-first search in loops and the method with landmarks in full."""

import math
from collections import defaultdict, deque

import numpy as np
import pytest
from hmnet_pipe.stages.learning.structure import neighbourhoods, structural_weights

Edges = list[tuple[int, int]]


def a_graph(nodes: int, edges: int, seed: int) -> Edges:
    random = np.random.default_rng(seed)
    pairs = random.integers(0, nodes, (edges, 2)).tolist()
    return [(a, b) for a, b in pairs if a != b]


def by_search(nodes: int, edges: Edges) -> list[dict[int, float]]:
    """Return the histogram of every node as the paper defines it, by breadth-first search."""
    neighbours: list[set[int]] = [set() for _ in range(nodes)]
    for a, b in edges:
        neighbours[a].add(b)
        neighbours[b].add(a)
    found = []
    for start in range(nodes):
        distance, waiting = {start: 0}, deque([start])
        while waiting:
            node = waiting.popleft()
            for other in neighbours[node]:
                if other not in distance:
                    distance[other] = distance[node] + 1
                    waiting.append(other)
        histogram: dict[int, float] = defaultdict(float)
        for node, far in distance.items():
            if far <= 2 and neighbours[node]:
                histogram[int(math.log2(len(neighbours[node])))] += 0.01**far
        found.append(histogram)
    return found


def weights_by_search(objects: list[dict[int, float]], words: list[dict[int, float]]) -> np.ndarray:
    weights = np.zeros((len(objects), len(words)))
    for w, word in enumerate(words):
        distances = []
        for o, found in enumerate(objects):
            bins = {*word, *found}
            norm = math.sqrt(sum((word.get(b, 0.0) - found.get(b, 0.0)) ** 2 for b in bins))
            distances.append((math.sqrt(max(0.0, 2 - 2 * math.exp(-norm))), o))
        for distance, o in sorted((round(d, 9), o) for d, o in distances)[:5]:
            weights[o, w] = math.exp(-distance)
    return weights


@pytest.mark.parametrize("seed", range(6))
def test_weights_are_those_of_breadth_first_search(seed: int) -> None:
    words, objects = a_graph(20, 18, seed), a_graph(9, 4 * seed, seed + 50)
    found = structural_weights(neighbourhoods(9, objects), neighbourhoods(20, words))
    wanted = weights_by_search(by_search(9, objects), by_search(20, words))
    assert np.abs(found - wanted).max() < 1e-6
    assert ((found > 0).sum(axis=0) == 5).all()


def test_histograms_are_exactly_those_of_breadth_first_search() -> None:
    edges = a_graph(30, 60, 1)
    found = neighbourhoods(30, edges)
    for node, histogram in enumerate(by_search(30, edges)):
        for b in range(found.shape[1]):
            assert found[node, b] == round(histogram.get(b, 0.0) * 10_000)


@pytest.mark.parametrize("seed", range(4))
def test_the_closed_form_is_nystrom_with_every_node_a_landmark(seed: int) -> None:
    """As REGAL embeds: similarity to landmarks, pseudo-inverse by singular values, rows normalised."""
    w, n = 12, 6
    words, objects = a_graph(w, 10, seed), a_graph(n, 5, seed + 9)
    histograms = np.concatenate([neighbourhoods(n, objects), neighbourhoods(w, words)]) / 10_000
    distinct, place = np.unique(histograms, axis=0, return_inverse=True)
    kernel = np.exp(-np.linalg.norm(histograms[:, None] - distinct[None], axis=-1))
    at_landmarks = np.exp(-np.linalg.norm(distinct[:, None] - distinct[None], axis=-1))
    left, values, _ = np.linalg.svd(np.linalg.inv(at_landmarks))
    embedded = kernel @ left @ np.diag(np.sqrt(values))
    embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
    apart = np.linalg.norm(embedded[:n, None] - embedded[None, n:], axis=-1)
    found = structural_weights(*(neighbourhoods(*graph) for graph in ((n, objects), (w, words))))
    kept = found > 0
    # Square roots of rounding: distances near 0 are exact to 1e-7 only.
    assert np.abs(found - np.exp(-apart))[kept].max() < 2e-7
    assert len(place) == n + w


def test_relabelling_the_image_graph_permutes_the_rows() -> None:
    words, objects = a_graph(15, 14, 2), a_graph(5, 6, 3)
    order = np.array([3, 0, 4, 2, 1])
    renamed = [(int(np.flatnonzero(order == a)[0]), int(np.flatnonzero(order == b)[0])) for a, b in objects]
    text = neighbourhoods(15, words)
    found = structural_weights(neighbourhoods(5, objects), text)
    assert np.array_equal(structural_weights(neighbourhoods(5, renamed), text), found[order])


def test_identical_structure_has_weight_one() -> None:
    path = [(0, 1), (1, 2), (2, 3)]
    found = structural_weights(neighbourhoods(4, path), neighbourhoods(4, path))
    assert np.array_equal(np.diag(found), np.ones(4, np.float32))


def test_ties_go_to_the_better_scored_object() -> None:
    found = structural_weights(neighbourhoods(8, []), neighbourhoods(1, []))
    assert found[:, 0].tolist() == [1.0] * 5 + [0.0] * 3


def test_an_edge_given_twice_or_both_ways_or_to_itself_changes_nothing() -> None:
    once = neighbourhoods(4, [(0, 1), (1, 2)])
    assert np.array_equal(neighbourhoods(4, [(0, 1), (1, 0), (1, 2), (1, 2), (3, 3)]), once)


def test_graphs_without_nodes_or_edges_are_no_error() -> None:
    assert structural_weights(neighbourhoods(0, []), neighbourhoods(3, [])).shape == (0, 3)
    assert structural_weights(neighbourhoods(2, []), neighbourhoods(3, [(0, 1)])).shape == (2, 3)


def test_a_degree_that_is_a_power_of_two_is_in_its_own_bin() -> None:
    star = [(0, i) for i in range(1, 9)]
    assert neighbourhoods(9, star)[0].argmax() == 3
