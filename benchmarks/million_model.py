"""What a run of a million texts costs once it is prepared: its trainings, and evaluate to verify.

    python benchmarks/million_model.py [--texts 1000000] [--shares 0.1 0.5 1]

The texts are those of benchmarks/million.py, but 4,000 are for training and validation, and all others are
the test split. Two models of bert-crf are trained, one on half of the samples, with an encoder of one layer
and 32 features, so that what is measured is not the encoder. Each command is a process of its own, whose
memory is taken with that of its children, for each share of the texts: processor time is to grow no faster
than the texts do. Each has one thread, as matrices so small gain nothing from two.

Peers, each a process of its own too: "forward" is the encoder, the classifier and the CRF over batches of
numbers that are made beforehand, of which only the arithmetic is counted; "hashing" is sha256 of the bytes of
the run's files, whose tables pyarrow reads; "pandas" reads the tables that a report is made from.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from million import measure, write_corpus

_KNOWN = 2000  # samples of train, and of valid
_PEERS = {
    "evaluate": ("forward", "the model's bare forward and decoding of the same batches"),
    "predict": ("forward", "the model's bare forward and decoding of the same texts, in batches"),
    "report": ("pandas", "pandas.read_parquet of the tables that it shows"),
    "status": ("hashing", "sha256 of the run's files, and pyarrow's reading of its tables"),
    "verify": ("hashing", "sha256 of the run's files, and pyarrow's reading of its tables"),
}
_LIMITS = {
    "evaluate": "making batches, scores and kinds of errors, sample by sample",
    "predict": "probabilities, and a JSON line a post",
    "report": "calibration, which is a second evaluation, and kinds of errors",
    "status": "digests of the samples' columns",
    "verify": "digests of the columns of all tables",
}


def forward(run: Path) -> float:
    """Return the seconds of processor time of a model's arithmetic over the test split."""
    import torch
    from hmnet_pipe.manifests.schemas import SAMPLES
    from hmnet_pipe.manifests.tables import read_table
    from hmnet_pipe.stages.base.arithmetic import autocast
    from hmnet_pipe.stages.learning.batches import batches
    from hmnet_pipe.stages.learning.columns import COLUMNS
    from hmnet_pipe.stages.learning.opened import open_model
    from hmnet_pipe.stages.learning.splits import encode_split
    from hmnet_pipe.stages.text.encoded import lengths_of

    opened = open_model(run / "models" / "bert-crf" / "seed-1", device="cpu", precision="auto")
    samples = read_table(run / "samples.parquet", SAMPLES, columns=COLUMNS)
    split = encode_split(samples, "test", opened.reader, task="ner", max_length=opened.config.max_length)
    order = sorted(range(len(split)), key=lengths_of(split.texts).__getitem__)
    members = [order[i : i + 64] for i in range(0, len(order), 64)]
    pad_id = opened.reader.pad_id
    opened.model.eval()
    seconds = 0.0
    for batch in batches(split, members, task="ner", pad_id=pad_id, label_ids=None, visuals=None):
        started = time.process_time()
        with torch.inference_mode(), autocast(torch.device("cpu"), opened.precision):
            opened.model.predict(batch)
        seconds += time.process_time() - started
    return seconds


def read_with_pandas(run: Path) -> None:
    import pyarrow.parquet as pq

    for path in [run / "samples.parquet", *run.glob("models/*/*/*.parquet")]:
        pq.read_table(path).to_pandas()


def hash_files(run: Path) -> None:
    import hashlib

    import pyarrow.parquet as pq

    for path in run.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")
        if path.suffix == ".parquet":
            pq.read_table(path)


