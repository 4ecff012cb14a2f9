"""The forward and backward passes of a training on a GPU as CUDA graphs: recorded once, then replayed.

Starting a kernel from Python takes longer than most kernels of a step run, so that a GPU waits for Python; a
replay starts all kernels of a pass at once. They are the same kernels in the same order, with the same random
numbers, so that every number is what it is without graphs, to the last bit.

A graph has fixed shapes and fixed addresses. Each shape of batch has one of its own; they share the memory of
batches, of gradients, and of what a pass computes in between.
"""

import gc
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...manifests.errors import StageError
from ..systems.batch import Batch
from ..systems.system import Model

__all__ = ["Recorder", "Replays", "recorder_on"]

# In batches of 8, the 4,000 tweets of Twitter-2015 have 97 shapes (multiples of 8 sub-words, and any number
# of words). A graph of bert-base takes some megabytes.
_MOST_GRAPHS = 128

Recorder = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Records the operations of a function without computing anything.

Returns what computes them again, and the tensor that will then hold the function's result.
"""


@dataclass(frozen=True)
class _Recording:
    """The passes for one shape of batch.

    inputs: the tensors of the batch, by field. gradients: of each parameter that gets one, where it will be.
    """

    replay: Callable[[], None]
    inputs: dict[str, Tensor]
    gradients: list[tuple[nn.Parameter, Tensor]]
    loss: Tensor


class Replays:
    """A model's forward and backward passes, recorded when a shape of batch comes for the second time.

    The first time is computed as ever: kernels are loaded and memory is taken then, which nothing may do
    while a graph is recorded.
    """

    def __init__(self, model: Model, passes: Callable[[Batch, float], Tensor], record: Recorder) -> None:
        """Prepare for the passes of `model`.

        passes: computes the loss of a batch on the model's device, adds the gradients of the loss times a
        weight to the parameters', and returns the loss.
        """
        self._model, self._passes, self._record = model, passes, record
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._device = self._parameters[0].device
        self._seen: set[Hashable] = set()
        self._recordings: dict[Hashable, _Recording] = {}
        self._inputs: dict[Hashable, Tensor] = {}
        self._gradients: list[Tensor] = []  # of each parameter, once anything is recorded

    @property
    def count(self) -> int:
        """Return how many shapes of batches are recorded."""
        return len(self._recordings)

    def __call__(self, batch: Batch, weight: float) -> Tensor:
        """Return what `passes` returns for a batch on the CPU, and leave the gradients where it does.

        The loss holds until the next call. Raises StageError for a model that cannot be recorded.
        """
        path = self._model.path(batch)
        if path is None:
            return self._passes(batch.to(self._device), weight)
        shape = (path, weight, *((name, value.shape, value.dtype) for name, value in _tensors(batch)))
        self._take_over()
        found = self._recordings.get(shape)
        if found is None and shape in self._seen and self.count < _MOST_GRAPHS:
            found = self._recordings[shape] = self._recorded(batch, weight)
        self._seen.add(shape)
        if found is None:
            return self._passes(batch.to(self._device), weight)
        for name, value in _tensors(batch):
            found.inputs[name].copy_(value, non_blocking=True)
        found.replay()
        self._hand_over(found)
        return found.loss

    def _recorded(self, batch: Batch, weight: float) -> _Recording:
        """Return the recorded passes for batches like this one. Nothing is computed."""
        if not self._gradients:
            self._gradients = [torch.empty_like(parameter) for parameter in self._parameters]
        inputs = {name: self._input(name, value) for name, value in _tensors(batch)}
        given: dict[str, Any] = {**inputs, "known_mask": batch.view_mask}
        there = replace(batch, **given)
        before = [parameter.grad for parameter in self._parameters]
        own: list[tuple[nn.Parameter, Tensor]] = []

        def work() -> Tensor:
            loss = self._passes(there, weight)
            pairs = zip(self._parameters, self._gradients, strict=True)
            own.extend((parameter, gradient) for parameter, gradient in pairs if parameter.grad is not None)
            # The recorded ones are then free again for the next recording: only these stay.
            made = [parameter.grad for parameter, _ in own if parameter.grad is not None]
            torch._foreach_copy_([gradient for _, gradient in own], made)
            return loss

        try:
            for parameter in self._parameters:
                parameter.grad = None
            replay, loss = self._record(work)
        except RuntimeError as error:
            raise StageError(
                f"the steps of {self._model.config.system} cannot be recorded as a CUDA graph "
                f"({str(error).splitlines()[0]}); train with --no-cuda-graphs"
            ) from error
        finally:
            for parameter, gradient in zip(self._parameters, before, strict=True):
                parameter.grad = gradient
        return _Recording(replay, inputs, own, loss)

    def _input(self, name: str, value: Tensor) -> Tensor:
        """Return the tensor on the device for a field of a batch: one for all graphs with its shape."""
        key = name, value.shape, value.dtype
        if key not in self._inputs:
            self._inputs[key] = torch.empty_like(value, device=self._device).copy_(value)
        return self._inputs[key]

    def _take_over(self) -> None:
        """Move gradients of the update's earlier batches out of the places that a replay writes to."""
        for parameter, gradient in zip(self._parameters, self._gradients, strict=False):
            if parameter.grad is gradient:
                parameter.grad = gradient.clone()

    def _hand_over(self, found: _Recording) -> None:
        """Give each parameter its gradient, or add it to that of the update's earlier batches."""
        earlier = [(p.grad, gradient) for p, gradient in found.gradients if p.grad is not None]
        if earlier:
            torch._foreach_add_([one for one, _ in earlier], [other for _, other in earlier])
        for parameter, gradient in found.gradients:
            if parameter.grad is None:
                parameter.grad = gradient


def _tensors(batch: Batch) -> list[tuple[str, Tensor]]:
    """Return the tensors of a batch by their fields."""
    return [(name, value) for name, value in vars(batch).items() if isinstance(value, Tensor)]


def recorder_on(device: torch.device) -> Recorder | None:
    """Return what records graphs on a device, or None where there are none."""
    return _CudaRecorder(device) if device.type == "cuda" else None


class _CudaRecorder:
    """Records CUDA graphs that share one pool of memory: only one is replayed at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool: Any = None

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        if self._pool is None:
            torch.cuda.empty_cache()  # no memory can be freed for a recording once it has begun
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream), _nothing_collected():
            # The thread that makes the next batches pins memory meanwhile, which is no part of the graph.
            state = torch.cuda.get_rng_state(self._device)
            try:
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    made = work()
                finally:
                    graph.capture_end()
            except BaseException:
                self._restore_generator(state)
                raise
        return graph.replay, made

    def _restore_generator(self, state: Tensor) -> None:
        """Give the device a generator in `state`: torch leaves one that waits for a graph that failed."""
        generator = torch.Generator(self._device)
        generator.set_state(state)
        index = torch.cuda.current_device() if self._device.index is None else self._device.index
        torch.cuda.default_generators[index].graphsafe_set_state(generator)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Keep Python from collecting garbage: a graph of an earlier training that is freed ends a recording."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
