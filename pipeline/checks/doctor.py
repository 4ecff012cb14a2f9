"""`hmnet-pipe doctor`: whether this machine and a run's folder have what the pipeline needs, with remedies.

Each check looks at one thing and returns one Finding. If a check itself fails, that is its Finding, and the
others continue.
"""

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import requires
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...cache.spec import STORAGE_DTYPES
from ...manifests.errors import HmnetPipeError, StageError
from ...manifests.files import scratch_folder
from ...manifests.machine import usable_cores
from ...manifests.run import RunFolder
from ...stages.base.settings import HUB, TIMM, split_hub
from ...stages.detect.settings import DetectSettings
from ...stages.extract.settings import ExtractSettings
from ...stages.learning.recipe import TrainSettings
from ...stages.vision.backbones import backbone_info
from ...stages.vision.backbones.outside import NamedModel, outside_model
from ...stages.vision.hub import HubModel
from ...stages.vision.sets import SETS
from ...stages.vision.weights import DEFAULT, RANDOM, downloads_folder, place_of, weights_of
from ..cluster.machine import installed_version
from ..run.config import RunConfig
from ..run.locks import hold
from ..run.presets import preset

__all__ = ["Finding", "examine"]

_LITTLE_MEMORY = 4 * 2**30
_LITTLE_DISK = 5 * 2**30


@dataclass(frozen=True)
class Finding:
    """What was found out about `subject`.

    state: "ok", "warning" (it works, but more slowly, or only with internet) or "problem" (it does not work).
    text: what there is, in words.
    remedy: what to do about it; empty where all is well.
    """

    subject: str
    state: Literal["ok", "warning", "problem"]
    text: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        return f"{self.state:<7}  {self.subject:<18}  {self.text}" + (
            f"; {self.remedy}" if self.remedy else ""
        )


def examine(run: RunFolder | None) -> list[Finding]:
    """Return all findings, about `run` or the default settings. Never raises, and downloads nothing."""
    findings: list[Finding] = []
    config, place = _settings(run, findings)
    detect, extract = config.of(DetectSettings), config.of(ExtractSettings)
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", _python),
        ("torch", _torch),
        ("precision", _precision),
        ("threads", _threads),
        ("memory", _memory),
        ("packages", _packages),
        ("tested versions", _tested),
        ("detector weights", lambda: _weights("detector weights", detect.detector, detect.weights)),
        ("backbone weights", lambda: _weights("backbone weights", extract.backbone, extract.weights)),
        ("feature sets", lambda: _feature_sets(config)),
        ("text encoder", lambda: _encoder(config.of(TrainSettings).encoder)),
        ("run's folder", lambda: _writable(place)),
        ("disk of the run", lambda: _disk("disk of the run", place)),
        ("disk of weights", lambda: _disk("disk of weights", _existing(downloads_folder()))),
        ("file locks", lambda: _locks(place)),
        ("HDF5", lambda: _hdf5(place)),
    ]
    for subject, check in checks:
        try:
            findings.append(check())
        except HmnetPipeError as error:  # its message names the remedy
            findings.append(Finding(subject, "problem", _one_line(error)))
        except Exception as error:  # what is checked may be broken in any way
            findings.append(
                Finding(
                    subject, "warning", f"could not be checked ({type(error).__name__}: {_one_line(error)})"
                )
            )
    return findings


