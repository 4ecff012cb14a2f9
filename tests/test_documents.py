"""The documents do what they say: their commands and Python snippets are run, or at least parsed.

Code stands in fenced blocks that name their language. A comment on the line before says how to run it:

    <!-- run on: runs/x -->   a copy of the finished run of the demonstration is there (several: by commas)
    <!-- not run: why -->     its commands are only parsed, its Python only compiled; the reason is a sentence
    <!-- new file: PATH -->   it is a new file of a copy of the package, with which all of its page is run
    <!-- in PATH, after: LINE -->         its lines go after the one statement that begins so, as far indented
    <!-- in PATH, instead of: LINE -->    they go in its place

Without a comment a block is run as it stands. Blocks run in a folder of their own with `mydata/` (the corpus
of that run), `data/twitter2015/` (texts as published) and `data/twitter2015_images/`.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import hmnet_pipe
import pytest
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.cli import main

from .running import Demos, bring_up_to_date, configure

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
COMMANDS = ("console", "bash", "sh")
DATA = ("json", "jsonl", "toml")
SHOWN = ("text", "bibtex", "mermaid", "yaml", "cff")
TWEET = "IMGID:{}\nAda\tB-PER\nis\tO\nin\tO\nLondon\tB-LOC\n\n"


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    place: str
    language: str
    text: str
    run_on: tuple[str, ...] = ()
    reason: str | None = None  # why it is not run
    edit: tuple[str, str, str] | None = (
        None  # of the package: the file, "new file", "after" or "instead of", the line
    )

    def __str__(self) -> str:
        return self.place


def blocks_of(path: Path) -> Iterator[Block]:
    lines = path.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        fence = re.fullmatch(r"( *)(`{3,})(\w*)", lines[number])
        number += 1
        if not fence:
            continue
        begin = number
        while lines[number].strip() != fence[2]:
            number += 1
        before = next((line for line in reversed(lines[: begin - 1]) if line.strip()), "")
        run_on = re.fullmatch(r"\s*<!-- run on: (.+) -->", before)
        not_run = re.fullmatch(r"\s*<!-- not run: (.+) -->", before)
        new_file = re.fullmatch(r"\s*<!-- new file: (\S+) -->", before)
        changed = re.fullmatch(r"\s*<!-- in (\S+), (after|instead of): (.+) -->", before)
        yield Block(
            f"{path.relative_to(ROOT)}:{begin}",
            fence[3],
            "\n".join(line.removeprefix(fence[1]) for line in lines[begin:number]),
            tuple(name.strip() for name in run_on[1].split(",")) if run_on else (),
            not_run[1] if not_run else None,
            (new_file[1], "new file", "")
            if new_file
            else (changed[1], changed[2], changed[3])
            if changed
            else None,
        )
        number += 1


BLOCKS = [block for path in DOCUMENTS for block in blocks_of(path)]


def of(*languages: str, run: bool | None = None) -> list[Block]:
    return [
        block
        for block in BLOCKS
        if block.language in languages
        and block.edit is None
        and (run is None or run == (block.reason is None))
    ]


def script_of(block: Block) -> str:
    """Return what a user would paste: the lines after `$`, or all where there is none."""
    lines = block.text.splitlines()
    typed = [line.strip().removeprefix("$ ") for line in lines if line.strip().startswith("$ ")]
    return "\n".join(typed or lines)


def check_usage(script: str) -> int:
    """Parse every `hmnet-pipe` and `make` command of a script as these do; return how many there are."""
    count = 0
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line in script.replace("\\\n", " ").splitlines():
        for words in commands_in(line):
            if "hmnet-pipe" in words:
                name, *arguments = words[words.index("hmnet-pipe") + 1 :]
                command = main if name.startswith("-") else main.commands[name]
                given = [name, *arguments] if command is main else arguments
                command.make_parser(click.Context(command)).parse_args(given)
                count += 1
            elif words[:1] == ["make"]:
                goals = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
                assert set(goals) <= targets, f"make has no {goals}"
                count += 1
    return count


def commands_in(line: str) -> Iterator[list[str]]:
    """Yield the words of each command of a line."""
    words: list[str] = []
    for word in [*shlex.shlex(line, posix=True, punctuation_chars="&|;"), ";"]:
        if set(word) <= set("&|;"):
            yield words
            words = []
        else:
            words.append(word)


@pytest.fixture(scope="module")
def finished(demos: Demos, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """Return a finished run of the demonstration, trained with and without images."""
    run = Path(
        shutil.copytree(
            demos.run(sizes={"train": 16, "valid": 4, "test": 4}), tmp_path_factory.mktemp("run") / "x"
        )
    )
    configure(run, "train", encoder=str(tiny_encoder), epochs=1, first_evaluation=1)
    for system in ("hmnet", "bert-crf"):
        bring_up_to_date(run, "train", trial=Trial(system))
    return run


@pytest.fixture
def place(block: Block, finished: Path, demos: Demos, tmp_path: Path) -> Path:
    shutil.copytree(demos.corpus(sizes={"train": 16, "valid": 4, "test": 4}), tmp_path / "mydata")
    texts = tmp_path / "data" / "twitter2015"
    texts.mkdir(parents=True)
    (tmp_path / "data" / "twitter2015_images").mkdir()
    for split in ("train", "valid", "test"):
        (texts / f"{split}.txt").write_text(TWEET.format(1) + TWEET.format(2))
    for name in block.run_on:
        shutil.copytree(finished, tmp_path / name)
    return tmp_path


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each page that changes the package, the folder of a copy with these changes."""
    folders = {}
    for page in {page_of(block) for block in BLOCKS if block.edit is not None}:
        folders[page] = tmp_path_factory.mktemp("package")
        left_out = shutil.ignore_patterns(
            ".*", "tests", "docs", "benchmarks", "build", "*.egg-info", "__pycache__"
        )
        package = shutil.copytree(ROOT, folders[page] / "hmnet_pipe", ignore=left_out)
        for block in BLOCKS:
            if page_of(block) == page and block.edit is not None:
                change(package, block.text, *block.edit)
    return folders


