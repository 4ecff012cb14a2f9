"""A real browser for tests of pages: the system's Chromium, headless, and what is asked of every page.

    def test_a_page(chromium: Browser) -> None:
        with visit(chromium, path.as_uri(), width=390) as seen:
            assert seen.page.title() == "..."
            assert serious_faults(seen.page) == []
        assert seen.errors == []
        assert seen.elsewhere() == []

The fixture `chromium` (conftest.py) lives for one file of tests: while it is there, playwright keeps a loop
running in the thread, in which no other test could run one of its own.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, expect, sync_playwright

__all__ = ["NO_BROWSER", "Visit", "installed_chromium", "running_chromium", "serious_faults", "visit"]

NO_BROWSER = "no Chromium is installed; install one (Debian: apt-get install chromium), or have it on PATH"

_NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable")

# What a browser asks for itself is no request of the page.
_QUIET = ("--disable-background-networking", "--disable-component-update", "--no-first-run")


def installed_chromium() -> str | None:
    """Return the path of a Chromium that is installed, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@contextmanager
def running_chromium(path: str) -> Iterator[Browser]:
    """Yield a headless Chromium."""
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_QUIET))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page in a window of its own, with what it complained of and every address that it asked for."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def elsewhere(self, *allowed: str) -> list[str]:
        """Return the addresses that are neither in the page nor on an allowed host, nor files."""
        own = ("data", "blob", "about")
        hosts = ("", *allowed)  # that of a file is empty
        parts = [(address, urlsplit(address)) for address in self.requests]
        return [
            address
            for address, split in parts
            if split.scheme not in own and (split.hostname or "") not in hosts
        ]


@contextmanager
def visit(
    browser: Browser,
    address: str,
    *,
    width: int = 1280,
    height: int = 900,
    scheme: Literal["light", "dark"] = "light",
    **options: Any,
) -> Iterator[Visit]:
    """Yield a visit of an address, in a context of its own: no cookie or storage of another one.

    options: of playwright's `new_context`, for example `java_script_enabled=False`.
    """
    size = {"width": width, "height": height}
    context = browser.new_context(viewport=size, color_scheme=scheme, **options)  # type: ignore[arg-type]
    context.set_default_timeout(20_000)
    page = context.new_page()
    seen = Visit(page)
    page.on("console", lambda said: seen.errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    context.on("request", lambda request: seen.requests.append(request.url))
    try:
        page.goto(address)
        yield seen
    finally:
        context.close()


def serious_faults(page: Page) -> list[str]:
    """Return the serious and critical faults of accessibility that axe-core finds, each with its element."""
    import axe_playwright_python

    script = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    page.evaluate(script)  # through the debugger, which no content security policy concerns
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{fault['id']} ({fault['impact']}): {fault['help']}: {node['html']}"
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]
