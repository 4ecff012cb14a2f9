"""What a trained model looked at in each sample, for figures: gates (eq. 4), attention to views (eq. 9)."""

import pyarrow as pa
import torch

from ...manifests.schemas import EXPLANATIONS
from ...manifests.tables import table_of
from ..base.arithmetic import autocast
from ..base.tools import SILENT, Tools
from ..systems.system import Model
from ..text.limits import MARKERS
from .batches import Visuals, batches
from .splits import Split

__all__ = ["explanations_table"]


def explanations_table(
    model: Model,
    split: Split,
    *,
    visuals: Visuals | None,
    pad_id: int,
    precision: str,
    tools: Tools = SILENT,
    batch_size: int = 64,
) -> pa.Table:
    """Return one row (manifests.schemas.EXPLANATIONS) for each sample of `split`, in its order.

    The model is put into evaluation mode.
    """
    model.eval()
    device = next(model.parameters()).device
    order = [list(range(i, min(i + batch_size, len(split)))) for i in range(0, len(split), batch_size)]
    bar = tools.bar(len(split), f"explain {split.name}", "sample")
    rows = []
    for batch in batches(
        split, order, task=model.config.task, pad_id=pad_id, label_ids=None, visuals=visuals
    ):
        with autocast(device, precision):
            explained = model.explain(batch.to(device))
        attention = explained.attention.float().mean(dim=2)  # over heads. shape: (L, B, n, V)
        for place, i in enumerate(batch.ids):
            positions = torch.tensor(split.texts[i].positions)
            if model.config.task == "ner":
                names = split.tokens[i][: split.texts[i].words]
            else:
                names = ["[CLS]", MARKERS[0], MARKERS[2]]
            rows.append(
                {
                    "id": split.ids[i],
                    "split": split.name,
                    "image_key": split.image_keys[i],
                    "positions": names,
                    "over": explained.over,
                    "views": explained.present[place].tolist(),
                    "gates": None if explained.gates is None else explained.gates[:, place].tolist(),
                    "attention": attention[:, place, positions].tolist(),
                    "word_gates": [
                        (name, gate[place, positions].tolist()) for name, gate in explained.word_gates.items()
                    ],
                }
            )
        bar.update(len(batch.ids))
    bar.close()
    return table_of(EXPLANATIONS, rows)
