"""The page that every picture and report stands on: one style, and nothing from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from softprompts.lab.reports.markup import Html, joined, tag

MAKER: Final = "softprompts figure"
"""What every picture and page says of its origin, near its beginning."""

_LIGHT = """--ink: #1c1d20; --paper: #ffffff; --card: #f7f7f5; --faint: #5f6168; --line: #dededa;
  --accent: #1c64b4; --soft: #bcd3ec; --warn: #9a4a08; --warn-card: #fdf3e7; --mark: #ffe8a3;
  --other: #b4571c;"""
_DARK = """--ink: #e9e9ec; --paper: #141518; --card: #1c1e22; --faint: #a2a4ad; --line: #363940;
  --accent: #74b3f5; --soft: #2f4f73; --warn: #f2ab6b; --warn-card: #2b2118; --mark: #5c4b16;
  --other: #ee9a62;"""

STYLE: Final = f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
* {{ box-sizing: border-box; }}
html {{ -webkit-text-size-adjust: 100%; }}
body {{ margin: 0 auto; max-width: 72rem; padding: 1.5rem 1.25rem 4rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue",
  "DejaVu Sans", sans-serif; }}
h1 {{ font-size: 1.7rem; line-height: 1.2; margin: 0 0 0.4rem; letter-spacing: -0.01em; }}
h2 {{ font-size: 1.2rem; line-height: 1.3; margin: 2.75rem 0 0.5rem; padding-top: 0.75rem;
  border-top: 1px solid var(--line); }}
h3 {{ font-size: 1rem; margin: 1.5rem 0 0.4rem; }}
h1, h2, h3, p, li, figcaption, summary {{ overflow-wrap: anywhere; }}
p, ul {{ margin: 0.4rem 0; max-width: 46rem; }}
ul {{ padding-left: 1.2rem; }} li {{ margin: 0.2rem 0; }}
.note, figcaption {{ color: var(--faint); font-size: 0.875rem; max-width: 46rem; }}
figure {{ margin: 0.75rem 0; }}
a {{ color: var(--accent); }}
code, pre {{ font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono",
  monospace; font-size: 0.85em; }}
pre {{ overflow-x: auto; max-height: 26rem; margin: 0.5rem 0; padding: 0.75rem 0.9rem;
  background: var(--card); border-radius: 6px; line-height: 1.45; }}
details {{ margin: 0.5rem 0; }}
summary {{ cursor: pointer; color: var(--accent); font-size: 0.9rem; }}
.scroll {{ overflow-x: auto; max-width: 100%; }}
table {{ border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.3rem 0.75rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); vertical-align: baseline; }}
th {{ color: var(--faint); font-weight: 600; font-size: 0.8rem; }}
th:first-child, td:first-child {{ padding-left: 0; }}
th.text, td.text, caption {{ text-align: left; }}
caption {{ color: var(--faint); font-size: 0.8rem; padding-bottom: 0.2rem; }}
td.long {{ white-space: normal; min-width: 16rem; }}
.panels {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr));
  gap: 0.5rem; }}
.panel {{ min-width: 0; height: 22rem; overflow: hidden; }} .wide {{ height: 20rem; }}
@media print {{
  :root {{ color-scheme: light; {_LIGHT} }}
  body {{ max-width: none; padding: 0; font-size: 10pt; }}
  .sources, nav {{ display: none !important; }}
  h2, h3 {{ break-after: avoid; }} figure, tr {{ break-inside: avoid; }}
  pre {{ max-height: none; white-space: pre-wrap; overflow-wrap: anywhere; }}
  .scroll {{ overflow: visible; }} table {{ font-size: 7.5pt; }}
  th, td {{ padding: 0.15rem 0.3rem; }} th, td.text {{ white-space: normal; }}
  details::details-content {{ content-visibility: visible; block-size: auto; }}
}}
"""


def page(
    title: str, body: Sequence[str], style: str = "", scripts: Sequence[str] = (), tail: str = ""
) -> str:
    """Return an HTML page that asks for nothing from outside, and could not.

    Args:
        title: the page's title, as text.
        body: its markup.
        style: style of its own, after the one that all pages share.
        scripts: programs that run at its end; without any, none may run.
        tail: markup between body and scripts.
    """
    allowed = "'unsafe-inline' 'unsafe-eval' blob:" if scripts else "'none'"
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {allowed}"
    )
    head = joined(
        [
            tag("meta", charset="utf-8"),
            tag("meta", name="generator", content=MAKER),
            _policy(policy),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", title),
            Html(f"<style>{STYLE}{style}</style>"),
        ]
    )
    runs = "\n".join(f"<script>{script}</script>" for script in scripts)
    inside = "\n".join(body)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{inside}\n'
        f"{tail}{runs}\n</body>\n</html>\n"
    )


def _policy(content: str) -> Html:
    """Return the policy as a browser reads it."""
    return Html(f'<meta http-equiv="Content-Security-Policy" content="{content}">')
