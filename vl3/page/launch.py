"""How the page is served: what it may read and send, its style sheets and scripts."""

from __future__ import annotations

from pathlib import Path

from starlette.middleware import Middleware

from vl3.page.policy import OnlyThisServer
from vl3.viz import export

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "assets" / "web"
FONT = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
FONT_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "monospace"]


def options(max_upload: str) -> dict:
    """The closed settings of a page: no telemetry, no folders, nothing from elsewhere."""
    return {
        "max_file_size": max_upload, "allowed_paths": [], "blocked_paths": [str(ROOT)],
        "show_error": False, "run_history": False, "enable_monitoring": False, "quiet": True,
        "state_session_capacity": 64, "footer_links": ["api"], "ssr_mode": False,
        "app_kwargs": {"middleware": [Middleware(OnlyThisServer)]},
        "css_paths": WEB / "page.css", "head": head(),
    }  # fmt: skip


def head() -> str:
    """The scripts of the page, from this server like all of it: its own, and the views.

    The style of the views stands here too: as one of Gradio's style sheets it would lose the rules
    that depend on a view's own width.
    """
    script = (WEB / "page.js").read_text("utf-8")
    return (
        f"<script>{script}</script><style>{export.style()}</style>"
        f'<script type="module">{export.module()}\nwindow.vl3.views(mount);</script>'
    )
