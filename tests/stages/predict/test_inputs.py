"""Posts as files give them: each format, and what a bad line of it costs."""

import gc
import io
import json
import os
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.stages.predict.inputs import posts_of
from hmnet_pipe.stages.predict.posts import NoPost, Post, rest_of
from hmnet_pipe.stages.prepare.formats.rows import Reading, TextFile
from hmnet_pipe.stages.prepare.formats.twitter import read_twitter

MESSI = "Messi in Paris \N{PARTY POPPER}"

Read = Callable[..., list[tuple[int, Any]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Return the posts of a file of this name and content, with errors as their text."""

    def read(name: str, content: bytes | str, **options: Any) -> list[tuple[int, Any]]:
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(data)
        return worded(posts_of(tmp_path / name, **options))

    return read


def worded(posts: Any) -> list[tuple[int, Any]]:
    return [(number, str(one) if isinstance(one, InputError) else one) for number, one in posts]


def test_a_line_of_json_gives_its_own_keys_and_all_others_pass_through(read: Read) -> None:
    lines = [
        {"text": MESSI, "image": "a.jpg", "id": 7, "url": [1, None], "spans": [], "relation": None},
        {"tokens": ["a", "b"], "text": "a b", "head": [0, 1], "tail": [1, 2], "image": ""},
    ]
    content = "\ufeff" + "\r\n\n".join(json.dumps(line) for line in lines)
    assert read("posts.jsonl", content) == [
        (1, Post(MESSI, image="a.jpg", id="7", more={"url": [1, None], "spans": [], "relation": None})),
        (3, Post(tokens=["a", "b"], head=(0, 1), tail=(1, 2))),
    ]


BAD_LINES = [
    (b"no json", "expected one JSON object, found 'no json'"),
    (b'{"text": "a"', "expected one JSON object"),
    (b'"text"', "expected one JSON object, found 'text'"),
    (b"[" * 100_000, "expected one JSON object"),
    (b'{"text": "a", "text": "b"}', "the same key twice"),
    (b'{"text": "a", "x": NaN}', "NaN is no number of JSON"),
    (b'{"text": "a", "x": 1e999}', "1e999 is no number of JSON"),
    (b'{"text": "a", "x": ' + b"9" * 5000 + b"}", "expected one JSON object"),
    (b'{"text": "\xff"}', "byte 0xff is not UTF-8"),
    (b'{"text": "\xed\xa0\x80"}', "byte 0xed is not UTF-8"),
    (b'{"text": "a\0"}', "NUL character"),
    (b'{"text": 3}', '"text" must be a string, found 3'),
    (b'{"text": null, "image": "a"}', 'neither "text" nor "tokens"'),
    (b'{"tokens": "a b"}', '"tokens" must be a list of strings'),
    (b'{"tokens": ["a", 1]}', '"tokens" must be a list of strings'),
    (b'{"tokens": ["a"], "text": "b"}', 'both "text" and "tokens"'),
    (b'{"text": "a", "id": true}', '"id" must be a string'),
    (b'{"text": "a", "id": "\\ud83d"}', '"id" must be a string of valid Unicode'),
    (b'{"text": "a", "image": ["a.jpg"]}', '"image" must be a string'),
    (b'{"text": "a", "head": [0, true], "tail": [0, 1]}', '"head" must be [start, end), two numbers'),
    (b'{"text": "a", "head": 0, "tail": [0, 1]}', '"head" must be [start, end), two numbers'),
    (b'{"text": "a", "head": [0, 1]}', 'one of "head" and "tail" alone'),
    (b'{"text": "' + b"a" * 10_000_000 + b'"}', "longer than 10,000,000 bytes"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES, ids=[reason for _, reason in BAD_LINES])
def test_a_bad_line_costs_itself_and_is_named(read: Read, line: bytes, reason: str) -> None:
    before, bad, after = read("posts.jsonl", b'{"text": "a"}\n' + line + b'\n{"text": "z"}')
    assert (before, after) == ((1, Post("a")), (3, Post("z")))
    assert bad[0] == 2
    assert bad[1].startswith("posts.jsonl line 2: ")
    assert reason in bad[1]


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_gives_what_the_lines_give(
    read: Read, indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmnet_pipe.stages.predict.streams._CHUNK", 7)  # objects and characters are parted
    records = [{"text": f"{MESSI} ]}}{number}", "x": {"y": [1.5]}} for number in range(20)]
    lines = read("posts.jsonl", "\n".join(json.dumps(record, ensure_ascii=False) for record in records))
    found = read("posts.json", "\n\n " + json.dumps(records, indent=indent, ensure_ascii=False))
    assert [post for _, post in found] == [post for _, post in lines]
    assert [number for number, _ in found] == list(range(1, 21))
    assert read("posts.json", " [ ]\n") == []


def test_a_bad_object_of_an_array_costs_itself(read: Read) -> None:
    content = b'[{"text": "a"},\n{"text": 3},\n{"text":\n"\xff"}, 7, {"text": "a", "x": NaN},\n{"text": "z"}]'
    found = read("posts.json", content)
    assert [number for number, _ in found] == [1, 2, 3, 4, 5, 6]
    assert (found[0][1], found[5][1]) == (Post("a"), Post("z"))
    assert [text for _, text in found[1:5]] == [
        'posts.json line 2: "text" must be a string, found 3',
        "posts.json line 4: byte 0xff is not UTF-8; save the file as UTF-8",
        "posts.json line 4: expected one JSON object, found 7",
        "posts.json line 4: expected one JSON object, "
        """found '{"text": "a", "x": NaN}' (NaN is no number of JSON)""",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('[{"text": "a"},\n{"text": }]', "line 2: expected one JSON object"),
        ('[{"text": "a"}\n{"text": "b"}]', 'line 2: expected "," or "]"'),
        ('[{"text": "a"}\n,', "line 2: expected one JSON object, found ''"),
        ('[{"text": "a"}', "line 1: expected"),
        ('[{"text": "a"}]\n[]', "line 2: expected nothing after the array"),
    ],
)
def test_a_broken_array_is_refused_behind_its_sound_posts(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "posts.json").write_text(content)
    posts = posts_of(tmp_path / "posts.json")
    assert next(posts) == (1, Post("a"))
    with pytest.raises(InputError, match=reason.replace("[", r"\[")):
        list(posts)


def test_each_line_of_a_text_is_a_post(read: Read) -> None:
    assert read("posts.txt", f"{MESSI}\r\n\nb\u2028c\n") == [
        (1, Post(MESSI)),
        (2, Post("")),
        (3, Post("b\u2028c")),
    ]
    assert read("posts.txt", b"a\n\xc3\nc")[1:] == [
        (2, "posts.txt line 2: byte 0xc3 is not UTF-8; save the file as UTF-8"),
        (3, Post("c")),
    ]


@pytest.mark.parametrize(("suffix", "comma"), [("csv", ","), ("tsv", "\t")])
def test_a_table_gives_named_columns_and_the_others_pass_through(read: Read, suffix: str, comma: str) -> None:
    rows = [
        ("id", "tweet", "photo", "lang"),
        ("1", f'"a{comma}\nb ""c"""', "a.jpg", ""),
        (),
        ("", MESSI, "", "es"),
    ]
    content = "\r\n".join(comma.join(row) for row in rows)
    found = read(f"posts.{suffix}", content, text_column="tweet", image_column="photo")
    assert found == [
        (2, Post(f'a{comma}\nb "c"', image="a.jpg", id="1", more={"lang": ""})),
        (5, Post(MESSI, more={"lang": "es"})),
    ]


def test_a_bad_row_of_a_table_costs_itself(read: Read) -> None:
    long = b"a" * 10_000_000
    content = b'text,x\na,1\nb\n"c" d,1\n"e\n\xff",1\nf\0,1\n' + long + b',1\ng,1\nh,1,1\n"z,1\n\n'
    found = read("posts.csv", content)
    assert [number for number, one in found if isinstance(one, Post)] == [2, 9]
    assert [one.split(": ", 1) for _, one in found if not isinstance(one, Post)] == [
        ["posts.csv line 3", "it has 1 cells, and 2 columns"],
        ["posts.csv line 4", "it is no row of csv (',' expected after '\"')"],
        ["posts.csv line 6", "byte 0xff is not UTF-8; save the file as UTF-8"],
        ["posts.csv line 7", "it holds a NUL character; remove it"],
        ["posts.csv line 8", "it is longer than 10,000,000 bytes; a post is one line, or a few"],
        ["posts.csv line 10", "it has 3 cells, and 2 columns"],
        ["posts.csv line 11", "it is no row of csv (unexpected end of data)"],
    ]


def test_a_table_of_parquet_gives_the_keys_of_json(tmp_path: Path) -> None:
    rows = [
        {"text": MESSI, "image": "a.jpg", "id": 7, "head": [0, 5], "tail": [9, 14], "n": float("nan")},
        {"text": None, "image": None, "id": None, "head": None, "tail": None, "n": 1.0},
        {"text": "b", "image": None, "id": None, "head": None, "tail": None, "n": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "posts.parquet")
    (first, bad, last) = worded(posts_of(tmp_path / "posts.parquet"))
    assert first[0] == 1
    assert vars(first[1]) | {"more": None} == vars(
        Post(MESSI, image="a.jpg", id="7", head=(0, 5), tail=(9, 14), more=None)
    )
    assert bad[1].startswith('posts.parquet row 2: it has neither "text" nor "tokens"')
    assert last == (3, Post("b", more={"n": None}))


@pytest.mark.parametrize("name", ["posts.jsonl", "posts.parquet"])
@pytest.mark.parametrize(("id", "kept"), [("d", "d"), (7, "7"), ("", None), (1.5, None)])
def test_what_is_no_post_keeps_its_id(tmp_path: Path, name: str, id: Any, kept: str | None) -> None:
    row, path = {"id": id, "text": None}, tmp_path / name
    path.write_text(json.dumps(row))
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    ((_, found),) = posts_of(path)
    assert isinstance(found, NoPost)
    assert rest_of(found) == Post(id=kept)


def test_parquet_gives_the_bytes_of_images_and_other_values_as_json_has_them(tmp_path: Path) -> None:
    day = pa.array([86_400_000_000], pa.timestamp("us"))
    images = pa.array([{"bytes": b"jpeg", "path": "a.jpg"}])
    broken = pa.StringArray.from_buffers(1, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff"))
    table = pa.table({"tokens": [["a"]], "image": images, "at": day, "raw": [b"x"]})
    pq.write_table(table, tmp_path / "posts.parquet")
    assert worded(posts_of(tmp_path / "posts.parquet")) == [
        (1, Post(tokens=["a"], image=b"jpeg", more={"at": "1970-01-02 00:00:00"}))
    ]
    pq.write_table(pa.table({"text": broken}), tmp_path / "posts.parquet")
    ((_, error),) = worded(posts_of(tmp_path / "posts.parquet"))
    assert error.startswith("posts.parquet row 1: 'utf-8' codec can't decode byte 0xff")


CONLL = "IMGID:7\nMessi\tB-PER\nin\tO\n\n-DOCSTART- -X- O\n\nIMGID:8\nhi\tO\n"


def test_words_a_line_are_read_as_prepare_reads_them(read: Read, tmp_path: Path) -> None:
    found = read("posts.conll", CONLL)
    assert found == [
        (1, Post(tokens=["Messi", "in"], image="7.jpg", id="7", more={"tags": ["B-PER", "O"]})),
        (7, Post(tokens=["hi"], image="8.jpg", id="8", more={"tags": ["O"]})),
    ]
    drafts = read_twitter(TextFile.read(tmp_path / "posts.conll"), Reading(labels="written"))
    assert [(one.tokens, one.image, one.alone) for one in drafts] == [
        (post.tokens, post.image, post.id) for _, post in found
    ]


def test_words_without_labels_or_with_many_columns_or_a_bad_line(read: Read) -> None:
    content = b"a\nb O\n\n\xff\nc\n\nd NN B-NP O\n\n\tO\n\n\nIMGID:9\n\ne"
    assert read("posts.conll", content) == [
        (1, Post(tokens=["a", "b"])),
        (4, "posts.conll line 4: byte 0xff is not UTF-8; save the file as UTF-8"),
        (7, Post(tokens=["d"], more={"tags": ["O"]})),
        (9, "posts.conll line 9: expected a word, found '\\tO'"),
        (12, 'posts.conll line 12: no word follows "IMGID:9"'),
        (14, Post(tokens=["e"])),
    ]


def test_standard_input_is_json_unless_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def given(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    given(b'{"text": "a"}\nb')
    (post, bad) = worded(posts_of(None))
    assert post == (1, Post("a"))
    assert bad[1].startswith("standard input line 2: ")
    given(b"a\n")
    assert list(posts_of(None, "txt")) == [(1, Post("a"))]
    with pytest.raises(InputError, match="parquet cannot be read from standard input"):
        posts_of(None, "parquet")


def test_what_cannot_be_read_is_refused_at_once(tmp_path: Path) -> None:
    def refused(name: str, reason: str, content: bytes | None = None, **options: Any) -> None:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=reason):
            posts_of(tmp_path / name, **options)

    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.csv").mkdir()
    refused("away.jsonl", "away.jsonl cannot be read .No such file")
    refused("away.parquet", "away.parquet cannot be read .No such file")
    refused("pipe.jsonl", "pipe into standard input, and give - for the file")
    refused("folder.csv", "give one of its files")
    refused("nul\0.txt", "cannot be read")
    refused("posts.docx", "none of the suffixes", b"a")
    refused("posts.jsonl", "input format 'xml' is not one of auto, jsonl", b"a", format="xml")
    refused("a.csv", r"no column 'text'; its columns are 'tweet', 'photo'", b"tweet,photo\na,b\n")
    refused("b.csv", r"no column 'img'; its columns are 'text'", b"text\na\n", image_column="img")
    refused("c.csv", "its columns are none", b"")
    refused("d.csv", "two columns have one name", b"text,a,a\n")
    refused("e.csv", "line 1: byte 0xff is not UTF-8", b"text,\xff\n")
    refused("f.txt", "f.txt is UTF-16", "a".encode("utf-16"))
    refused("g.jsonl", "g.jsonl is compressed", b"\x1f\x8b\x08")
    refused("h.parquet", "no readable parquet file", b"PAR1")
    pq.write_table(pa.table({"tweet": ["a"]}), tmp_path / "i.parquet")
    refused("i.parquet", "no column 'text' or 'tokens'; its columns are 'tweet'")
    refused("i.parquet", "no column 'words'; its columns are 'tweet'", text_column="words")


@pytest.mark.parametrize("suffix", ["jsonl", "json", "txt", "csv", "conll", "parquet"])
def test_a_file_is_never_held_whole(tmp_path: Path, suffix: str) -> None:
    lines = [f"{MESSI * 4} number {number}" for number in range(30_000)]
    records = [json.dumps({"text": line}) for line in lines]
    path = tmp_path / f"posts.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"text": lines}), path, row_group_size=1000)
    else:
        path.write_text(
            {
                "jsonl": "\n".join(records),
                "json": f"[{','.join(records)}]",
                "txt": "\n".join(lines),
                "csv": "text\n" + "\n".join(lines),
                "conll": "\n\n".join(line.replace(" ", "\tO\n") for line in lines),
            }[suffix]
        )
    size = sum(map(len, lines))
    del lines, records
    gc.collect()
    held = pa.total_allocated_bytes()
    tracemalloc.start()
    for number, _ in enumerate(posts_of(path)):
        if number == 500:
            held = pa.total_allocated_bytes() - held
            break
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most + held < size


def test_a_closed_standard_input_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        posts_of(None)
