"""Models on the Hugging Face hub: the folder that a name stands for, and the one that is sent there.

Nothing here asks for a login: a token is given, is in HF_TOKEN, or was left by `hf auth login`.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...manifests.errors import InputError, WeightsError, in_one_line
from ...manifests.files import disk_error, read_text, reason_of
from ..text.vocabulary import VOCABULARY_FILE
from .registry import BACKBONE_FILE, TEMPERATURE_FILE

__all__ = [
    "CARD",
    "MODEL_FILES",
    "check_hub_name",
    "files_to_push",
    "model_folder",
    "push_model",
    "write_files",
]

CARD = "README.md"
"""The model card in a model's folder."""

MODEL_FILES = (
    CARD,
    "config.json",
    "model.safetensors",
    BACKBONE_FILE,
    "tokenizer/*",
    VOCABULARY_FILE,
    TEMPERATURE_FILE,
    "metrics.json",
)
"""What is fetched from the hub and sent there. No file of these holds a text of the data."""

PREDICTIONS = "predictions.parquet"
"""The test split as the model sees it, with its texts: sent only where that is asked for."""


def model_folder(
    name: Path | str,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: Path | str | None = None,
) -> Path:
    """Return the local folder of a model: one that exists, or "user/name" on the hub, fetched if need be.

    revision, token, cache_dir: as in huggingface_hub. Raises InputError for what is neither, and WeightsError
    where the hub does not give it.
    """
    folder = Path(name).expanduser()
    try:
        is_folder = folder.is_dir()
    except OSError as error:  # a name that no file can have
        raise InputError(
            f"{name!s:.100} is no model ({error.strerror}); give the folder of a trained model, or the "
            "name of one on the Hugging Face hub (user/name)"
        ) from error
    if is_folder:
        return folder
    if folder.exists():
        raise InputError(f"{name} is a file; give the folder of a trained model")
    if runs := _runs_in(folder.parent):
        raise InputError(
            f"there is no {name}; {folder.parent} has {', '.join(runs)} (a model on the Hugging Face hub is "
            "named user/name)"
        )
    if not _is_hub_name(str(name)):
        raise InputError(
            f"{name} does not exist, and is no name on the Hugging Face hub (user/name); "
            "give the folder of a trained model"
        )
    from huggingface_hub import snapshot_download

    with _hub(str(name), f"{name} is no folder here, and "):
        fetched = Path(
            snapshot_download(
                str(name),
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                allow_patterns=list(MODEL_FILES),
            )
        )
    if not (fetched / "config.json").is_file() or not (fetched / "model.safetensors").is_file():
        raise WeightsError(
            f"{name} on the Hugging Face hub holds no model of hmnet-pipe (config.json or model.safetensors "
            "is missing); check the name and the revision"
        )
    return fetched


def _runs_in(folder: Path) -> list[str]:
    """Return the names of the runs in a folder: what is missing beside them is a run that was mistyped."""
    if not folder.name:  # a working directory, or all of the disk
        return []
    found = [place.parent for pattern in ("*/run.toml", "*/*/run.toml") for place in folder.glob(pattern)]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def files_to_push(
    folder: Path, *, predictions: bool = False, languages: Sequence[str] = (), license: str = ""
) -> dict[str, Path | bytes]:
    """Return what of the model in `folder` goes to the hub: a file or its content, by its name there.

    predictions: also the table of predictions, which holds the texts of the test split. languages, license:
    what the model card says of them; nothing where they are not given. The configuration goes without the
    places of files on this machine. Raises InputError where the folder holds no model, or no card that can
    say it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist; give the folder of a trained model")
    if (folder / "run.toml").is_file():
        raise InputError(
            f"{folder} is a run; give the folder of one of its models, {folder}/models/SYSTEM/seed-N"
        )
    for needed in ("config.json", "model.safetensors"):
        if not (folder / needed).is_file():
            raise InputError(
                f"{folder} holds no trained model ({needed} is missing); run `hmnet-pipe train` first"
            )
    patterns = (*MODEL_FILES, PREDICTIONS) if predictions else MODEL_FILES
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]
    found: dict[str, Path | bytes] = {path.relative_to(folder).as_posix(): path for path in paths}
    text = read_text(folder / "config.json")
    values = json.loads(text)
    shared = _without_places(values)
    if shared != values:
        found["config.json"] = (json.dumps(shared, indent=2, sort_keys=True) + "\n").encode()
    if languages or license:
        found[CARD] = _labelled(folder / CARD, languages, license)
    return found


def _labelled(card: Path, languages: Sequence[str], license: str) -> bytes:
    """Return a model card with these languages and this licence in its front matter, where hubs look."""
    from huggingface_hub import ModelCard

    try:
        found = ModelCard(read_text(card))
    except Exception as error:  # whoever edited it may have written anything
        raise InputError(
            f"{card} cannot say a language or a licence ({reason_of(error)}); mend it, or train the model "
            "again, which writes one where there is none"
        ) from error
    given = {"language": list(languages), "license": license}
    vars(found.data).update({name: value for name, value in given.items() if value})
    return str(found).encode()


def write_files(files: Mapping[str, Path | bytes], output: Path) -> None:
    """Write what would go to the hub into a folder. Raises InputError where there is something already."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} is no empty folder; give --output another name")
    for path, content in files.items():
        there = output / path
        there.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            there.write_bytes(content)
        else:
            shutil.copyfile(content, there)


