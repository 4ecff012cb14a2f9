"""Curves of a training for TensorBoard."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ...manifests.errors import StageError

__all__ = ["Draw", "curves"]

Draw = Callable[
    [str, float | None, int], None
]  # the name of a curve, its value (None: nothing is drawn), the update


@contextmanager
def curves(folder: Path | None, step: int) -> Iterator[Draw]:
    """Lend a function that draws with TensorBoard, or one that does nothing where there is no folder.

    step: the update that a resumed training starts from. Raises StageError where TensorBoard is not
    installed.
    """
    if folder is None:
        yield lambda name, value, step: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise StageError(
            "--tensorboard needs a package of its own; run `pip install 'hmnet-pipe[tensorboard]'`"
        ) from error
    # What a killed training drew after its last checkpoint is drawn again.
    with SummaryWriter(str(folder), purge_step=step + 1 if step else None) as writer:

        def draw(name: str, value: float | None, step: int) -> None:
            if value is not None:
                writer.add_scalar(name, value, step)

        yield draw
