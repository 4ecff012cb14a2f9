"""A wheel, built from the checkout, works outside it and holds nothing but the package."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        folder,
        ROOT,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("hmnet_pipe-*.whl"))


def test_the_wheel_installs_one_name_with_types_and_weights_and_without_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert packages == {"hmnet_pipe"}
    assert {"hmnet_pipe/py.typed", "hmnet_pipe/stages/vision/demo_fasterrcnn.safetensors"} <= set(names)
    page = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pipeline/serve/page").iterdir()}
    assert len(page) == 4
    assert {f"hmnet_pipe/{path}" for path in page} <= set(names)
    assert {name.split("/")[1] for name in names if name.count("/") > 1 and ".dist-info" not in name} == {
        "cache",
        "experiments",
        "manifests",
        "pipeline",
        "stages",
    }
    grids = {path.name for path in (ROOT / "experiments").iterdir()}
    assert {f"hmnet_pipe/experiments/{name}" for name in grids} <= set(names)
    modules = {
        str(path.relative_to(ROOT))
        for room in ("cache", "manifests", "pipeline", "stages")
        for path in (ROOT / room).rglob("*.py")
    }
    assert {name.removeprefix("hmnet_pipe/") for name in names if name.endswith(".py")} == modules | {
        "__init__.py",
        "__main__.py",
    }


def test_the_installed_wheel_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        target,
        wheel,
    ]
    subprocess.run(command, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}

    def run(*arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "hmnet_pipe", *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [sys.executable, "-c", "import hmnet_pipe; print(hmnet_pipe.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(target)
    assert "hmnet-pipe, version" in run("--version")
    assert "1350 samples done" in run("prepare", "run", "--preset", "demo", "--task", "ner")
    assert "detect" in run("status", "run")