def _settings(run: RunFolder | None, findings: list[Finding]) -> tuple[RunConfig, Path]:
    """Return the settings to check, and the nearest existing folder to the run's."""
    default = preset("custom", task="ner", text=Path(), images=None, format="auto")
    if run is None:
        return default, Path.cwd()
    if os.path.lexists(run.config):
        try:
            return RunConfig.read(run.config), run.path
        except HmnetPipeError as error:
            findings.append(
                Finding(
                    "run.toml",
                    "problem",
                    _one_line(error),
                    "correct the file; the default settings are checked below",
                )
            )
    else:
        findings.append(
            Finding("run.toml", "ok", f"{run.path} is not a run yet; the default settings are checked")
        )
    return default, _existing(run.path)


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _torch() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding(
            "torch",
            "problem",
            f"cannot be imported ({_one_line(error)})",
            "run `pip install --force-reinstall torch`",
        )
    devices = (
        [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    devices += ["mps"] if torch.backends.mps.is_available() else []
    return Finding("torch", "ok", f"{torch.__version__}, devices: {', '.join([*devices, 'cpu'])}")


def _precision() -> Finding:
    from ...stages.base.arithmetic import resolve_device, resolve_precision

    device = resolve_device("auto")
    precision = resolve_precision("auto", device)
    if precision == "bf16":
        return Finding("precision", "ok", f"auto is bf16 on {device.type}, which multiplies it")
    return Finding(
        "precision", "ok", f"auto is fp32 on {device.type}, which does not multiply bf16 in hardware"
    )


def _threads() -> Finding:
    import torch

    from ..cluster.dask import default_workers

    cores = usable_cores()
    variable = os.environ.get("OMP_NUM_THREADS")
    text = f"{cores} cores, torch trains with {torch.get_num_threads()} threads, "
    text += f"OMP_NUM_THREADS is {variable or 'not set'}"
    text += f"; detect and extract start {default_workers()} workers of 1 thread"
    if torch.get_num_threads() < cores and variable:
        return Finding("threads", "warning", text, "unset OMP_NUM_THREADS to train with every core")
    return Finding("threads", "ok", text)


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    text = f"{_gigabytes(memory.available)} of {_gigabytes(memory.total)} free"
    if memory.available < _LITTLE_MEMORY:
        return Finding(
            "memory",
            "warning",
            text,
            "a Faster R-CNN takes 2 GB per worker: use --workers 1, or close other programs",
        )
    return Finding("memory", "ok", text)


def _packages() -> Finding:
    """Check the packages that hmnet-pipe cannot run without, according to its own metadata."""
    from packaging.requirements import Requirement

    wrong = []
    for text in requires("hmnet-pipe") or []:
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        found = installed_version(needed.name)
        if found is None or not needed.specifier.contains(found, prereleases=True):
            wrong.append(f"{needed.name} {found or 'is absent'} (needs {needed.specifier})")
    if wrong:
        return Finding("packages", "problem", ", ".join(wrong), "run `pip install --upgrade hmnet-pipe`")
    return Finding("packages", "ok", "everything that hmnet-pipe needs is installed")


def _tested() -> Finding:
    constraints = Path(__file__).resolve().parents[2] / "constraints.txt"
    if not constraints.is_file():
        return Finding(
            "tested versions", "ok", "the tested set, constraints.txt, is not part of this installation"
        )
    others = []
    for line in constraints.read_text(encoding="utf-8").splitlines():
        name, separator, tested = line.partition("==")
        found = installed_version(name) if separator else None
        if found is not None and found.partition("+")[0] != tested.partition("+")[0]:
            others.append(f"{name} {found} (tested with {tested})")
    if others:
        return Finding(
            "tested versions",
            "warning",
            ", ".join(others),
            "run `pip install -c constraints.txt hmnet-pipe` for the tested set",
        )
    return Finding("tested versions", "ok", "every installed package has the version that was tested")


def _weights(subject: str, architecture: str, choice: str) -> Finding:
    """Check that the file exists and is the publisher's; unlike the stages, ask nothing of the internet."""
    if architecture.startswith(TIMM) and isinstance(outside_model(architecture, choice), NamedModel):
        return _timm_weights(subject, architecture, choice)
    if architecture.startswith((HUB, TIMM)):
        return _hub_weights(subject, architecture, choice)
    source = weights_of(architecture, choice)
    if choice != DEFAULT:
        path = source.path()  # raises where this is not a file
        return Finding(subject, "ok", f"{architecture}: {path or 'random'}")
    default = source.default
    if isinstance(default, Path):
        return Finding(subject, "ok" if default.is_file() else "problem", f"{architecture}: {default}")
    path = place_of(default)
    if path.is_file():
        return Finding(subject, "ok", f"{architecture}: {source.path()}")  # raises where it is another's
    remedy = (
        f"they are downloaded on first use; without internet get {default} elsewhere and put it at {path}, "
        "or use --weights FILE"
    )
    return Finding(subject, "warning", f"{architecture}: {path.name} is not here yet", remedy)


def _timm_weights(subject: str, name: str, choice: str) -> Finding:
    """Check the weights of a network that timm has by name: a file, or in the cache of the hub."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    model = outside_model(name, choice)
    backbone_info(name, choice)  # raises where timm has no such network
    if choice == RANDOM:
        return Finding(subject, "ok", f"{name}: random")
    if choice != DEFAULT:
        return Finding(subject, "ok", f"{name}: {model.file}")
    known = timm.models.get_pretrained_cfg(split_hub(name)[1])
    place = known.hf_hub_id if known is not None else None
    if place and isinstance(try_to_load_from_cache(place, "model.safetensors"), str):
        return Finding(subject, "ok", f"{name}, from the Hugging Face cache")
    remedy = (
        f"they are downloaded on first use; without internet run `hf download {place} --local-dir FOLDER` "
        f"elsewhere, copy FOLDER here and give {TIMM}FOLDER"
    )
    return Finding(subject, "warning", f"the weights of {name} are not here yet", remedy)


def _hub_weights(subject: str, name: str, choice: str) -> Finding:
    """Check a model of transformers, a folder or in the cache of the hub."""
    from huggingface_hub import try_to_load_from_cache

    before, bare = split_hub(name)
    folder, config = Path(bare).expanduser(), "config.json"
    if (
        choice not in (DEFAULT, RANDOM)
        or folder.is_dir()
        or folder.is_absolute()
        or bare.startswith((".", "~"))
    ):
        return Finding(subject, "ok", f"{name}: {HubModel(name, choice, subject.partition(' ')[0]).folder()}")
    if isinstance(try_to_load_from_cache(bare, config), str):
        return Finding(subject, "ok", f"{name}, from the Hugging Face cache")
    remedy = (
        f"they are downloaded on first use; without internet run `hf download {bare} --local-dir FOLDER` "
        f"elsewhere, copy FOLDER here and give {before}FOLDER"
    )
    return Finding(subject, "warning", f"{name} is not here yet", remedy)


def _feature_sets(config: RunConfig) -> Finding:
    """Report the sizes of the built-in sets and the run's own. Raises InputError where one cannot be made."""
    extract, objects = config.of(ExtractSettings), config.of(DetectSettings).objects
    backbone = backbone_info(extract.backbone, extract.weights)
    sizes = []
    for name, feature_set in {**SETS, **config.sets}.items():
        spec = feature_set.spec(
            backbone, extract.size, weights="", objects=objects, dtype=extract.dtype, precision=""
        )
        size = prod(spec.row_shape) * np.dtype(STORAGE_DTYPES[spec.dtype]).itemsize
        sizes.append(f"{name} {size / 2**20:.2f}")
    return Finding("feature sets", "ok", f"MB per image with {extract.backbone}: {', '.join(sizes)}")


def _encoder(name: str) -> Finding:
    from huggingface_hub import try_to_load_from_cache

    from ...stages.text.encoders.files import DEMO_ENCODER, resolve_encoder

    folder = Path(name).expanduser()
    if name == DEMO_ENCODER or folder.is_dir() or folder.is_absolute() or name.startswith((".", "~")):
        return Finding("text encoder", "ok", f"{name}: {resolve_encoder(name)}")
    files = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")
    if any(isinstance(try_to_load_from_cache(name, file), str) for file in files):
        return Finding("text encoder", "ok", f"{name}, from the Hugging Face cache")
    remedy = (
        f"it is downloaded on first use; without internet run `hf download {name} --local-dir FOLDER` "
        "elsewhere, copy FOLDER here and give --encoder FOLDER"
    )
    return Finding("text encoder", "warning", f"{name} is not here yet", remedy)


def _writable(place: Path) -> Finding:
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".tmp-doctor-"):
            return Finding("run's folder", "ok", f"{place} can be written")
    except OSError as error:
        return Finding(
            "run's folder",
            "problem",
            f"{place} cannot be written ({error.strerror})",
            "choose another, or change its owner",
        )


def _disk(subject: str, place: Path) -> Finding:
    free = shutil.disk_usage(place).free
    text = f"{_gigabytes(free)} free at {place}"
    if free < _LITTLE_DISK:
        return Finding(
            subject, "warning", text, "make room: features take about 0.12 MB per image and a model 0.5 GB"
        )
    return Finding(subject, "ok", text)


def _locks(place: Path) -> Finding:
    """Take the lock that a stage takes where the run will be, and see that nobody else gets it."""
    said: list[str] = []
    with tempfile.TemporaryDirectory(dir=place, prefix=".tmp-doctor-") as folder:
        lock = Path(folder) / "try.lock"
        with hold(lock, "a try", say=said.append):
            try:
                with hold(lock, "a try"):
                    return Finding(
                        "file locks",
                        "problem",
                        f"two processes hold one lock at {place}",
                        "put the run on another file system, or never start two commands on it at once",
                    )
            except StageError:  # as it should be
                pass
    if said:
        return Finding(
            "file locks",
            "warning",
            f"the file system of {place} has none, and marker files take their place",
            "where a machine went down in the middle of a stage, remove the file that the next one names",
        )
    return Finding("file locks", "ok", f"a stage at {place} is locked while it runs")


def _hdf5(place: Path) -> Finding:
    """Write an HDF5 file where the run's features will be, and read it twice at once, as the stages do.

    They lend HDF5 files of Python, on which it takes no lock: some network file systems have none.
    """
    import h5py

    content = BytesIO()
    with h5py.File(content, "w") as file:
        file["numbers"] = [1, 2, 3]
    with scratch_folder(place, "doctor") as folder:
        path = folder / "try.h5"
        path.write_bytes(content.getbuffer())
        with ExitStack() as stack:
            handles = [stack.enter_context(path.open("rb")) for _ in range(2)]
            files = [stack.enter_context(h5py.File(handle, "r")) for handle in handles]
            if any(list(file["numbers"]) != [1, 2, 3] for file in files):
                return Finding(
                    "HDF5",
                    "problem",
                    f"a file at {place} does not hold what was written",
                    "put the run on another file system",
                )
    return Finding("HDF5", "ok", f"files at {place} can be written, and read while they are open")


def _existing(path: Path) -> Path:
    """Return the nearest folder at or above `path` that exists."""
    return next((folder for folder in _upwards(path.absolute()) if folder.is_dir()), Path.cwd())


def _upwards(path: Path) -> Iterator[Path]:
    yield path
    yield from path.parents


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GB"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
