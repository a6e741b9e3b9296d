"""The views as one module for the browser, and as one HTML file that needs nothing else."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence

from vl3.bundled import WEB

FILES = (
    "look_parts.js",
    "look_pruning.js",
    "look_positions.js",
    "look_maps.js",
    "look_attention.js",
    "look_compare.js",
    "look_run.js",
    "look.js",
)
TITLES = {"run": "Run details"}  # of views whose name is not their title

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}
body {{ margin: 0; background: #fff; color: #1c1f26; font-family: system-ui, sans-serif; }}
main {{ max-width: 1280px; margin: 0 auto; padding: 18px 22px 40px; }}
h1 {{ font-size: 1.2rem; margin: 0 0 12px; overflow-wrap: anywhere; }}
h1 ~ p {{ font-size: .9rem; margin: 0 0 6px; overflow-wrap: anywhere; }}
h2 {{ font-size: 1rem; margin: 34px 0 8px; padding-top: 18px; border-top: 1px solid #8886; }}
@media (max-width: 600px) {{ main {{ padding: 12px 12px 30px; }} }}
@media (prefers-color-scheme: dark) {{ body {{ background: #14161c; color: #e6e8ee; }} }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{facts}
{places}
</main>
<script type="application/json" id="views">{data}</script>
<script type="module">
{module}
JSON.parse(document.getElementById("views").textContent).forEach((data, i) => {{
  mount(document.getElementById(`view-${{i}}`), data);
}});
</script>
</body>
</html>
"""


def module() -> str:
    """The views as a single ES module that exports mount, for places where none can be imported."""
    lines = [line for name in FILES for line in (WEB / name).read_text("utf-8").splitlines()]
    joined = [line.removeprefix("export ") for line in lines if not line.startswith("import ")]
    return "\n".join([*joined, "export { mount, pruner, rope };"]) + "\n"


def style() -> str:
    """The style sheet of the views."""
    return (WEB / "look.css").read_text("utf-8")


def page(*views: dict, title: str = "vl3", facts: Sequence[str] = ()) -> str:
    """One HTML file with these views, their controls working, that asks for nothing from anywhere.

    views: of the data functions of vl3.viz
    facts: lines to read below the title
    """
    places = [
        f'<h2>{html.escape(_title(view["view"]))}</h2>\n<div id="view-{index}"></div>'
        for index, view in enumerate(views)
    ]
    return _PAGE.format(
        title=html.escape(title),
        style=style(),
        facts="\n".join(f"<p>{html.escape(fact)}</p>" for fact in facts),
        places="\n".join(places),
        data=in_script(views),
        module=module(),
    )


def _title(view: str) -> str:
    return TITLES.get(view, view.capitalize())


def in_script(value) -> str:
    """JSON that cannot end the script element it stands in, nor begin a comment there."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")
