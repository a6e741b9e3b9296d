"""The views as one module for the browser, and as one HTML file that needs nothing else."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path

from vl3.bundled import WEB

VIEWS = "views/mount.js"
TITLES = {"run": "Run details"}  # of views whose name is not their title

_IMPORT = re.compile(r'^import \{([^}]*)\} from "(\.{1,2}/[^"]+)";$', re.M)
_EXPORT = re.compile(r"^export (?:const|(?:async )?function|class) (\w+)", re.M)
_EXPORT_WORD = re.compile(r"^export (?=(?:const|(?:async )?function|class) \w)", re.M)
# Comments with types, on lines of their own: a quarter of the text.
_TYPES = re.compile(r"^ *(?:/\*\*(?:(?!\*/).)*\*/|// @ts-check)\n", re.M | re.S)

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


def joined(*entries: str) -> str:
    """These files of assets/web and all that they import as one script, a `const` for each file.

    The page, a notebook and a saved file each take one script, and can fetch none. So every ES
    module becomes a function that is called once, after those it imports, and gives what it
    exports: `const $views_mount = (() => { ...; return { mount }; })();`. Names of one file are
    unknown to the others, as in the browser. Read are imports by name from a relative path, and
    exports of one const, function or class; anything else is refused. Types are left out.

    entries: paths below assets/web, such as "views/mount.js"
    Raises: ValueError for other imports and exports, and where files import each other in a circle.
    """
    made: dict[Path, str] = {}

    def add(path: Path, waiting: tuple[Path, ...]) -> None:
        if path in waiting:
            raise ValueError(f"{path.name} imports itself by way of {waiting[-1].name}; part them")
        if path in made:
            return
        source = path.read_text("utf-8")
        for _, other in _IMPORT.findall(source):
            add((path.parent / other).resolve(), (*waiting, path))
        made[path] = _as_function(path, source)

    for entry in entries:
        add((WEB / entry).resolve(), ())
    return "\n".join(made.values())


def constant(path: str) -> str:
    """The name under which `joined` has what a file of assets/web exports."""
    return "$" + path.removesuffix(".js").replace("/", "_")


def _as_function(path: Path, source: str) -> str:
    def read(match: re.Match) -> str:
        other = (path.parent / match[2]).resolve()
        wanted = {name.split(" as ")[0].strip() for name in match[1].split(",")} - {""}
        if missing := sorted(wanted.difference(_EXPORT.findall(other.read_text("utf-8")))):
            raise ValueError(
                f"{name} imports {missing[0]}, which {match[2]} has no export line for"
            )
        return f"const {{{match[1].replace(' as ', ': ')}}} = {constant(_below_web(other))};"

    name = _below_web(path)
    exported = ", ".join(_EXPORT.findall(source))
    body = _EXPORT_WORD.sub("", _IMPORT.sub(read, _TYPES.sub("", source)))
    if left := re.search(r"^\s*(?:import|export)\b.*", body, re.M):
        raise ValueError(f"{name} has a line that the joiner does not read: {left[0].strip()}")
    return (
        f'const {constant(name)} = (() => {{ "use strict";\n{body}return {{ {exported} }};\n}})();'
    )


def _below_web(path: Path) -> str:
    return path.relative_to(WEB.resolve()).as_posix()


def module() -> str:
    """The views as a single ES module that exports mount."""
    return f"{joined(VIEWS)}\nconst {{ mount }} = {constant(VIEWS)};\nexport {{ mount }};\n"


def style() -> str:
    """The style sheet of the views."""
    return (WEB / "views.css").read_text("utf-8")


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
