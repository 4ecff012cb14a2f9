"""The train stage: one system, one seed, on the cached features.

The model of the epoch with the best validation F1 is kept, and the test split is scored once, by that model. A killed training
resumes from its last checkpoint with the optimizer, the schedule, the generators and the order of the data as they were, at the
update where it was.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...cache.reader import FeatureCache
from ...manifests.fingerprint import digest_file, digest_json
from ...manifests.run import RunFolder
from ...manifests.schemas import PREDICTIONS, SAMPLES
from ...manifests.tables import sound_digests, table_digest
from ..base.arithmetic import resolve_device, resolve_precision
from ..base.stage import Stage
from ..base.tools import SILENT, Counts, Tools
from ..learning.recipe import TrainSettings
from ..systems.registry import system_is_visual
from ..text.encoders.files import encoder_digest, resolve_encoder

__all__ = ["Train"]


@dataclass(frozen=True)
class Train(Stage):
    """samples.parquet and features/ to models/<system>/seed-<n>/. See Stage for the contract."""

    run: RunFolder
    settings: TrainSettings
    task: str
    system: str
    seed: int

    schema_version = 1

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"train-{self.system}-seed-{self.seed}"

    @property
    def folder(self) -> Path:
        return self.run.model(self.system, self.seed)

    @property
    def visual(self) -> bool:
        return system_is_visual(self.system, self.task)

    def parameters(self) -> dict[str, Any]:
        values = asdict(self.settings)
        device = resolve_device(values.pop("device"))
        del values["encoder"], values["tensorboard"]  # the encoder's digest is among the weights
        values["precision"] = resolve_precision(values["precision"], device)
        return {**values, "device": device.type, "system": self.system, "seed": self.seed}

    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        digests = {"samples": table_digest(self.run.samples, SAMPLES, "prepare")}
        if self.visual:
            digests["features"] = FeatureCache(self.run.features).digest()
        return digests

    def weights(self) -> dict[str, str]:
        return {"encoder": encoder_digest(resolve_encoder(self.settings.encoder))}

    def outputs(self) -> dict[str, str]:
        found = sound_digests({"predictions.parquet": (self.folder / "predictions.parquet", PREDICTIONS)})
        for name in ("model.safetensors", "metrics.json", "config.json"):
            if (self.folder / name).is_file():
                found[name] = digest_file(self.folder / name)
        return found

    def checkpoint_folder(
        self, parameters: dict[str, Any], inputs: dict[str, str], weights: dict[str, str]
    ) -> Path:
        """Where a training with these causes keeps its checkpoint: one of other settings is never resumed."""
        decides = {"parameters": parameters, "inputs": inputs, "weights": weights}
        return self.run.work(self.name) / digest_json(decides)[:16]

    def compute(self, tools: Tools) -> Counts:
        from .work import train

        return train(self, tools)

    def finish(self) -> None:
        shutil.rmtree(self.run.work(self.name), ignore_errors=True)
