"""What kind of machine a stage ran on: all that can change the last bits of its numbers, and nothing more."""

from importlib.metadata import PackageNotFoundError, version

from ...stages.base.arithmetic import processor_name, resolve_device, resolve_precision, system_name

__all__ = ["installed_version", "machine_kind"]


def machine_kind() -> dict[str, str | bool | int]:
    """Return what kind of machine this is.

    That is the processor's model, whether it multiplies bf16 (which decides `precision = auto`), the number
    of threads that torch uses in this process (it changes the order of sums), the GPU, if any, and the
    operating system.
    """
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


def installed_version(package: str) -> str | None:
    """Return the version of an installed package, or None where it is absent."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
