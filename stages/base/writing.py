"""Writing with libraries that have words of their own for a full disk (safetensors, tokenizers, torch)."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...manifests.files import disk_error

__all__ = ["writing"]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise OSError where such a library could not write `path` since the operating system refused."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        # torch raises an error of its own over that with the reason; Rust has the reason in words alone.
        cause, said = disk_error(error), re.search(r"\(os error (\d+)\)", str(error))
        number = cause.errno if cause is not None else int(said[1]) if said is not None else None
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error
