"""Pages opened in a browser without a network."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest


def browse(page: Path, *options: str, width: int = 400) -> str:
    """Open a page in a browser without a network, and return what it prints."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("chromium is absent")
    quiet = [
        "--headless=new",
        "--hide-scrollbars",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
    ]
    quiet += [f"--user-data-dir={page.parent / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    quiet += [f"--window-size={width},900", "--virtual-time-budget=4000", *options]
    done = subprocess.run(
        [browser, *quiet, page.as_uri()], capture_output=True, text=True, timeout=200, check=True
    )
    return done.stdout


def widths(probe: Path, text: str) -> tuple[int, int]:
    """Return how wide a page is, and its window, in a frame of 400 pixels with all unfolded."""
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    measure = (
        "const page = document.querySelector('iframe').contentDocument;"
        "page.querySelectorAll('details').forEach(one => { one.open = true; });"
        "const wide = [...page.querySelectorAll('*')].filter(one => one.getBoundingClientRect()"
        ".right > 401 && !one.closest('.scroll, pre, svg'));"
        "document.body.append(wide.map(one => one.outerHTML.slice(0, 90)).join(' | '));"
        "document.title = [page.scrollingElement.scrollWidth, page.defaultView.innerWidth]"
    )
    frame = f'<iframe style="width: 400px; height: 900px; border: 0" srcdoc="{html.escape(bare)}">'
    script = f"<script>onload = () => {{ {measure} }}</script>"
    probe.write_text(f"<title>none</title>{script}{frame}</iframe>", "utf-8")
    shown = browse(probe, "--dump-dom")
    print(shown[shown.rindex("</iframe>") :])
    seen = re.search(r"<title>(\d+),(\d+)</title>", shown)
    assert seen
    return int(seen[1]), int(seen[2])
