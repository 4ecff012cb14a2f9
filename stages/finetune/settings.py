"""The settings of the finetune stage."""

from dataclasses import dataclass
from pathlib import Path

from ...manifests.errors import InputError
from ...manifests.fingerprint import digest_file
from ...manifests.trial import PRETRAINED, TRAINED
from ..base.settings import check_settings, setting
from ..learning.causes import token_of
from ..learning.recipe import MOST_EPOCHS

__all__ = ["FinetuneSettings"]


@dataclass(frozen=True)
class FinetuneSettings:
    """The table [finetune] of run.toml; the rest of the recipe is in [train]."""

    start: str = setting(
        "pretrained",
        "'pretrained' weights, 'train' (its model of this system and seed), or a folder",
        option="from",
        words=("pretrained", TRAINED),
    )
    epochs: int = setting(
        0, "passes over the training split; 0: as many as in [train]", at_least=0, at_most=MOST_EPOCHS
    )
    unfreeze: int = setting(
        1,
        "how much of the backbone learns: 0 nothing, 1 its last stage, ... 4 all stages, 5 the stem too",
        at_least=0,
        at_most=5,
    )
    backbone_learning_rate: float = setting(1e-5, "learning rate of the backbone", at_least=0)
    batch_norm: bool = setting(False, "let BatchNorm's statistics follow the data in the parts that learn")
    augment: bool = setting(False, "mirror and brighten or darken the training images at random")
    recompute: bool = setting(
        False, "compute the backbone's activations twice instead of keeping them: less memory, more time"
    )
    decoders: int = setting(2, "threads that decode images", at_least=1, at_most=256)

    def __post_init__(self) -> None:
        check_settings("finetune", self)

    def token(self) -> str:
        """Return the name of the start in a trial: a folder is named by the content of its model.

        Raises InputError where the folder holds no model.
        """
        if self.start in ("pretrained", TRAINED):
            return PRETRAINED if self.start == "pretrained" else TRAINED
        model = Path(self.start) / "model.safetensors"
        if not model.is_file():
            raise InputError(
                f"--from: {self.start} holds no trained model; "
                "give a folder that train or finetune has written, 'train' or 'pretrained'"
            )
        return token_of(digest_file(model))
