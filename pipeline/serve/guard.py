"""Who may ask, and what a browser may do with the answer: nothing here is for pages of other origins."""

import ipaddress
import traceback
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .refusal import Refusal

__all__ = ["Guard"]

# Without a CORS header no page of another origin may read an answer. The page itself runs its own script
# and style alone, and is shown in no frame.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware that checks where a request comes from, and answers for what goes wrong behind it.

    host: the name that the server was given. complain: takes the lines of an unexpected error, for the
    terminal.
    """

    def __init__(self, app: ASGIApp, *, host: str, complain: Callable[[str], None]) -> None:
        self._app, self._host, self._complain = app, host, complain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # there is no websocket behind it
            await self._app(scope, receive, send)
            return
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            self._check(Headers(scope=scope), scope["method"])
            await self._app(scope, receive, sent)
        except Refusal as refusal:
            await refusal.response()(scope, receive, sent)
        except ClientDisconnect:  # nobody is left to be answered
            return
        except Exception:
            for line in traceback.format_exc().splitlines():
                self._complain(line)
            if begun:
                raise
            fault = Refusal(500, "The server has failed at this request; its terminal says why.")
            await fault.response()(scope, receive, sent)

    def _check(self, headers: Headers, method: str) -> None:
        """Raise Refusal for a request that a page of another origin has sent, or under another name.

        A page whose own name is made to lead to this address (DNS rebinding) has the rights of this origin:
        its name is in Host. No such page has an address in place of a name.
        """
        host = headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        if name not in ("localhost", self._host.lower()) and not _is_address(name):
            raise Refusal(
                421, "This server is not known by that name; use its address, or name it with --host."
            )
        if method in ("GET", "HEAD"):
            return
        origin = headers.get("origin")
        other = origin is not None and origin.lower().partition("://")[2] != host.lower()
        if other or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Refusal(403, "Pages of other origins may not use this server.")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
