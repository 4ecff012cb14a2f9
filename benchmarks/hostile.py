"""What hostile inputs do to the command line, before and after: one table of two revisions.

    python benchmarks/hostile.py CASES [--before REVISION] [--after REVISION] [--only KIND ...]
        [--keep FOLDER] > table.md

CASES: a folder of folders, each with texts (`text/`, or others with a train.* file), perhaps `images/`, and a
README whose first line says what is wrong. Besides these, every file of a finished run is spoilt in every way
of tests/spoilers.py and read by commands that read it, and options and keys of run.toml get values without
meaning (hostile_trials.py). A revision is checked out into a temporary worktree; without --after it is the
working tree.

Each command runs in a process of its own, forked from one that has imported everything, with its own terminal
files, exit code and time limit. Only Dask's cluster is replaced, by a loop in this process.

The table is printed. With --keep, outcomes are kept in FOLDER/before.jsonl and after.jsonl, and what stands
there is not tried again: the whole may be made in parts, stopped at any moment and taken up with the same
command.
"""

import argparse
import contextlib
import errno
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from hostile_trials import LONG, MADE, TRIALS, ways

ROOT = Path(__file__).resolve().parents[1]
# Seconds of the processor, and seconds without any work, after which a command counts as one without end.
MOST_WORK, MOST_WAIT = 8.0, 5.0
MEMORY = 12 * 2**30


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code, a signal or the time limit, and the line that says most."""

    code: str
    line: str
    traceback: bool


# In the process of one revision.


class Here:
    """A cluster that is this process."""

    def __init__(self, *arguments: Any) -> None: ...
    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *exception: object) -> None: ...
    def map(self, function: Callable[[Any], Any], units: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        return ((unit, function(unit)) for unit in units)


def replace_cluster() -> None:
    """Put `Here` in the place of Dask's cluster; a wrong address is still found as it is."""
    for name in ("hmnet_pipe.pipeline.cluster.dask", "hmnet_pipe.pipeline.cluster"):
        with contextlib.suppress(ImportError):
            module: Any = importlib.import_module(name)
            if own := getattr(module, "Cluster", None):
                module.Cluster = lambda scheduler, *more: (
                    Here() if scheduler is None else own(scheduler, *more)
                )
                return


