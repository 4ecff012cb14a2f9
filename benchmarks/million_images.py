"""What prepare of many small images costs, beside bare hashing and reading of their headers.

    python benchmarks/million_images.py [--images 200000] [--folder FOLDER]

JPEGs of 48 by 48 pixels and about 1 KB are written, each of other bytes, with a text of three words each.
`prepare` is the command: it finds each image by its name, hashes it, decodes it to see that it can be used,
and writes the tables. What the same command takes without --images is taken off. The peer opens each file in
turn, hashes its bytes with sha256 and lets Pillow read the header; "decoding" does that and decodes the
pixels, which is what a check that finds damaged images takes at least. Ratios are of seconds of processor
time, which a busy machine lengthens less, and by the clock, where prepare has all cores and the peer has one.
A million files take 4 GB of disk and as many inodes.
"""

import argparse
import hashlib
import io
import json
import sys
import tempfile
from pathlib import Path

from million import measure

SIDE, PICTURES = 48, 50


def write_images(folder: Path, images: int) -> None:
    """Write small photographs, some thousands a folder, and a text for each."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(PICTURES):
        rough = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        file = io.BytesIO()
        rough.resize((SIDE, SIDE)).save(file, "JPEG", quality=80)
        pictures.append(file.getvalue())
    (folder / "text").mkdir(parents=True)
    with (folder / "text" / "train.jsonl").open("w") as texts:
        for number in range(images):
            name = f"{number // 5000}/{number}.jpg"
            path = folder / "images" / name
            if number % 5000 == 0:
                path.parent.mkdir(parents=True)
            # Whatever follows a JPEG's end of image belongs to no picture, but changes the sha256.
            path.write_bytes(pictures[number % PICTURES] + str(number).encode())
            line = {"tokens": ["Rain", "in", "Paris"], "tags": ["O", "O", "B-LOC"], "image": name}
            texts.write(json.dumps(line) + "\n")


def look(folder: Path, decode: bool = False) -> None:
    """Hash every file and read its header: the peer. decode: its pixels too."""
    from PIL import Image

    for place in sorted(folder.iterdir()):
        for path in place.iterdir():
            data = path.read_bytes()
            hashlib.sha256(data).hexdigest()
            with Image.open(io.BytesIO(data)) as image:
                if decode:
                    image.load()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument(
        "--folder", type=Path, help="where images and runs are made, in place of a temporary folder"
    )
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    for name in ("--look", "--decode"):  # what a process of its own does
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.look or options.decode:
        return look(options.look or options.decode, bool(options.decode))
    from report import Result, Row, report

    with tempfile.TemporaryDirectory() as temporary:
        place = options.folder or Path(temporary)
        facts: dict[str, dict[str, float]] = {}
        for images in (options.images // 2, options.images):
            folder = place / str(images)
            if not folder.exists():
                write_images(folder, images)
            print(f"wrote {images:,} images", file=sys.stderr)
            text = ["--task", "ner", "--text", str(folder / "text")]
            prepare = [sys.executable, "-m", "hmnet_pipe", "prepare"]
            for name, command in {
                "look": [sys.executable, __file__, "--look", str(folder / "images")],
                "decoding": [sys.executable, __file__, "--decode", str(folder / "images")],
                "texts": [*prepare, str(folder / "texts"), *text],
                "prepare": [*prepare, str(folder / "run"), *text, "--images", str(folder / "images")],
                "again": [*prepare, str(folder / "run"), *text, "--images", str(folder / "images")],
            }.items():
                facts[f"{name} {images}"] = measure(command)
                print(name, facts[f"{name} {images}"], file=sys.stderr, flush=True)

    def cost(images: int, what: str = "processor") -> float:
        return facts[f"prepare {images}"][what] - facts[f"texts {images}"][what]

    n = options.images
    one = facts[f"prepare {n}"]
    ratio, decoding = (facts[f"{peer} {n}"]["processor"] / cost(n) for peer in ("look", "decoding"))
    what = f"prepare, {n:,} small images"
    clock = facts[f"look {n}"]["seconds"] / cost(n, "seconds")
    results = [
        Result(f"{what}: rate over hashing and headers, by the clock", clock, 0.7),
        Result(f"{what}: rate over hashing and headers, processor time", ratio),
        Result(f"{what}: rate over hashing and decoding, processor time", decoding),
        Result(f"{what}: images/s of processor time", n / cost(n)),
        Result(f"{what}: GB at the peak", one["bytes"] / 1e9, 1.5, at_most=True),
        Result("times the processor time of half", cost(n) / cost(n // 2), 2.2, at_most=True),
        Result(f"{what}: again, s of processor time", facts[f"again {n}"]["processor"]),
    ]
    ours = f"{n / cost(n):.0f} images/s of processor time, {one['bytes'] / 1e9:.1f} GB"
    peer = "hashing each file and reading its header with Pillow"
    limit = "decoding each image, which finds damaged ones, and a row and a digest of each in Python"
    rate = f"{n / cost(n, 'seconds'):.0f} images/s by the clock"
    rows = [
        Row(what, f"{peer}, in one process, by the clock", limit, rate, clock),
        Row(what, peer, limit, ours, ratio),
        Row(what, "hashing each file and decoding it with Pillow", limit, ours, decoding),
    ]
    report("million_images", results, facts, options.output, rows)


if __name__ == "__main__":
    main()
