"""A text that is longer than an encoder can read, as windows of whole words that overlap by about a quarter.

Each word is taken from the window in which it is farthest from an edge: there the encoder sees most of what
stands on both of its sides.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

from .limits import Span

__all__ = ["best_windows", "windows_of"]

_OVERLAP = 4  # a window shares at most this part of the limit with the one before


def windows_of(sizes: Sequence[int], limit: int) -> list[Span]:
    """Return windows that hold all words, in the order of the text, and overlap by about a quarter.

    sizes: the sub-words of each word, at least 1.
    limit: the sub-words that a window may have, at least 1, special tokens apart. A longer word is a window
    of its own, of which the encoder reads the beginning.

    Every window ends where the next word would not fit. Overlaps are as long as they can be, up to a quarter
    of the limit, with room for at least one new word.
    """
    ends = [0, *accumulate(sizes)]  # in sub-words, of the text before each word
    windows: list[Span] = []
    start, end, words = 0, 0, len(sizes)
    while end < words:
        if windows:
            quarter = bisect_left(ends, ends[end] - limit // _OVERLAP)
            with_new_word = bisect_left(ends, ends[end + 1] - limit)
            start = min(end, max(quarter, with_new_word))
        end = max(start + 1, bisect_right(ends, ends[start] + limit) - 1)
        windows.append((start, end))
    return windows


def best_windows(sizes: Sequence[int], windows: Sequence[Span]) -> list[int]:
    """Return for every word the number of the window, the first of equals, that has it farthest from an edge.

    The distance is in sub-words. The beginning and the end of the text are no edges, as nothing is cut there.
    windows: of all the words, as `windows_of` returns them.
    """
    ends = [0, *accumulate(sizes)]

    def distance(window: Span, word: int) -> float:
        start, end = window
        before = ends[word] - ends[start] if start > 0 else float("inf")
        after = ends[end] - ends[word + 1] if end < len(sizes) else float("inf")
        return min(before, after)

    best: list[int] = []
    for word in range(len(sizes)):
        first = bisect_right(windows, word, key=lambda window: window[1])
        last = bisect_right(windows, word, key=lambda window: window[0])
        best.append(max(range(first, last), key=lambda number: distance(windows[number], word)))
    return best