def push_model(
    folder: Path,
    name: str,
    *,
    private: bool = False,
    message: str = "",
    revision: str | None = None,
    token: str | None = None,
    predictions: bool = False,
    languages: Sequence[str] = (),
    license: str = "",
) -> str:
    """Send the model in `folder` to "user/name" on the hub in one commit. Return the commit's address.

    The repository is made where there is none. private: whether it is then. revision: a branch, made where
    there is none. predictions, languages, license: see `files_to_push`. Raises InputError where there is no
    model or the name is none, and WeightsError where the hub refuses.
    """
    check_hub_name(name)
    files = files_to_push(folder, predictions=predictions, languages=languages, license=license)
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=token, library_name="hmnet-pipe")
    additions = [CommitOperationAdd(path, content) for path, content in files.items()]
    with _hub(name, f"nothing was sent to {name}: "):
        api.create_repo(name, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(name, branch=revision, exist_ok=True)
        commit = api.create_commit(
            name, additions, commit_message=message or "Send a model of hmnet-pipe", revision=revision
        )
    return str(commit.commit_url)


def check_hub_name(name: str) -> None:
    """Raise InputError where this is no name of a model on the hub."""
    if not _is_hub_name(name):
        raise InputError(f"{name!r} is no name on the Hugging Face hub; give it as user/name")


def _is_hub_name(name: str) -> bool:
    part = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}"
    return re.fullmatch(f"{part}/{part}", name) is not None


def _without_places(value: Any) -> Any:
    """Return values with the last name alone of every path that leads from the root or from home."""
    if isinstance(value, Mapping):
        return {name: _without_places(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_places(each) for each in value]
    is_place = isinstance(value, str) and len(value) > 1 and value.startswith(("/", "~/"))
    return Path(value).name if is_place else value


@contextmanager
def _hub(name: str, so: str) -> Iterator[None]:
    """Say in one sentence, which begins with `so`, why the hub does not do what it is asked for."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise WeightsError(
            f"{so}on the Hugging Face hub it is gated: ask for access at {constants.ENDPOINT}/{name}, and "
            "set HF_TOKEN to a token of the account that has it"
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsError(
            f"{so}on the Hugging Face hub it has no such revision; name one that it has, or none for the "
            "latest"
        ) from error
    except RepositoryNotFoundError as error:
        raise WeightsError(
            f"{so}the Hugging Face hub has no {name}, or keeps it from you; check the name, or set HF_TOKEN "
            "to a token of the account that has it"
        ) from error
    except HfHubHTTPError as error:
        raise WeightsError(
            f"{so}the Hugging Face hub refuses ({in_one_line(error)}); set HF_TOKEN to a token that may do "
            "this, or try again later"
        ) from error
    except Exception as error:  # its HTTP library is another one in each of its versions
        if disk_error(error) is not None:
            raise
        why = (
            "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the Hugging Face hub cannot be reached"
        )
        raise WeightsError(
            f"{so}{why}; try again with a network, or carry the folder: elsewhere "
            f"`hf download {name} --local-dir FOLDER` fetches it, and here `hmnet-pipe push` with --dry-run "
            "--output FOLDER writes what is to go there"
        ) from error