def measured(texts: int, encoder: Path, folder: Path, parts: list[str]) -> dict[str, dict[str, float]]:
    """Return what each command costs, with so many texts. What was measured in the folder is not again."""
    notes = folder / "measured.json"
    found: dict[str, dict[str, float]] = json.loads(notes.read_text()) if notes.is_file() else {}
    corpus, run, posts = folder / "text", folder / "run", folder / "posts.txt"
    hmnet = [sys.executable, "-m", "hmnet_pipe"]
    own = [sys.executable, __file__]
    train = [*hmnet, "train", str(run), "--system", "bert-crf", "--device", "cpu"]
    options = ["--encoder", str(encoder), "--epochs", "1"]
    if not found:
        known = _KNOWN / texts
        write_corpus(corpus, texts, {"train": known, "valid": known, "test": 1 - 2 * known})
        with (corpus / "test.jsonl").open() as lines, posts.open("w") as file:
            file.writelines(" ".join(json.loads(line)["tokens"]) + "\n" for line in lines)
        print(f"wrote {texts:,} texts", file=sys.stderr)
    commands = {
        "prepare": [*hmnet, "prepare", str(run), "--task", "ner", "--text", str(corpus)],
        "train": [*train, *options],
        "train, half": [*train, "--percent", "50"],
        "evaluate": [*hmnet, "evaluate", str(run), "--system", "bert-crf"],
        "predict": [*hmnet, "predict", str(run), str(posts), "--output", str(folder / "found")],
        "report": [*hmnet, "report", str(run)],
        "status": [*hmnet, "status", str(run)],
        "verify": [*hmnet, "verify", str(run)],
        "pandas": [*own, "--read", str(run)],
        "hashing": [*own, "--hash", str(run)],
        "forward": [*own, "--forward", str(run)],
    }
    commands["predict"] += ["--system", "bert-crf", "--device", "cpu"]
    for name, command in commands.items():
        if name in found or (parts and name not in parts):
            continue
        if name == "forward":  # it says what of its time was arithmetic
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name] = {"processor": float(done.stdout)}
        else:
            found[name] = measure(command)
        print(name, found[name], file=sys.stderr, flush=True)
        notes.write_text(json.dumps(found))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.5, 1.0])
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--parts", nargs="+", default=[], help="the only commands to measure")
    parser.add_argument(
        "--keep", type=Path, help="a folder where runs and what was measured stay, to go on later"
    )
    for name in ("--forward", "--read", "--hash"):  # what a process of its own does
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.forward:
        return print(forward(options.forward))
    if options.read:
        return read_with_pandas(options.read)
    if options.hash:
        return hash_files(options.hash)
    from report import Result, Row, report

    os.environ["OMP_NUM_THREADS"] = "1"  # of the commands
    results, rows = [], []
    facts: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        place = options.keep or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "encoder").is_dir():
            from encoders import small_encoder

            small_encoder(place / "encoder")
        for share in sorted(options.shares):
            texts = round(options.texts * share)
            folder = place / str(texts)
            folder.mkdir(exist_ok=True)
            facts[str(texts)] = measured(texts, place / "encoder", folder, options.parts)
            if not options.keep:
                shutil.rmtree(folder)
    for name, (peer, words) in _PEERS.items():
        sizes = [size for size in facts if {name, peer} <= facts[size].keys()]
        if not sizes:
            continue
        one, compared = facts[sizes[-1]][name], facts[sizes[-1]][peer]
        what = f"{name}, {int(sizes[-1]):,} texts"
        results += [Result(f"{what}: s of processor time", one["processor"])]
        results += [Result(f"{what}: GB at the peak", one["bytes"] / 1e9, 2.5, at_most=True)]
        for fewer in sizes[:-1]:
            times = int(sizes[-1]) / int(fewer)
            grown = one["processor"] / facts[fewer][name]["processor"]
            more = f"{name}: times the processor time of {int(fewer):,}"
            results.append(Result(more, grown, 1.1 * times, at_most=True))
        ours = f"{one['processor']:.0f} s of processor time, {one['bytes'] / 1e9:.1f} GB"
        rows.append(Row(what, words, _LIMITS[name], ours, compared["processor"] / one["processor"]))
    report("million_model", results, facts, options.output, rows)


if __name__ == "__main__":
    main()
