r"""Write pictures of pages as a browser shows them: wide, narrow, dark and on paper.

    softprompts report STUDY --html PAGE.html
    python docs/results/write_screens.py PAGE.html docs/results/figures/report

writes `report-1280.webp`, `report-400.webp`, `report-dark.webp` and `report-print.webp`. A page that
ends in `.md`, as the card of a prompt, is shown as tables and code of Markdown. It needs Chromium,
Pillow, markdown-it-py and, for paper, pypdfium2.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from jinja2 import Environment, PackageLoader
from PIL import Image

SCREENS = {"1280": (1280, 1300), "400": (400, 1640), "dark": (1280, 1300)}
"""Widths and heights in pixels."""


def main(arguments: list[str]) -> None:
    """Write the pictures of each page: pairs of a page and what its pictures' names begin with."""
    with tempfile.TemporaryDirectory() as folder:
        for page, name in zip(arguments[::2], arguments[1::2], strict=True):
            shown = from_markdown(Path(page), Path(folder)) if page.endswith(".md") else Path(page)
            for kind, size in SCREENS.items():
                write(screen(shown, Path(folder), size, kind == "dark"), f"{name}-{kind}")
            write(paper(shown, Path(folder)), f"{name}-print")


def from_markdown(source: Path, folder: Path) -> Path:
    """Return a page of Markdown in the style of all pages, its front matter left out."""
    from markdown_it import MarkdownIt

    text = source.read_text("utf-8").partition("---\n")[2].partition("---\n")[2]
    body = MarkdownIt("commonmark").enable("table").render(text)
    body = body.replace("<pre>", '<pre tabindex="0">')  # which scrolls
    style = Environment(loader=PackageLoader("softprompts.lab.reports")).get_template("style.css")
    head = f'<meta charset="utf-8"><title>card</title><style>{style.render()}</style>'
    page = folder / "card.html"
    page.write_text(f'<!DOCTYPE html><html lang="en">{head}<main>{body}</main></html>', "utf-8")
    return page


def screen(page: Path, folder: Path, size: tuple[int, int], is_dark: bool) -> Image.Image:
    """Return the top of a page in a frame, which may be narrower than a browser's window."""
    frame, picture = folder / "frame.html", folder / "picture.png"
    scheme = "dark" if is_dark else "light"
    style = f"width: {size[0]}px; height: {size[1]}px; border: 0; color-scheme: {scheme}"
    source = page.resolve().as_uri()
    frame.write_text(f'<body style="margin: 0"><iframe src="{source}" style="{style}"></iframe>')
    window = f"--window-size={max(size[0], 600)},{size[1] + 200}"
    light = f"--blink-settings=preferredColorScheme={0 if is_dark else 1}"
    browse(frame, folder, f"--screenshot={picture}", window, light, "--hide-scrollbars")
    return Image.open(picture).crop((0, 0, *size))


def paper(page: Path, folder: Path) -> Image.Image:
    """Return the first sheet of a page that is printed."""
    from pypdfium2 import PdfDocument

    sheet = folder / "sheet.pdf"
    browse(page, folder, f"--print-to-pdf={sheet}", "--no-pdf-header-footer")
    drawn: Image.Image = PdfDocument(sheet)[0].render(scale=1.5).to_pil()
    return drawn


def browse(page: Path, folder: Path, *options: str) -> None:
    """Open a page in a browser without a network."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        raise SystemExit("chromium must be installed.")
    quiet = ["--headless=new", "--no-sandbox", "--disable-gpu-sandbox", "--disable-dev-shm-usage"]
    quiet += [f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    quiet += ["--enable-unsafe-swiftshader", "--virtual-time-budget=8000", *options]
    subprocess.run([browser, *quiet, page.resolve().as_uri()], capture_output=True, check=True)


def write(picture: Image.Image, name: str) -> None:
    """Write a picture, small."""
    path = Path(f"{name}.webp")
    picture.convert("RGB").save(path, quality=80, method=6)
    print(f"{path}: {picture.size[0]} x {picture.size[1]}, {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
