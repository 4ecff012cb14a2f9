"""What benchmarks/hostile.py tries: cases, spoilt files of a run, options and settings without meaning.

{run} is the run of a trial, {data} a folder with texts and images that are sound, {encoder} a sound encoder,
and {work} a folder for whatever a trial makes first.
"""

import importlib
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["LONG", "MADE", "TRIALS", "Trial", "ways"]

# It imports nothing of the project, so that it serves any revision.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
spoilers: Any = importlib.import_module("spoilers")

RELATIONS = ("negative_None", "negative_none", "mnre1_integer_img_id")
TRAIN = "--epochs 1 --first-evaluation 1 --max-length 32 --encoder"
LONG = "train {run} --seed 2 --epochs 60 --first-evaluation 1 --max-length 32 --encoder {encoder}"
VISUAL = [
    "detect {run} --detector demo_fasterrcnn --objects 2",
    "extract {run} --backbone demo_resnet --size 64",
]
PREPARE = "prepare {run} --task ner --text {data}/text --images {data}/images"
MADE = [
    PREPARE,
    *VISUAL,
    f"train {{run}} {TRAIN} {{encoder}}",
    "lock {run} --output {run}/hmnet-pipe.lock",
    "evaluate {run}",
]
SENSELESS = ("nan", "inf", "-1", "1e30", "100000000000000000000000000", '"text"', '""', "[1]", "true")
NUMBERS = {
    "train": "learning-rate head-learning-rate fusion-learning-rate weight-decay warmup clip-norm epochs "
    "batch-size max-length seed",
    "detect": "min-score objects chunk workers",
    "extract": "size pooled shard-rows workers",
    "verify": "rerun",
}
# Words are separated by bars, since some hold blanks or nothing.
WORDS = [
    "detect|{run}|--scheduler|foo",
    "detect|{run}|--scheduler|tcp://host.invalid:1",
    "train|{run}|--system|hmnett",
    "train|{run}|--encoder|/nowhere",
    "train|{run}|--device|cuda:99",
    "prepare|{run}|--preset|no",
    "prepare|{run}|--task|pos",
    "evaluate|{run}|--split|dev",
    "status|{run}/nowhere",
    "status|{run}/run.toml",
    "prepare|{run}-new|--task|ner|--text|{run}/\udcff",
    "prepare|{run}-\udcff|--task|ner|--text|{data}/text|--images|{data}/images",
]
FOLDERS = (
    "stages features features/pyramid features/grid models models/hmnet models/hmnet/seed-1 "
    "models/hmnet/seed-1/tokenizer crops logs refreshed"
)


def ways() -> dict[str, Any]:
    """Return the ways to spoil a file, by name."""
    return {way.__name__: way for way in (spoilers.absent, *spoilers.SPOILERS)}


@dataclass(frozen=True)
class Trial:
    """One input and the commands that are given it, until one fails.

    spoil: a file of the run or the encoder, and the spoiler's name. edit: a table, a key and a value of
    run.toml. fresh: on a run of its own instead of the finished one. locks: whether there are file locks.
    """

    name: str
    commands: list[str]
    spoil: tuple[str, str] | None = None
    edit: tuple[str, str, str] | None = None
    fresh: bool = False
    locks: bool = True


def case_trials(cases: Path, run: Path) -> Iterator[Trial]:
    """Yield a trial for each folder of texts of each case."""
    for case in sorted(path for path in cases.iterdir() if path.is_dir()):
        about = f"{case.name}: {(case / 'README').read_text(errors='replace').strip().splitlines()[0]}"
        if (case / "nolock.c").is_file():
            yield Trial(about, ["doctor {run}", PREPARE, *VISUAL], fresh=True, locks=False)
        elif (maker := case / "make.py").is_file():
            made = f"{{work}}/{case.name}"
            train = f"train {{run}} --system bert-crf {TRAIN} {made}"
            yield Trial(about, [f"python {maker} {made}", PREPARE, train], fresh=True)
        else:
            for folder in sorted({path.parent for path in case.rglob("*train*.*")}):
                yield _texts(about, case, folder)


