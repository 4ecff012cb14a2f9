"""Windows over long texts: the encoder can read each, and every word is taken where it sees most."""

import random
from itertools import pairwise

from hmnet_pipe.stages.text.windows import best_windows, windows_of


def cases() -> list[tuple[list[int], int]]:
    dice = random.Random(0)
    made = []
    for _ in range(2000):
        limit = dice.randint(1, 20)
        longest = dice.choice((1, 3, limit, limit + 3))
        made.append(([dice.randint(1, longest) for _ in range(dice.randint(0, 30))], limit))
    return made


def test_windows_hold_all_words_and_fit() -> None:
    for sizes, limit in cases():
        windows = windows_of(sizes, limit)
        assert {word for window in windows for word in range(*window)} == set(range(len(sizes)))
        for start, end in windows:
            assert sum(sizes[start:end]) <= limit or end == start + 1
            # Nothing more fits behind it.
            assert end == len(sizes) or sum(sizes[start : end + 1]) > limit
        for (one, until), (other, beyond) in pairwise(windows):
            assert one < other <= until < beyond


def test_overlaps_are_as_long_as_they_can_be_up_to_a_quarter() -> None:
    """By trying every start of each window but the first."""
    for sizes, limit in cases():
        for (_, end), (start, _) in pairwise(windows_of(sizes, limit)):
            allowed = [
                other
                for other in range(end + 1)
                if other == end
                or (sum(sizes[other:end]) <= limit / 4 and sum(sizes[other : end + 1]) <= limit)
            ]
            assert start == min(allowed), (sizes, limit)


def test_every_word_is_taken_where_it_is_farthest_from_an_edge() -> None:
    """By looking at every window for every word, with sub-words written out one by one."""
    for sizes, limit in cases():
        windows = windows_of(sizes, limit)
        best = best_windows(sizes, windows)
        owners = [word for word, size in enumerate(sizes) for _ in range(size)]
        for word, chosen in enumerate(best):
            distances = {}
            for number, (start, end) in enumerate(windows):
                if start <= word < end:
                    before = sum(start <= owner < word for owner in owners) if start else 10**6
                    after = sum(word < owner < end for owner in owners) if end < len(sizes) else 10**6
                    distances[number] = min(before, after)
            assert chosen == min(
                number for number in distances if distances[number] == max(distances.values())
            )
        assert best == sorted(best)  # each window gives a stretch of the text


def test_a_text_that_fits_is_one_window_and_no_text_is_none() -> None:
    assert windows_of([3, 1, 4], 8) == [(0, 3)]
    assert best_windows([3, 1, 4], [(0, 3)]) == [0, 0, 0]
    assert windows_of([], 8) == []
    assert best_windows([], []) == []


def test_a_word_longer_than_the_limit_stands_alone() -> None:
    assert windows_of([1, 9, 1, 1], 8) == [(0, 1), (1, 2), (2, 4)]
    assert windows_of([9], 8) == [(0, 1)]
    assert best_windows([1, 9, 1, 1], [(0, 1), (1, 2), (2, 4)]) == [0, 1, 2, 2]


def test_windows_share_a_quarter_and_part_in_its_middle() -> None:
    windows = windows_of([1] * 20, 8)
    assert windows == [(0, 8), (6, 14), (12, 20)]
    assert best_windows([1] * 20, windows) == [0] * 7 + [1] * 6 + [2] * 7
