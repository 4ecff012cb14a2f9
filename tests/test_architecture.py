"""The house, held by reading the imports: they point down the floors, and never in a circle."""

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the ground up. Rooms on one floor do not import each other; what two of them share lies on a floor
# below.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("manifests",),
    ("cache",),
    ("stages/base",),
    ("stages/vision", "stages/text"),
    ("stages/systems",),
    ("stages/learning",),
    (
        "stages/prepare",
        "stages/dependencies",
        "stages/detect",
        "stages/extract",
        "stages/scenes",
        "stages/train",
        "stages/finetune",
        "stages/evaluate",
        "stages/predict",
        "stages/demo",
    ),
    ("pipeline/cluster",),
    ("pipeline/run",),
    ("pipeline/predict", "pipeline/experiment"),
    ("pipeline/checks", "pipeline/reproduce", "pipeline/report", "pipeline/serve"),
    ("pipeline/cli",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# The one place that lists the stages and may tell them apart.
GRAPH = "pipeline/run/graph.py"


@dataclass(frozen=True)
class Import:
    """One name that a module imports from the package, wherever in the module the import stands."""

    module: str
    line: int
    target: str  # the module that is imported, or that the name comes from
    name: str | None  # what of it; None where the module itself is imported

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.name or 'all'} of {self.target}"


@cache
def modules() -> dict[str, ast.Module]:
    """Return the package's modules by their paths in the checkout."""
    paths = [
        path for top in ("manifests", "cache", "stages", "pipeline") for path in (ROOT / top).rglob("*.py")
    ]
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted([ROOT / "__init__.py", *paths])
    }


def room_of(module: str) -> str:
    """Return the room that a module stands in: the longest path of FLOORS that it lies under."""
    rooms = [room for room in FLOOR_OF if module.startswith(f"{room}/")]
    assert len(rooms) == 1, f"{module} stands in no room of the house; FLOORS lists them"
    return rooms[0]


def imports(module: str, tree: ast.Module, known: dict[str, ast.Module]) -> Iterator[Import]:
    """Yield what the module imports from the package: at its top, in functions and for type checkers."""

    def found(parts: list[str], line: int, name: str | None = None) -> Import | None:
        for path in ("/".join(parts) + ".py", "/".join([*parts, "__init__.py"])):
            if path in known:
                return Import(module, line, path, name)
        return None

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            for top, *rest in names:
                if top == "hmnet_pipe":
                    target = found(rest, node.lineno)
                    assert target, f"{module}:{node.lineno} imports what is not there"
                    yield target
        elif isinstance(node, ast.ImportFrom):
            named = node.module.split(".") if node.module else []
            if node.level:
                package = list(Path(module).parent.parts)
                base = [*package[: len(package) - node.level + 1], *named]
            elif named[:1] == ["hmnet_pipe"]:
                base = named[1:]
            else:
                continue
            for alias in node.names:
                target = found([*base, alias.name], node.lineno) or found(base, node.lineno, alias.name)
                assert target, f"{module}:{node.lineno} imports what is not there"
                yield target


def all_imports() -> list[Import]:
    return [each for module, tree in modules().items() for each in imports(module, tree, modules())]


def upward(found: list[Import]) -> list[Import]:
    """Return the imports that do not point down: to a higher floor, or to another room on the same one."""

    def points_down(one: Import) -> bool:
        if "__init__.py" in (one.module, one.target):  # the package's front door, which lends the version
            return True
        here, there = room_of(one.module), room_of(one.target)
        return here == there or FLOOR_OF[there] < FLOOR_OF[here]

    return [one for one in found if one.module not in OUTSIDE_THE_ROOMS and not points_down(one)]


