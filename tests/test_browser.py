"""The browser that other tests use tells a faulty page from a good one."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from .browser import serious_faults, visit

pytestmark = pytest.mark.slow

GOOD = """<!doctype html><html lang="en"><head><title>A page</title></head>
<body><main><h1>A page</h1><img alt="a dot" src="data:image/gif;base64,R0lGODlhAQABAAAAACw="></main></body>"""
FAULTY = """<!doctype html><html><head><title>A page</title></head><body><img src="http://127.0.0.1:1/a.png">
<script>console.error("a complaint"); nowhere()</script></body>"""


def test_a_faulty_page_is_found_and_a_good_one_is_not(chromium: Browser, tmp_path: Path) -> None:
    (tmp_path / "good.html").write_text(GOOD)
    (tmp_path / "faulty.html").write_text(FAULTY)
    with visit(chromium, (tmp_path / "good.html").as_uri(), width=390) as seen:
        assert serious_faults(seen.page) == []
        assert seen.page.evaluate("innerWidth") == 390
    assert (seen.errors, seen.elsewhere()) == ([], [])
    with visit(chromium, (tmp_path / "faulty.html").as_uri()) as seen:
        faults = [fault.partition(" ")[0] for fault in serious_faults(seen.page)]
    assert {"image-alt", "html-has-lang"} <= set(faults)
    assert "a complaint" in seen.errors
    assert any("nowhere" in error for error in seen.errors)
    assert seen.elsewhere() == ["http://127.0.0.1:1/a.png"]
    assert seen.elsewhere("127.0.0.1") == []
