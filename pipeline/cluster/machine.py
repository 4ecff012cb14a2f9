"""What kind of machine a stage ran on: what can change the last bits of its numbers, and nothing that tells two such machines apart."""

from ...stages.base.arithmetic import processor_name, resolve_device, resolve_precision, system_name

__all__ = ["machine_kind"]


def machine_kind() -> dict[str, str | bool | int]:
    """The processor's model, whether it multiplies bf16 (what `precision = auto` goes by), the threads that torch uses in this process
    (sums are added up in another order with another number), the GPU, if any, and the operating system."""
    import torch

    device = resolve_device("auto")
    return {
        "processor": processor_name(),
        "bf16": resolve_precision("auto", torch.device("cpu")) == "bf16",
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name()
        if device.type == "cuda"
        else device.type
        if device.type != "cpu"
        else "none",
        "system": system_name(),
    }
