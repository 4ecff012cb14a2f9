"""What is known before a model is opened: whether the extra is installed, and the port can be had."""

import errno
import os
import socket
from importlib.util import find_spec

from ...manifests.errors import InputError, StageError
from ...manifests.files import reason_of

__all__ = ["address_of", "hold_port"]

# What the extra `serve` installs.
_EXTRA = ("starlette", "uvicorn", "python_multipart")


def hold_port(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a port; 0: on any that is free.

    Raises InputError where the extra `serve` is not installed, and StageError where the port cannot be had.
    """
    if missing := next((package for package in _EXTRA if find_spec(package) is None), None):
        raise InputError(
            f"serve needs {missing}, which is not installed; run `pip install 'hmnet-pipe[serve]'`"
        )
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        held = socket.socket(family, kind, number)
        if os.name == "posix":  # a port whose last connections the kernel still remembers is free
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(address)
        held.listen(128)  # now, as two processes may bind one port, and one alone may listen
        return held
    except (OSError, UnicodeError) as error:
        raise StageError(_remedy(error, host, port)) from error


def _remedy(error: Exception, host: str, port: int) -> str:
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.EADDRINUSE:
        return f"port {port} of {host} is in use; give another with --port, or --port 0 for one that is free"
    if code == errno.EACCES:
        return f"port {port} needs the rights of an administrator; give one from 1024 on with --port"
    return f"{host} is no address of this machine ({reason_of(error)}); give one with --host"


def address_of(held: socket.socket) -> str:
    """Return the address of the page for a browser on this machine."""
    host, port = held.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
