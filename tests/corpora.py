"""How tests read a generated corpus, and what its texts say about a mention."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

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