def _texts(about: str, case: Path, folder: Path) -> Trial:
    """Return the trial of a folder of texts."""
    texts, images = f"{{work}}/{case.name}-{folder.name}", case / "images"
    task, system = ("re", "mtb") if case.name in RELATIONS else ("ner", "bert-crf")
    prepare = f"prepare {{run}} --task {task} --text {texts}"
    train = f"train {{run}} --system {system} {TRAIN} {{encoder}}"
    # A case may name the absolute path of its images, which is not known to who wrote it.
    copy = f"copy {folder} {texts} IMAGES {images.resolve()}"
    if not images.is_dir():
        return Trial(f"{about} ({folder.name})", [copy, prepare, train], fresh=True)
    return Trial(
        f"{about} ({folder.name})", [copy, f"{prepare} --images {images}", *VISUAL, train], fresh=True
    )


def readers_of(path: str) -> list[str]:
    """Return the commands that read a file of a run."""
    name = Path(path).name
    if path.startswith("encoder/"):
        return [f"train {{run}} --system bert-crf --seed 3 {TRAIN} {{run}}/encoder"]
    if ".parts/" in path:
        return [LONG]
    if name == "hmnet-pipe.lock":
        return ["reproduce {run}/hmnet-pipe.lock --text {data}/text --images {data}/images --run {run}-again"]
    if name in ("metrics.json", "history.parquet", "predictions.parquet") or name.startswith("evaluation"):
        return ["table {run}", "verify {run}"]
    if path.startswith("models/"):
        return ["evaluate {run}", "finetune {run} --from train --epochs 1"]
    if path.startswith("features/"):
        return ["verify {run}", "extract {run}"]
    if path.startswith("stages/detect") or name == "detections.parquet":
        return ["status {run}", VISUAL[0]]
    if path.startswith("stages/extract"):
        return ["status {run}", VISUAL[1]]
    if path.startswith("stages/train"):
        seed = path.split("-seed-")[1][0]
        train = LONG if seed == "2" else f"train {{run}} {TRAIN} {{encoder}}"
        return ["status {run}", train]
    return ["status {run}", "prepare {run}"]


def file_trials(cases: Path, run: Path) -> Iterator[Trial]:
    """Yield a trial for each file of a finished run and each way to spoil it, and for each of its folders."""
    several: set[str] = set()
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        relative = path.relative_to(run).as_posix()
        kind = f"{Path(relative).parent}/*{path.suffix}"
        if path.suffix in (".jpg", ".lock", ".owner") and relative != "hmnet-pipe.lock":
            if kind in several:
                continue  # crops and locks are many of a kind
            several.add(kind)
        for way in ways():
            for command in readers_of(relative):
                yield Trial(f"{relative}: {way}", [command], spoil=(relative, way))
    for folder in FOLDERS.split():
        for way in ("a file", "a link to itself", "a pipe"):
            for command in (
                "status {run}",
                "extract {run} --features grid",
                f"train {{run}} {TRAIN} {{encoder}}",
            ):
                yield Trial(f"{folder} is {way}", [command], spoil=(folder, way))


def option_trials(cases: Path, run: Path) -> Iterator[Trial]:
    """Yield a trial for each option without meaning, and `status` after it."""
    given = [
        f"{command}|{{run}}|--{option}|{value}"
        for command, options in NUMBERS.items()
        for option in options.split()
        for value in (*SENSELESS[:5], "text", "")
    ]
    for words in (*given, *WORDS):
        shown = words.replace("|", " ").encode(errors="backslashreplace").decode()
        yield Trial(shown.replace(" {run}", ""), [words, "status {run}"])


def setting_trials(cases: Path, run: Path) -> Iterator[Trial]:
    """Yield a trial for each key of run.toml and each value without meaning."""
    for table, values in tomllib.loads((run / "run.toml").read_text()).items():
        for key in values if isinstance(values, dict) else [""]:
            for value in SENSELESS:
                named = f"[{table}] {key}" if key else table
                yield Trial(f"run.toml: {named} = {value}", ["status {run}"], edit=(table, key, value))


TRIALS = {"cases": case_trials, "options": option_trials, "settings": setting_trials, "files": file_trials}