def execute(words: list[str], place: Path, locks: bool) -> Outcome:
    """Run `hmnet-pipe` with these words in a child of this process."""
    said = place / "said"
    child = os.fork()
    if child == 0:
        code = 70
        try:
            out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for number in (1, 2):
                os.dup2(out, number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            if not locks:
                _without_locks()
            from hmnet_pipe.pipeline.cli import main

            sys.argv = ["hmnet-pipe", *words]
            main()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    status = _waited(child)
    if status is None:
        return Outcome("no end", "", traceback=False)
    code = os.waitstatus_to_exitcode(status)
    lines = said.read_text(errors="backslashreplace").splitlines()
    errors = [line for line in lines if line.startswith("Error")]
    broken = any(line.startswith("Traceback") for line in lines)
    filled = [line for line in lines if line.strip()]
    line = errors[-1] if errors else filled[-1 if broken else 0] if filled else ""
    return Outcome(str(code) if code >= 0 else signal.Signals(-code).name, line, broken)


def _waited(child: int) -> int | None:
    """Return how a process ended, or None where it had to be killed, since it works or waits without end.

    Its work is measured in seconds of the processor, so that other processes of this machine change nothing.
    """
    process = psutil.Process(child)
    worked, moved = 0.0, time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        used = process.cpu_times()
        if used.user + used.system > worked:
            worked, moved = used.user + used.system, time.monotonic()
        if worked > MOST_WORK or time.monotonic() - moved > MOST_WAIT:
            process.kill()
            os.waitpid(child, 0)
            return None
        time.sleep(0.005)


def _without_locks() -> None:
    import fcntl

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    module: Any = fcntl
    module.flock = refuse


def spoil(path: Path, how: str) -> None:
    """Spoil a file of a copy, which shares its content with the original until then."""
    if how.startswith("a "):
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if how != "a file":
            ways()["link_loop" if how == "a link to itself" else "pipe"](path)
        return
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    ways()[how](path)


def edited(text: str, table: str, key: str, value: str) -> str:
    """Return run.toml with another value at a key, or at the head."""
    lines, inside = [], ""
    for line in text.splitlines():
        inside = line.strip("[] ") if line.startswith("[") else inside
        name = line.split("=")[0].strip()
        hit = inside == table and name == key if key else inside == "" and name == table
        lines.append(f"{name} = {value}" if hit and "=" in line else line)
    return "\n".join(lines) + "\n"


def work(folder: Path, encoder: Path, data: Path, cases: Path, only: list[str], kept: Path) -> None:
    """Run all trials of the revision that is imported here; add each outcome to `kept` as a line of JSON."""
    tried = outcomes(kept)
    for name in ("h5py", "hmnet_pipe.pipeline.cli", "pandas", "torch", "torchvision", "transformers"):
        importlib.import_module(name)  # once, for all that are forked from this process
    replace_cluster()
    places = {"encoder": encoder, "data": data, "work": folder}
    sound = folder / "sound"
    for command in MADE:
        outcome = execute(filled(command, {**places, "run": sound}), folder, locks=True)
        if outcome.code != "0":
            sys.exit(f"{command}: {outcome}")
    interrupt([*filled(LONG, {**places, "run": sound}), "--checkpoint-seconds", "0"], sound, folder)
    shutil.copytree(encoder, sound / "encoder")
    for kind in only or TRIALS:
        for number, trial in enumerate(TRIALS[kind](cases, sound)):
            if any((trial.name, shown(command)) in tried for command in trial.commands):
                continue
            run = folder / f"{kind}-{number}"
            if trial.fresh:
                run.mkdir()
            else:
                shutil.copytree(sound, run, copy_function=os.link, symlinks=True)
            if trial.spoil:
                spoil(run / trial.spoil[0], trial.spoil[1])
            if trial.edit:
                text = edited((run / "run.toml").read_text(), *trial.edit)
                (run / "run.toml").unlink()
                (run / "run.toml").write_text(text)
            rows: list[Any] = []
            for command in trial.commands:
                words = filled(command, {**places, "run": run})
                if words[0] == "copy":
                    copy_texts(*words[1:])
                    continue
                if words[0] == "python":
                    subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True)
                    continue
                outcome = execute(words, folder, trial.locks)
                line = outcome.line.replace(str(run), "RUN").replace(str(folder), "WORK")
                rows.append([trial.name, shown(command), asdict(outcome) | {"line": line}])
                if outcome.code != "0" and trial.fresh:
                    break
            with kept.open("a") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows))
            shutil.rmtree(run, ignore_errors=True)


def filled(command: str, places: dict[str, Any]) -> list[str]:
    words = command.split("|") if "|" in command else command.split()
    return [word.format(**places) for word in words]


def shown(command: str) -> str:
    return " ".join(filled(command, {"run": "RUN", "data": "DATA", "encoder": "ENCODER", "work": "WORK"}))


def copy_texts(source: str, target: str, name: str, place: str) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)
    for path in Path(target).glob("*.*"):
        path.write_bytes(path.read_bytes().replace(name.encode(), place.encode()))


