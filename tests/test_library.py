"""The package as a guest: importing it changes neither the warnings nor the logging of its process."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROGRAM = """
import importlib, logging, sys, warnings

def state():
    loggers = {name: logger for name, logger in logging.root.manager.loggerDict.items()
               if isinstance(logger, logging.Logger)}
    levels = {name: (logger.level, logger.disabled, len(logger.handlers))
              for name, logger in {**loggers, "root": logging.root}.items()}
    bars = importlib.import_module("transformers.utils.logging").is_progress_bar_enabled()
    return {"filters": list(warnings.filters), "bars": bars, "showwarning": warnings.showwarning, **{
        f"logger {name}": level for name, level in levels.items() if level != (0, False, 0)}}

modules = sys.argv[1].split()
for name in sys.argv[2].split():  # what the package's modules import from elsewhere, by themselves
    importlib.import_module(name)
before = state()
for name in modules:
    importlib.import_module(name)
after = state()
for name in sorted({*before, *after}):
    if before.get(name) != after.get(name):
        print(f"{name}: {before.get(name)} -> {after.get(name)}")
print(len(modules), "modules")
"""


def modules() -> list[str]:
    """Return the name of every module of the package but the one that starts the command."""
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = []
    for package in packages:
        folder = ROOT.joinpath(*package.split(".")[1:])
        found += [
            package if path.stem == "__init__" else f"{package}.{path.stem}" for path in folder.glob("*.py")
        ]
    return sorted(name for name in found if not name.endswith(".__main__"))


def imported_from_elsewhere(names: list[str]) -> list[str]:
    """Return the modules of other packages that are loaded once these are imported, in order of import."""
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1].split(): importlib.import_module(name)\n"
        "parts = lambda name: any(part.startswith('_') for part in name.split('.'))\n"
        "print(*(name for name, module in sys.modules.items()\n"
        "        if getattr(module, '__spec__', None) is not None and module.__spec__.name == name\n"
        "        and not parts(name) and not name.startswith('hmnet_pipe')))\n"
    )
    return python(program, " ".join(names)).split()


def python(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_importing_any_module_changes_no_warnings_filter_and_no_logging_level() -> None:
    """The effects of importing its dependencies are theirs: they are imported first, and not counted."""
    names = modules()
    elsewhere = imported_from_elsewhere(names)
    assert {"torch", "transformers", "torchvision"} <= set(elsewhere)
    changes = python(PROGRAM, " ".join(names), " ".join(elsewhere)).splitlines()
    assert changes == [f"{len(names)} modules"]
    assert len(names) > 60
