"""How tests read a generated corpus, and what its texts say about a mention."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hmnet_pipe.manifests.schemas import SPLITS
from hmnet_pipe.stages.demo import corpus as corpus_module
from hmnet_pipe.stages.demo.scenes import draw_scene

Corpus = dict[str, list[dict[str, Any]]]


def read(folder: Path) -> Corpus:
    return {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in sorted(folder.glob("*.jsonl"))
    }


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def gmner_of(corpus: Path, folder: Path, task: str = "ner", **drawn: Any) -> Path:
    """Write GMNER's files for a corpus of the demonstration: txt/ with its texts, and xml/ with true boxes.

    drawn: what the corpus was drawn with; it is drawn again, as its files do not say where its objects are. A
    mention that the picture decides has the box of the object that decides it, and no other has one.
    """
    scenes: list[dict[str, Any]] = []

    def draw(kinds: Any, rng: Any, size: int = 160) -> Any:
        picture, objects = draw_scene(kinds, rng, size)
        scenes.append(dict(objects))
        return picture, objects

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "draw_scene", draw)
        corpus_module.write_demo_corpus(folder / "again", task, **drawn)
    for part in ("txt", "xml"):
        (folder / part).mkdir()
    for split, rows in sorted(read(corpus).items(), key=lambda each: SPLITS.index(each[0])):
        posts = []
        for row in rows:
            words = zip(row["tokens"], row["tags"], strict=True)
            lines = [f"IMGID:{row['id']}", *map("\t".join, words)]
            posts.append("\n".join(lines) + "\n\n")
            if not (corpus / "images" / row["image"]).is_file():
                continue
            scene = scenes.pop(0)
            boxes = [
                (" ".join(names), scene[corpus_module.TYPE_SCENES[kind][0]])
                for group, kind, names in mentions_of(row)
                if group == "vision"
            ]
            if boxes:
                (folder / "xml" / f"{row['id']}.xml").write_text(_annotation(boxes))
        (folder / "txt" / f"{split}.txt").write_text("".join(posts), encoding="utf-8")
    assert not scenes
    return folder


def _annotation(boxes: list[tuple[str, Any]]) -> str:
    objects = [
        f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>"
        f"<ymax>{y1}</ymax></bndbox></object>"
        for name, (x0, y0, x1, y1) in boxes
    ]
    return "\n".join(
        ["<annotation>", "<size><width>160</width><height>160</height></size>", *objects, "</annotation>"]
    )


def mentions_of(row: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Return (group, answer, words of the names) for every mention of a row, or for its pair."""
    if "relation" in row:
        ranges = (row["head"], row["tail"])
        return [
            (
                row["groups"][0],
                row["relation"],
                [word for start, end in ranges for word in row["tokens"][start:end]],
            )
        ]
    mentions: list[tuple[str, list[str]]] = []
    for token, tag in zip(row["tokens"], row["tags"], strict=True):
        if tag.startswith("B-"):
            mentions.append((tag[2:], [token]))
        elif tag.startswith("I-"):
            assert mentions, "a name begins with B-"
            assert mentions[-1][0] == tag[2:]
            mentions[-1][1].append(token)
    return [(group, kind, words) for group, (kind, words) in zip(row["groups"], mentions, strict=True)]


def clues(tokens: list[str], names: list[str]) -> dict[str, int]:
    """Return everything that a text says about a mention, as counts."""
    start, end = tokens.index(names[0]), tokens.index(names[-1])
    found = Counter(
        [f"before {token}" for token in tokens[:start]] + [f"after {token}" for token in tokens[end + 1 :]]
    )
    found.update(f"between {token}" for token in tokens[start:end] if token not in names)
    for word in names:
        found.update(f"letters {word[index : index + 2].lower()}" for index in range(len(word)))
        found[f"length {len(word)}"] += 1
    for distance in range(1, 4):
        found.update(f"{distance} before {token}" for token in tokens[max(start - distance, 0) : start][:1])
        found.update(f"{distance} after {token}" for token in tokens[end + distance : end + distance + 1])
    found[f"words {len(names)}"] += 1
    found[f"position {start}"] += 1
    return dict(found)
