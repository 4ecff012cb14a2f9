"""The train stage: one system, one seed, on the cached features.

The model of the epoch with the best validation F1 is kept and scores the test split once. A killed training
resumes from its last checkpoint, at the update where it was, with the optimizer, the schedule, the generators
and the order of the data as they were.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...manifests.errors import InputError
from ...manifests.fingerprint import digest_file
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.trial import PRETRAINED, Trial
from ..base.settings import local_files
from ..base.stage import Rerun, given_settings
from ..base.tools import SILENT, Counts, Tools
from ..learning.causes import MODEL_FILES, model_outputs, start_token, text_weights
from ..learning.inputs import input_digests, inputs_of, makers
from ..learning.recipe import Recipes, TrainSettings
from ..learning.training import Training
from ..systems.registry import SUBWORDS

__all__ = ["Train"]


@dataclass(frozen=True)
class Train(Training):
    """From samples.parquet and features/<set>/ to models/<trial>/. See Stage for the contract.

    starts: the tables [starts] of run.toml, the folder of each model that a trial may start from, by the
    digits that the trial has of it.
    """

    run: RunFolder
    settings: TrainSettings
    task: str
    trial: Trial
    negative: str = ""
    recipes: Recipes = field(default_factory=dict)
    starts: Mapping[str, str] = field(default_factory=dict)

    kind = "train"
    files = MODEL_FILES

    @property
    def place(self) -> Path:
        return self.run.model(self.trial)

    @property
    def start(self) -> Path | None:
        """Return the folder of the model to start from, or None for a training from the pretrained encoder.

        Raises InputError where it is not known, or holds another model than the trial is named after.
        """
        if self.trial.start == PRETRAINED:
            return None
        known = self.starts.get(self.trial.start)
        if known is None:
            raise InputError(
                f"{self.run.config} does not say where the model {self.trial.start} lies that {self.name} "
                "starts from; give its folder with --start"
            )
        if start_token(Path(known)) != self.trial.start:
            raise InputError(
                f"{known}, which {self.run.config} names in [starts], holds another model than "
                f"{self.trial.start}; give the folder of that model with --start"
            )
        return Path(known)

    def command(self) -> str:
        start = self.starts.get(self.trial.start)
        return super().command() + (f" --start {shlex.quote(start)}" if start is not None else "")

    def parameters(self) -> dict[str, Any]:
        return self.recipe_parameters(self.recipe)

    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        return input_digests(self.info, self.run, self.feature_set)

    def weights(self) -> dict[str, str]:
        found = text_weights(self.settings, self.info)
        if (start := self.start) is not None:
            found["start"] = digest_file(start / MODEL_FILES[0])
        return found

    def outputs(self) -> dict[str, str]:
        return model_outputs(self.place)

    def output_path(self, output: str) -> Path:
        return self.place / output

    def before(self) -> tuple[str, ...]:
        return makers(self.info, self.feature_set)

    def given(self) -> dict[str, Any]:
        return given_settings(self.recipe)

    def sources(self) -> Iterator[Path]:
        unread = "vectors" if self.info.text == SUBWORDS else "encoder"
        yield from (path for name, path in local_files(self.settings).items() if name != unread)

    def compute(self, causes: StageRecord, tools: Tools) -> Counts:
        from .work import train

        job = replace(self.job(self.recipe, self.recipe.rates, causes, tools), start=self.start)
        name = self.feature_set
        return train(job, self.run.features(name) if name is not None else None, tools)

    def again(
        self, record: StageRecord, share: float, elsewhere: bool, scratch: RunFolder, tools: Tools
    ) -> Rerun:
        again = replace(self, run=scratch)
        for path in inputs_of(self.info, self.run, self.feature_set):
            there = scratch.path / path.relative_to(self.run.path)
            there.parent.mkdir(exist_ok=True)
            there.symlink_to(path.resolve())
        return self.rerun(again, record, elsewhere, tools)
