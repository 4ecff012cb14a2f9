"""The finetune stage: text encoder, fusion and visual backbone trained together, from pixels.

Everything but the backbone is as in train: the model, the heads, the recipe of [train] in run.toml, the
metrics and the checkpoints.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...manifests.advice import typed
from ...manifests.errors import InputError, StageError
from ...manifests.fingerprint import digest_file
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.schemas import MISSED, OUTCOMES, SAMPLES
from ...manifests.tables import read_table, sound_digests, table_digest, usable_images
from ...manifests.trial import PRETRAINED, TRAINED, Trial
from ..base.settings import local_files
from ..base.stage import Rerun, count_reasons, given_settings
from ..base.tools import SILENT, Counts, Tools
from ..learning.causes import MODEL_FILES, model_outputs, text_weights
from ..learning.made_by import made_by
from ..learning.recipe import Recipes, TrainSettings
from ..learning.training import Training
from ..systems.registry import BACKBONE_FILE
from ..vision.backbones.outside import is_outside
from ..vision.images import UnusableImage, open_keyed
from ..vision.plan import ViewSource
from .settings import FinetuneSettings

__all__ = ["Finetune"]


@dataclass(frozen=True)
class Finetune(Training):
    """From samples.parquet, detections.parquet and the images to models/<system>/finetuned-<label>/.

    settings: those of train. source: the stage that would make the cache of the backbone before it learns;
    its images, boxes and views are used here. See Stage for the contract.
    """

    run: RunFolder
    settings: TrainSettings
    task: str
    trial: Trial
    finetune: FinetuneSettings
    source: ViewSource
    negative: str = ""
    recipes: Recipes = field(default_factory=dict)

    kind = "finetune"
    files = (*MODEL_FILES, BACKBONE_FILE, "outcomes")

    @property
    def place(self) -> Path:
        return self.run.finetuned(self.trial)

    @property
    def recipe(self) -> TrainSettings:
        """Return the recipe of the trial, with the epochs of [finetune]."""
        whole = super().recipe
        epochs = self.finetune.epochs or whole.epochs
        return replace(whole, epochs=epochs, first_evaluation=min(whole.first_evaluation, epochs))

    @property
    def start(self) -> Path | None:
        """Return the folder of the model to start from, or None for pretrained weights.

        Raises InputError where there is no model, or where it is not the one that the trial is named after.
        """
        if self.trial.start == PRETRAINED:
            return None
        if self.trial.start == TRAINED:
            folder = self.run.model(self.trial.trained)
            if not (folder / "model.safetensors").is_file():
                train = typed("train", self.run.path, *self.trial.trained.options.split())
                raise InputError(
                    f"--from: {folder} holds no trained model; run `{train}` first, or use --from pretrained"
                )
            return folder
        if self.finetune.token() != self.trial.start:
            raise InputError(
                f"{self.place} was trained from another model than {self.finetune.start}, "
                f"which [finetune] in {self.run.config} names; give the folder of that model with --from"
            )
        return Path(self.finetune.start)

    def made_by(self) -> dict[str, Any]:
        source = {
            "parameters": self.source.parameters(),
            "weights": self.source.weights(),
            "settings": self.source.given(),
        }
        return {**made_by(self.run, ("prepare", "detect")), "extract": source}

    def parameters(self) -> dict[str, Any]:
        own, visual = asdict(self.finetune), self.source.parameters()
        # The digest of the start is among the weights; the other settings change nothing.
        for name in ("start", "epochs", "decoders", "recompute"):
            del own[name]
        del visual["dtype"], visual["precision"]  # nothing is stored, and all parts share one precision
        return {**self.recipe_parameters(self.recipe), **own, **visual}

    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        self._check_system()
        return {
            "samples": table_digest(self.run.samples, SAMPLES, "prepare"),
            **self.source.inputs(),
        }

    def _check_system(self) -> None:
        """Raise InputError for a system that is not trained from pixels."""
        if not self.info.finetunes:
            why = "reads no images" if not self.info.is_visual else "is not of the hmnet family"
            raise InputError(
                f"{self.trial.system} {why}: it is not trained end to end; use `hmnet-pipe train`"
            )
        if is_outside(backbone := self.source.given()["backbone"]):
            raise InputError(
                f"{backbone} is not trained end to end, as backbones of torchvision are; use "
                "`hmnet-pipe train` on its features, or extract with one of torchvision's"
            )

    def weights(self) -> dict[str, str]:
        found = {**text_weights(self.settings, self.info), **self.source.weights()}
        if (start := self.start) is not None:
            found["start"] = digest_file(start / "model.safetensors")
        return found

    def outputs(self) -> dict[str, str]:
        return {
            **model_outputs(self.place, BACKBONE_FILE),
            **sound_digests({"outcomes": (self.run.outcomes(self.name), OUTCOMES)}),
        }

    def output_path(self, output: str) -> Path:
        return self.run.outcomes(self.name) if output == "outcomes" else self.place / output

    def missed(self) -> dict[str, int]:
        """Return how often each reason was met by an image that can be read by now.

        While none can, another training would end in the same model.
        """
        try:
            table = read_table(self.run.outcomes(self.name), OUTCOMES)
            table = table.filter(pc.equal(table.column("status"), MISSED))
            images = usable_images(self.run.images) if table.num_rows else None
        except StageError:  # it never finished, or prepare has not
            images = None
        if images is None:
            return {}
        images = images.filter(pc.is_in(images.column("key"), table.column("image_key")))
        back = [row["key"] for row in images.to_pylist() if _readable(Path(row["path"]), row["key"])]
        table = table.filter(pc.is_in(table.column("image_key"), pa.array(back, pa.string())))
        found = count_reasons(table.column("reason"))
        return {f"{reason} when it ran, readable now": number for reason, number in found.items()}

    def before(self) -> tuple[str, ...]:
        trained = (f"train-{self.trial.trained.name}",) if self.trial.start == TRAINED else ()
        return (*self.source.before(), *trained)

    def given(self) -> dict[str, Any]:
        tables = {"finetune": asdict(self.finetune), "extract": self.source.given()}
        more = {
            f"{table}.{name}": value for table, values in tables.items() for name, value in values.items()
        }
        del more["finetune.start"]  # it names the trial
        return given_settings(super().recipe, **more)

    def sources(self) -> Iterator[Path]:
        yield from local_files(self.settings).values()
        yield from self.source.sources()
        if self.trial.start not in (PRETRAINED, TRAINED):
            yield from local_files(self.finetune).values()

    def compute(self, causes: StageRecord, tools: Tools) -> Counts:
        from .work import finetune

        rates = {**self.recipe.rates, "backbone": self.finetune.backbone_learning_rate}
        job = self.job(self.recipe, rates, causes, tools)
        return finetune(
            job, self.finetune, self.source.plan(), self.start, self.run.outcomes(self.name), tools
        )

    def again(
        self, record: StageRecord, share: float, elsewhere: bool, scratch: RunFolder, tools: Tools
    ) -> Rerun:
        again = replace(self, run=scratch)
        for table in (self.run.samples, self.run.images, self.run.detections, self.run.scenes):
            if table.exists():
                (scratch.path / table.name).symlink_to(table.resolve())
        if self.trial.start == TRAINED:
            scratch.model(self.trial.trained).parent.mkdir(parents=True)
            scratch.model(self.trial.trained).symlink_to(self.run.model(self.trial.trained).resolve())
        return self.rerun(again, record, elsewhere, tools)


def _readable(path: Path, key: str) -> bool:
    """Return whether an image can be read, and is still that of `key`."""
    try:
        open_keyed(path, key)
    except UnusableImage:
        return False
    return True
