"""What a run of a million texts costs: prepare, and reading and encoding the samples for a training.

    python benchmarks/million.py --encoder FOLDER [--texts 1000000]

Two corpora of words with tags are generated, the first of half the texts, in JSON lines of 8 to 23 words. The
words are drawn by Zipf's law from 50,000; a hundredth of the texts repeats another. `prepare` is the command,
beside the standard library's json that parses the same lines. "Reading and encoding" is what a training does
with the samples and the tokenizer in FOLDER, beside the tokenizer's own call for the same texts. Each is a
process of its own, whose memory is taken with that of its children every 50 ms. Ratios are of seconds of
processor time, which a busy machine lengthens less.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil
from hmnet_pipe.manifests.schemas import SAMPLES
from hmnet_pipe.manifests.tables import read_batches, read_table

# What each peer is, and what bounds ours beside it.
_PEERS = {
    "json": ("json.loads of each line", "checks and digests of each sample"),
    "tokenizer": ("the tokenizer's own call", "reading the words as Python's strings"),
}
_SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}


def write_corpus(folder: Path, texts: int, shares: Mapping[str, float] = _SHARES) -> None:
    """Write texts with tags, one file a split. shares: of the texts, by split."""
    folder.mkdir()
    words = np.array([f"Word{number}" if number % 3 else f"w{number}" for number in range(50_000)])
    rng = np.random.default_rng(texts)
    for split, share in shares.items():
        line = ""
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for number in range(round(texts * share)):
                if number % 100 or not line:
                    length = int(rng.integers(8, 24))
                    place = int(rng.integers(0, length - 1))
                    tags = ["O"] * length
                    tags[place : place + 2] = ["B-PER", "I-PER"]
                    tokens = words[rng.zipf(1.3, length) % len(words)].tolist()
                    line = json.dumps({"tokens": tokens, "tags": tags}) + "\n"
                file.write(line)


def measure(command: list[str]) -> dict[str, float]:
    """Return the wall seconds of a command, its seconds of processor time, and its bytes at the peak."""
    started = time.perf_counter()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    peak, seconds = 0, {process.pid: 0.0}
    while process.poll() is None:
        resident = 0
        for one in [process, *process.children(recursive=True)]:
            try:
                used = one.cpu_times()
                resident += one.memory_info().rss
            except psutil.Error:  # it has just ended
                continue
            seconds[one.pid] = used.user + used.system
        peak = max(peak, resident)
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{command} failed")
    wall = time.perf_counter() - started
    return {"seconds": wall, "processor": sum(seconds.values()), "bytes": peak}


def encode(run: Path, encoder: Path) -> None:
    """Read and encode all splits of a run as a training does."""
    from hmnet_pipe.stages.learning.columns import COLUMNS
    from hmnet_pipe.stages.learning.splits import encode_split
    from hmnet_pipe.stages.text.subwords import Subwords

    reader = Subwords.of_encoder(encoder, "ner")
    samples = read_table(run / "samples.parquet", SAMPLES, columns=COLUMNS)
    kept = [encode_split(samples, split, reader, task="ner", max_length=128) for split in _SHARES]
    print(sum(map(len, kept)))


def parse(corpus: Path) -> None:
    """Parse every line of a corpus and keep nothing: the peer of prepare."""
    for split in _SHARES:
        with (corpus / f"{split}.jsonl").open(encoding="utf-8") as file:
            for line in file:
                json.loads(line)


def tokenize(run: Path, encoder: Path) -> None:
    """Give all texts of a run to the tokenizer, in parts, and keep nothing: the peer of encoding."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder)
    for batch in read_batches(run / "samples.parquet", SAMPLES, columns=["tokens"]):
        texts = batch.column("tokens").to_pylist()
        tokenizer(texts, is_split_into_words=True, truncation=True, max_length=128)


def measured(texts: int, encoder: Path) -> dict[str, dict[str, float]]:
    """Return what each process costs, with a corpus of so many texts."""
    with tempfile.TemporaryDirectory() as temporary:
        corpus, run = Path(temporary) / "text", Path(temporary) / "run"
        write_corpus(corpus, texts)
        print(f"wrote {texts:,} texts", file=sys.stderr)
        own = [sys.executable, __file__, "--encoder", str(encoder)]
        prepare = [sys.executable, "-m", "hmnet_pipe", "prepare", str(run), "--task", "ner"]
        commands = {
            "prepare": [*prepare, "--text", str(corpus)],
            "json": [*own, "--parse", str(corpus)],
            "reading and encoding": [*own, "--encode", str(run)],
            "tokenizer": [*own, "--tokenize", str(run)],
        }
        found = {}
        for name, command in commands.items():
            found[name] = measure(command)
            print(name, found[name], file=sys.stderr)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    for name in ("--encode", "--parse", "--tokenize"):  # what a process of its own does
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.parse:
        return parse(options.parse)
    if options.encode:
        return encode(options.encode, options.encoder)
    if options.tokenize:
        return tokenize(options.tokenize, options.encoder)
    # Not in the processes that are measured, as it takes torch.
    from report import Result, Row, report

    half = measured(options.texts // 2, options.encoder)
    whole = measured(options.texts, options.encoder)
    # What is asked of a million texts on two cores that nobody else uses: 100 s and 120 s.
    asked = {"prepare": (200, 1.5, "json"), "reading and encoding": (240, 2.0, "tokenizer")}
    share = options.texts / 1e6
    results, rows = [], []
    for name, (processor, gigabytes, peer) in asked.items():
        one, factor = whole[name], whole[name]["processor"] / half[name]["processor"]
        what = f"{name}, {options.texts:,} texts"
        results += [
            Result(f"{what}: s of processor time", one["processor"], processor * share, at_most=True),
            Result(f"{name}: s", one["seconds"]),
            Result(f"{name}: GB at the peak", one["bytes"] / 1e9, gigabytes, at_most=True),
            Result(f"{name}: times as much processor time as half", factor, 2.2, at_most=True),
        ]
        ours = f"{one['processor']:.0f} s of processor time, {one['bytes'] / 1e9:.1f} GB"
        rows.append(Row(what, *_PEERS[peer], ours, whole[peer]["processor"] / one["processor"]))
    report("million", results, {"half": half, "whole": whole}, options.output, rows)


if __name__ == "__main__":
    main()
