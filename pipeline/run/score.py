"""`hmnet-pipe score`: predictions of others on a run's split, as a row in its tables."""

import json
import re
from pathlib import Path
from typing import Any

from ...manifests.errors import InputError, unknown_name
from ...manifests.files import make_folder, write_text
from ...manifests.fingerprint import digest_file
from ...manifests.run import RunFolder
from ...manifests.schemas import SPLITS
from ...manifests.tables import write_table
from ...stages.learning.metrics import read_metrics
from ...stages.prepare.settings import PrepareSettings
from .config import RunConfig

__all__ = ["GIVEN", "score_predictions"]

GIVEN = "given"
"""What tables say in brackets behind the name of a system whose predictions were given."""

_NAME = re.compile(r"\w[\w.+-]{0,99}")


def score_predictions(
    predictions: Path, run: RunFolder, *, split: str = "test", name: str = "", seed: int = 1
) -> tuple[dict[str, Any], Path]:
    """Score predictions of another system on a split; return the scores and the folder that holds them.

    name: what tables call the system; "": the file's name. The folder is scored/NAME/seed-SEED/ of the run,
    with metrics.json and, for the test split, predictions.parquet. Raises InputError where they do not fit.
    """
    from ...stages.evaluate.given import score_given

    if split not in SPLITS:
        raise unknown_name("--split", split, SPLITS)
    name = name or predictions.stem
    if not _NAME.fullmatch(name) or seed < 0:
        raise InputError(
            f"--name {name!r} --seed {seed}: give a name of letters, digits and ._+-, and a seed from 0"
        )
    config = RunConfig.read(run.config)
    negative = config.of(PrepareSettings).negative
    scores, table = score_given(predictions, run.samples, split, task=config.task, negative=negative)
    folder = run.scored(name, seed)
    make_folder(folder)
    metrics: dict[str, Any] = {"valid": None, "test": None}
    if (folder / "metrics.json").is_file():
        metrics = read_metrics(folder)
    own = {"system": name, "task": config.task, "seed": seed, "qualifiers": [GIVEN], "best_epoch": 0}
    digests = {**metrics.get(GIVEN, {}), split: digest_file(predictions)}
    values = {**own, "valid": metrics["valid"], "test": metrics["test"], GIVEN: digests, split: scores}
    if split == "test":
        write_table(folder / "predictions.parquet", table)
    write_text(folder / "metrics.json", json.dumps(values, indent=2) + "\n")
    return scores, folder