def circle(found: list[Import]) -> list[str]:
    """Return the modules of one circle of imports, or nothing. The front door imports on demand alone."""
    arrows: dict[str, set[str]] = {}
    for one in found:
        if one.module != "__init__.py":
            arrows.setdefault(one.module, set()).add(one.target)
    done: set[str] = set()

    def walk(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for target in sorted(arrows.get(module, ())):
            if met := walk(target, [*way, module]):
                return met
        done.add(module)
        return []

    return next((met for module in sorted(arrows) if (met := walk(module, []))), [])


# These two hold nothing but their docstrings.
OUTSIDE_THE_ROOMS = ("stages/__init__.py", "pipeline/__init__.py")


def stage_classes(trees: dict[str, ast.Module]) -> set[str]:
    """Return the names of the classes that are stages: Stage, and whatever derives from one."""
    bases = {
        node.name: {ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases}
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    names = {"Stage"}
    while more := {name for name, above in bases.items() if above & names} - names:
        names |= more
    return names


def told_apart(tree: ast.Module, classes: set[str], names: set[str]) -> Iterator[str]:
    """Yield the expressions that ask which stage something is: by its class, its attributes or its name."""

    def text_of(node: ast.AST) -> set[str]:
        return {
            part.value
            for part in ast.walk(node)
            if isinstance(part, ast.Constant) and isinstance(part.value, str)
        }

    for node in ast.walk(tree):
        if not isinstance(node, ast.expr | ast.pattern):
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
            subject, *others = node.args
            of_class = {part.id for other in others for part in ast.walk(other) if isinstance(part, ast.Name)}
            if node.func.id in ("isinstance", "issubclass") and of_class & classes:
                yield f"line {node.lineno}: {ast.unparse(node)}"
            if node.func.id in ("hasattr", "getattr") and ast.unparse(subject) == "stage":
                yield f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.MatchClass) and ast.unparse(node.cls).split(".")[-1] in classes:
            yield f"line {node.cls.lineno}: case {ast.unparse(node.cls)}"
        if isinstance(node, ast.MatchValue) and text_of(node) & names:
            yield f"line {node.lineno}: case {ast.unparse(node)}"
        sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
        named = any(ast.unparse(side).split(".")[-1] in ("name", "stage", "kind") for side in sides)
        if named and text_of(node) & names:
            yield f"line {node.lineno}: {ast.unparse(node)}"


def test_imports_point_down() -> None:
    found = upward(all_imports())
    assert [str(one) for one in found] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert " -> ".join(circle(all_imports())) == ""


def test_no_file_lies_loose_between_the_rooms() -> None:
    loose = {
        path.relative_to(ROOT).as_posix()
        for top in ("stages", "pipeline")
        for path in (ROOT / top).glob("*.*")
    }
    assert loose == set(OUTSIDE_THE_ROOMS)
    for module in OUTSIDE_THE_ROOMS:
        assert len(modules()[module].body) == 1, f"{module} holds more than its docstring"


def test_every_room_is_on_a_floor() -> None:
    for module in modules():
        if module != "__init__.py" and module not in OUTSIDE_THE_ROOMS:
            room_of(module)


def test_stages_are_told_apart_in_the_graph_alone() -> None:
    classes = stage_classes(modules())
    assert {"Stage", "Prepare", "Detect", "Extract", "Train", "Finetune"} <= classes
    names = {path.parent.name for path in (ROOT / "stages").glob("*/stage.py")} - {"base"}
    found = [
        f"{module} {each}"
        for module, tree in modules().items()
        if module != GRAPH
        for each in told_apart(tree, classes, names)
    ]
    assert found == []


def test_no_module_imports_a_private_name_of_another() -> None:
    found = [
        str(one)
        for one in all_imports()
        for name in (one.name or Path(one.target).stem,)
        if name.startswith("_") and not name.startswith("__")
    ]
    assert found == []


def test_every_module_says_in_its_first_line_what_it_is_for() -> None:
    own = {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for folder in ("tests", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    silent = [
        module
        for module, tree in {**modules(), **own}.items()
        if not (ast.get_docstring(tree) or "").splitlines()[:1] or len(ast.get_docstring(tree).split()) < 3
    ]
    assert silent == []


def test_every_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"][
        "packages"
    ]
    there = {".".join(["hmnet_pipe", *Path(module).parent.parts]) for module in modules()}
    assert set(listed) == there
    assert listed == sorted(listed)


def test_cores_are_counted_in_one_place_where_a_job_may_have_fewer_than_its_machine() -> None:
    counting = {
        module
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("cpu_count", "sched_getaffinity")
    }
    # A stage's record says what machine it ran on.
    assert counting == {"manifests/machine.py", "pipeline/run/runner.py"}


WRONG = {
    "an upward import": ("cache/reader.py", "from ..stages.base.tools import Tools"),
    "a sideways import": ("stages/detect/work.py", "from ..extract.unit import ExtractUnit"),
    "an import in a function": (
        "stages/base/stage.py",
        "def f():\n    from ...pipeline.run.runner import Report",
    ),
    "an import for type checkers": (
        "stages/text/words.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..systems.batch import Batch",
    ),
    "an import by the package's name": ("manifests/files.py", "import hmnet_pipe.cache.spec"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_import_is_found(wrong: str) -> None:
    module, code = WRONG[wrong]
    assert [one.module for one in upward(list(imports(module, ast.parse(code), modules())))] == [module]


def test_a_circle_is_found() -> None:
    code = "def f():\n    from .tables import read_table"
    back = list(imports("manifests/errors.py", ast.parse(code), modules()))
    assert set(circle([*all_imports(), *back])) >= {"manifests/errors.py", "manifests/tables.py"}


@pytest.mark.parametrize(
    "code",
    [
        "isinstance(stage, Detect)",
        "isinstance(stage, (Prepare, Train | Finetune))",
        "hasattr(stage, 'objects')",
        "if stage.name == 'detect': pass",
        "if name in ('prepare', 'detect'): pass",
        "match stage:\n    case Extract(): pass",
        "match stage.name:\n    case 'train': pass",
    ],
)
def test_a_question_after_the_stage_is_found(code: str) -> None:
    assert (
        len(list(told_apart(ast.parse(code), stage_classes(modules()), {"prepare", "detect", "train"}))) == 1
    )