def interrupt(words: list[str], run: Path, folder: Path) -> None:
    """Kill a training once it has a checkpoint, which then lies there."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(folder / "said", os.O_WRONLY | os.O_CREAT), 2)
        os.dup2(2, 1)
        from hmnet_pipe.pipeline.cli import main

        sys.argv = ["hmnet-pipe", *words]
        main()
    while not list(run.glob("stages/*.parts/*/progress.json")) and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# The process that compares.


def make_data(folder: Path) -> None:
    """Write 12 texts with an image each, and a small encoder."""
    import numpy as np
    import torch
    from PIL import Image
    from transformers import BertConfig, BertModel, BertTokenizerFast

    (folder / "data/images").mkdir(parents=True)
    (folder / "data/text").mkdir()
    random = np.random.default_rng(0)  # the same images, and so the same files of a run, in every part
    for split in ("train", "valid", "test"):
        rows = []
        for number in range(4):
            name = f"{split}-{number}.png"
            noise = random.integers(0, 256, (60, 80, 3), np.uint8)
            Image.fromarray(noise).save(folder / "data/images" / name)
            rows.append({"tokens": ["ada", "is", "here"], "tags": ["B-PER", "O", "O"], "image": name})
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"data/text/{split}.jsonl").write_text(text)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ada", "is", "here"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder / "encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder / "encoder")


@contextlib.contextmanager
def checked_out(revision: str | None, place: Path) -> Iterator[None]:
    """Make a revision, the working tree if None, importable as hmnet_pipe from place/package."""
    (place / "package").mkdir(parents=True)
    tree = ROOT if revision is None else place / "tree"
    (place / "package/hmnet_pipe").symlink_to(tree)
    worktree = ["git", "-C", str(ROOT), "worktree"]
    if revision is not None:
        subprocess.run([*worktree, "add", "-q", "--detach", str(tree), revision], check=True)
    try:
        yield
    finally:
        if revision is not None:
            subprocess.run([*worktree, "remove", "--force", str(tree)], check=True)


def started(place: Path, kept: Path, arguments: argparse.Namespace) -> "subprocess.Popen[bytes]":
    """Start `work` on the revision in `place`."""
    words = [
        sys.executable,
        __file__,
        str(arguments.cases),
        "--work",
        str(place),
        "--data",
        str(place.parent),
        "--kept",
        str(kept),
    ]
    only = ["--only", *arguments.only] if arguments.only else []
    environment = {
        **os.environ,
        "PYTHONPATH": str(place / "package"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TORCH_HOME": str(place / "torch"),
    }
    return subprocess.Popen([*words, *only], env=environment)


def outcomes(kept: Path) -> dict[tuple[str, str], Any]:
    """Return the outcome of each command of each trial."""
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    return {(name, command): outcome for name, command, outcome in rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", type=Path)
    parser.add_argument("--before", default="880116e")
    parser.add_argument("--after")
    parser.add_argument("--only", nargs="*", choices=[*TRIALS], default=[])
    parser.add_argument("--keep", type=Path)
    for name in ("--work", "--data", "--kept"):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        data = given.data
        work(given.work, data / "encoder", data / "data", given.cases.resolve(), given.only, given.kept)
        return
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        make_data(folder)
        places = [folder / "before", folder / "after"]
        for revision, place in zip((given.before, given.after), places, strict=True):
            stack.enter_context(checked_out(revision, place))
        files = [(given.keep or folder) / name for name in ("before.jsonl", "after.jsonl")]
        files[0].parent.mkdir(parents=True, exist_ok=True)
        pairs = zip(places, files, strict=True)
        processes = [started(place, kept.absolute(), given) for place, kept in pairs]
        codes = [process.wait() for process in processes]
        if any(codes):
            sys.exit("a revision could not be tried to its end; see above")
        before, after = map(outcomes, files)
    names = list(dict.fromkeys([*before, *after]))
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a path may not be UTF-8
    for title, found in ((given.before, before), (given.after or "the working tree", after)):
        broken = sum(outcome["traceback"] for outcome in found.values())
        endless = sum(outcome["code"] == "no end" for outcome in found.values())
        print(f"- {title}: {len(found)} commands, {broken} tracebacks, {endless} without an end")
    print("\n| input | command | before | after |\n| --- | --- | --- | --- |")
    for key in names:
        cells = [*key, *(_shown(found.get(key)) for found in (before, after))]
        print("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")


def _shown(outcome: dict[str, Any] | None) -> str:
    if outcome is None:
        return "not reached"
    trace = "; **traceback**" if outcome["traceback"] else ""
    return f"{outcome['code']}: {outcome['line'][:300]}{trace}"


if __name__ == "__main__":
    main()
