"""Pages opened in a browser without a network."""

from __future__ import annotations

import html
import os
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
        [browser, *quiet, page.as_uri()], capture_output=True, text=True, timeout=600, check=True
    )
    return done.stdout


def boxes(probe: Path, text: str, size: tuple[int, int], *chosen: str) -> list[tuple[int, int]]:
    """Return where parts of a page begin and end, from its top, in a frame of some size."""
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    measure = (
        "const page = document.querySelector('iframe').contentDocument;"
        f"document.title = {list(chosen)}.map(one => page.querySelector(one)"
        ".getBoundingClientRect()).map(box => [box.top, box.bottom].map(Math.round)).join(';')"
    )
    style = f"width: {size[0]}px; height: {size[1]}px; border: 0"
    frame = f'<iframe style="{style}" srcdoc="{html.escape(bare)}"></iframe>'
    script = f"<script>onload = () => {{ {measure} }}</script>"
    probe.write_text(f"<title>none</title>{script}{frame}", "utf-8")
    shown = browse(probe, "--dump-dom", width=size[0])
    seen = re.search(r"<title>([\d,;-]+)</title>", shown)
    assert seen
    pairs = (one.split(",") for one in seen[1].split(";"))
    return [(int(top), int(bottom)) for top, bottom in pairs]


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


SCHEMES = ("light", "dark")


def violations(probe: Path, text: str, scheme: str = "light") -> list[str]:
    """Return what axe finds wrong with a page, all unfolded, that is serious or critical.

    The colours are those of `scheme`, `light` or `dark`.
    """
    axe = os.environ.get("SOFTPROMPTS_AXE")
    if not axe:
        pytest.skip("SOFTPROMPTS_AXE does not name axe.min.js of npm's axe-core")
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    check = (
        "document.querySelectorAll('details').forEach(one => { one.open = true; });"
        "const scheme = matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';"
        "axe.run().then(found => { document.title = 'axe ' + scheme + ' ' + found.passes.length + "
        "': ' + found.violations.filter(one => ['serious', 'critical'].includes(one.impact))"
        ".map(one => one.id + ' ' + one.nodes[0].html.slice(0, 90)).join(' | '); });"
    )
    script = f"<script>{Path(axe).read_text('utf-8')}</script>"
    script += f"<script>onload = () => {{ {check} }}</script></body>"
    head, _, tail = bare.rpartition("</body>")
    probe.write_text(f"{head}{script}{tail}", "utf-8")
    colours = f"--blink-settings=preferredColorScheme={1 - SCHEMES.index(scheme)}"
    shown = browse(probe, colours, "--dump-dom")
    seen = re.search(rf"<title>axe {scheme} ([1-9]\d*): (.*?)</title>", shown)
    assert seen, f"axe did not run in {scheme} colours"
    return [html.unescape(one) for one in seen[2].split(" | ") if one]
