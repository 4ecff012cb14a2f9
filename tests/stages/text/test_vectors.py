"""Files of word vectors: which rows are kept, how words are found, and what is wrong with a broken file."""

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.stages.text.vectors import read_vectors, spellings

GOOD = "the 1 2 3\nparis 0.5 -1e-3 2\nParis 4 5 6\nname at example.com 7 8 9\nno.00 1 1 1\n"
WANTED = {"the", "Paris", "paris", "name at example.com", "no.00"}


def file_of(folder: Path, content: str | bytes, name: str = "vectors.txt") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_only_the_rows_of_wanted_words_are_kept(tmp_path: Path) -> None:
    vectors = read_vectors(file_of(tmp_path, GOOD), {"paris", "absent"})
    assert vectors.dimensions == 3
    assert {word: row.tolist() for word, row in vectors.rows.items()} == {
        "paris": np.array([0.5, -1e-3, 2], np.float32).tolist()
    }
    assert vectors.rows["paris"].dtype == np.float32


def test_a_word_may_hold_spaces_and_a_file_windows_line_ends_a_header_or_compression(tmp_path: Path) -> None:
    plain = read_vectors(file_of(tmp_path, GOOD), WANTED)
    assert plain.rows["name at example.com"].tolist() == [7, 8, 9]
    others: list[str | bytes] = [
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", " \n"),
        "5 3\n" + GOOD,
        GOOD.rstrip("\n"),
        gzip.compress(GOOD.encode(), mtime=0),
    ]
    for content in others:
        read = read_vectors(file_of(tmp_path, content), WANTED)
        assert read.rows.keys() == WANTED
        assert all(np.array_equal(row, plain.rows[word]) for word, row in read.rows.items())


def test_a_word_is_found_as_it_is_then_in_lower_case_then_with_its_digits_as_0(tmp_path: Path) -> None:
    assert spellings("No.12") == ("No.12", "no.12", "no.00")
    vectors = read_vectors(file_of(tmp_path, GOOD), WANTED)
    found = {word: vectors.spelling(word) for word in ("Paris", "PARIS", "THE", "No.37", "rome")}
    assert found == {"Paris": "Paris", "PARIS": "paris", "THE": "the", "No.37": "no.00", "rome": None}
    assert vectors.of("THE").tolist() == [1, 2, 3]
    assert vectors.of("rome") is None
    assert vectors.mean(["The", "rome", "Paris"]).tolist() == [2.5, 3.5, 4.5]
    assert vectors.mean(["rome"]) is None


LINE_3 = r"vectors.txt line 3"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a 1 2\nb 3 4\nc 5\n", LINE_3 + " has 1 numbers, and the first word has 2; .* download it again"),
        ("a 1 2\nb 3 4\nc 5 6 7\n", LINE_3 + " has 3 numbers, and the first word has 2"),
        ("a 1 2\nb 3 4\n\n", LINE_3 + " has 0 numbers"),
        ("a 1 2\nb 3 4\na 5 6\n", LINE_3 + ": 'a' has a vector on an earlier line; remove one"),
        ("a 1 2\nb 3 4\nc 5 six\n", LINE_3 + ": 'six' is not a finite number"),
        ("a 1 2\nb 3 4\nc 5 nan\n", LINE_3 + ": 'nan' is not a finite number"),
        ("a 1 2\nb 3 4\nc 1e39 6\n", LINE_3 + ": '1e39' is not a finite number"),
        ("a 1 2\nb 3 4\nc  6\n", LINE_3 + ": '' is not a finite number"),
        (b"a 1 2\nb 3 4\ncaf\xe9 5 6\n", LINE_3 + ": byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ("a\t1\t2\n", "line 1 is not a word and its numbers, separated by single spaces"),
        ("alone\n", "line 1 is not a word and its numbers"),
        ("a " + "1 " * 5000, "line 1 is not a word and its numbers"),
        ("", "holds no vectors; give a file in GloVe's text format"),
        ("400000 50\n", "holds no vectors"),
        (b"\0" * 2**18, "line 1 is longer than 128 KB"),
        (b"PK\x03\x04...", "is a zip archive; unpack it and give one of its .txt files"),
        (gzip.compress(GOOD.encode(), mtime=0)[:-12], r"cannot be read \(.*\); download it again"),
        (gzip.compress(GOOD.encode(), mtime=0)[:12] + b"junk", r"cannot be read \(.*\); download it again"),
    ],
)
def test_a_broken_file_is_one_sentence_with_the_line(
    tmp_path: Path, content: str | bytes, words: str
) -> None:
    with pytest.raises(InputError, match=words) as raised:
        read_vectors(file_of(tmp_path, content), {"a", "b", "c"})
    assert "\n" not in str(raised.value)


def test_a_word_that_glove_cut_within_a_character_is_no_fault(tmp_path: Path) -> None:
    long = b"-" + "é".encode() * 499 + b"\xc3"  # 1000 bytes, the last of them half a character
    vectors = read_vectors(file_of(tmp_path, b"a 1 2\n" + long + b" 3 4\n" + long + b" 3 4\n"), {"a"})
    assert vectors.rows.keys() == {"a"}


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match=r"--vectors: .* is not a file"):
            read_vectors(path, set())


def test_reading_takes_memory_for_the_wanted_rows_alone(tmp_path: Path) -> None:
    lines = (f"word{i} {' '.join(['0.25'] * 50)}\n" for i in range(20_000))
    path = file_of(tmp_path, "".join(lines))
    tracemalloc.start()
    vectors = read_vectors(path, {"word7", "word19999"})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert vectors.rows.keys() == {"word7", "word19999"}
    assert peak < 1_000_000 < path.stat().st_size