def page_of(block: Block) -> str:
    return block.place.partition(":")[0]


def change(package: Path, text: str, name: str, how: str, anchor: str) -> None:
    """Write a new file of the package, or put text behind or in place of the line that begins with `anchor`.

    A statement of several lines ends where it is whole.
    """
    path = package / name
    if how == "new file":
        assert not path.exists(), f"{name} is there already"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [number for number, line in enumerate(lines) if line.strip().startswith(anchor)]
    assert len(found) == 1, f"{len(found)} lines of {name} begin with {anchor}"
    begin = end = found[0]
    indent = lines[begin].removesuffix(lines[begin].lstrip())
    while sum(
        lines[i].count(o) - lines[i].count(c) for i in range(begin, end + 1) for o, c in ("()", "[]", "{}")
    ):
        end += 1
    kept = lines[begin : end + 1] if how == "after" else []
    lines[begin : end + 1] = [*kept, *(f"{indent}{line}" for line in text.splitlines())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(words: list[str], place: Path, package: Path | None = None) -> None:
    bin = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}"}
    if package is not None:
        environment["PYTHONPATH"] = str(package)
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_block_names_its_language_and_none_is_merely_indented() -> None:
    assert [
        block.place for block in BLOCKS if block.language not in (*COMMANDS, *DATA, *SHOWN, "python")
    ] == []
    for path in DOCUMENTS:
        text = re.sub(r"^( *)(`{3,})\w*\n.*?^\1\2$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        assert re.findall(r"\n\n    \S.*", text) == [], f"{path.name} has code without a fence"


def test_lines_fit_a_page() -> None:
    """A row of a table is one line by Markdown's rules, whatever it holds."""
    lines = [
        (path.name, line) for path in DOCUMENTS for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert [(name, line) for name, line in lines if len(line) > 140 and line[:1] != "|"] == []


def test_links_lead_to_files_and_headings_that_there_are() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
            name, _, heading = target.partition("#")
            page = (path.parent / name).resolve() if name else path
            assert page.is_file(), f"{path.name} links to {target}"
            if heading:
                titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
                assert heading in [
                    re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles
                ]


def test_the_functions_and_tests_that_documents_name_are_there() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = 0
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for test in re.findall(r"`(test_\w+)`", text):
            assert f"def {test}(" in tests, f"{path.name} names {test}"
            named += 1
        for module, names in re.findall(r"`([\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)", text):
            source = (ROOT / module).read_text(encoding="utf-8")
            for name in re.findall(r"`([\w.]+)`", names):
                for part in name.split("."):
                    assert re.search(rf"(?:def|class) {part}\b", source), f"{path.name}: {module}, {name}"
                named += 1
    assert named > 35


@pytest.mark.parametrize(
    ("how", "expected"),
    [("after", "x = [\n    f(\n        1,\n    ),\n    g(),\n]\n"), ("instead of", "x = [\n    g(),\n]\n")],
)
def test_a_change_concerns_a_whole_statement(how: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("x = [\n    f(\n        1,\n    ),\n]\n")
    change(tmp_path, "g(),", "x.py", how, "f(")
    assert (tmp_path / "x.py").read_text() == expected
    with pytest.raises(AssertionError, match="0 lines"):
        change(tmp_path, "g(),", "x.py", how, "no such line")


def test_every_comment_stands_before_a_block() -> None:
    comments = sum(
        len(re.findall(r"<!-- (?:(?:not )?run|new file|in)\b", path.read_text(encoding="utf-8")))
        for path in DOCUMENTS
    )
    assert comments == sum(bool(block.run_on or block.reason or block.edit) for block in BLOCKS)


@pytest.mark.parametrize("block", of(*COMMANDS), ids=str)
def test_commands_are_ones_that_there_are_with_options_that_they_have(block: Block) -> None:
    check_usage(script_of(block))


@pytest.mark.parametrize("name", sorted(main.commands))
def test_the_examples_of_help_are_commands_with_options_that_they_have(name: str) -> None:
    text = (main.commands[name].help or "").replace("\\\n", " ")
    parts = [part.split("\n\n")[0] for part in text.split("Example:")[1:]]
    examples = [line for part in parts for line in part.splitlines() if line.strip()]
    assert [check_usage(example) for example in examples] == [1] * len(examples)
    assert examples or main.commands[name].hidden


@pytest.mark.slow
@pytest.mark.parametrize("block", of(*COMMANDS, run=True), ids=str)
def test_commands_run(block: Block, place: Path, packages: dict[str, Path]) -> None:
    run(["bash", "-euo", "pipefail", "-c", script_of(block)], place, packages.get(page_of(block)))


@pytest.mark.parametrize("block", of("python", run=False), ids=str)
def test_python_that_is_not_run_is_python(block: Block) -> None:
    ast.parse(block.text)


@pytest.mark.slow
@pytest.mark.parametrize("block", of("python", run=True), ids=str)
def test_python_runs(block: Block, place: Path, packages: dict[str, Path]) -> None:
    run([sys.executable, "-c", block.text], place, packages.get(page_of(block)))


@pytest.mark.slow
@pytest.mark.parametrize("block", [Block("hmnet_pipe.__doc__", "python", "", ("runs/twitter2015",))], ids=str)
def test_the_snippet_of_the_packages_docstring_runs(block: Block, place: Path) -> None:
    snippet = re.findall(r"^    (.*)$", hmnet_pipe.__doc__ or "", re.M)
    assert snippet
    run([sys.executable, "-c", "\n".join(snippet)], place)


@pytest.mark.parametrize("block", of(*DATA, run=True), ids=str)
def test_data_are_what_they_say(block: Block) -> None:
    if block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "json":
        json.loads(block.text)
    else:
        assert [json.loads(line) for line in block.text.splitlines() if line.strip()]


@pytest.mark.parametrize(
    "script",
    [
        "hmnet-pipe detect runs/x --min-scores 0.3",
        "true && hmnet-pipe detekt runs/x",
        "make tset",
    ],
)
def test_a_command_that_there_is_not_is_found(script: str) -> None:
    with pytest.raises((click.UsageError, KeyError, AssertionError)):
        check_usage(script)
