"""The page's views on an anywidget canvas: the same ES module, in JupyterLab, VS Code and Colab."""

from __future__ import annotations

from collections.abc import Callable

import anywidget
import traitlets

from vl3.viz import export

# The sheet of the views follows the system's theme; a notebook has one of its own.
DARK = (
    "--look-own-text: #e6e8ee; --look-own-faint: #a3abb8; --look-own-line: #363b46; "
    "--look-own-ground: #14161c; --look-own-accent: #a5b4fc; --look-own-soft: #23284a; "
    "--look-own-warn: #fdba74; --look-own-warn-soft: #3a2415;"
)
LIGHT = (
    "--look-own-text: #1c1f26; --look-own-faint: #5d6470; --look-own-line: #dfe2e8; "
    "--look-own-ground: #fff; --look-own-accent: #3448c5; --look-own-soft: #eef0fd; "
    "--look-own-warn: #9a3412; --look-own-warn-soft: #fff4ec;"
)
THEMES = f"""
[data-jp-theme-light="false"], body.vscode-dark {{ {DARK} }}
[data-jp-theme-light="true"], body.vscode-light {{ {LIGHT} }}
.vl3-look {{ padding: 10px 12px; background: var(--look-ground); }}
"""

ADAPTER = """
export default {
  render({ model, el }) {
    // Keys pressed in here are for the view; in JupyterLab an arrow key would leave the cell.
    const keep = ({ target }) => target.setAttribute("data-lm-suppress-shortcuts", "");
    el.addEventListener("focusin", keep);
    const traits = { frame: "frame", apply: "applied" };
    const view = mount(el, { ...model.get("data"), frame: model.get("frame") }, (name, detail) => {
      if (!(name in traits)) return model.send({ [name]: detail });
      model.set(traits[name], detail);
      model.save_changes();
    });
    const followed = {
      "change:frame": () => view.update({ frame: model.get("frame") }),
      "change:data": () => view.update(model.get("data")),
      "msg:custom": (changes) => view.update(changes),
    };
    for (const [event, follow] of Object.entries(followed)) model.on(event, follow);
    return () => {
      for (const [event, follow] of Object.entries(followed)) model.off(event, follow);
      view.destroy();
    };
  },
};
"""


class Canvas(anywidget.AnyWidget):
    """One view of assets/web/views with its data, as vl3.viz makes it.

    frame: the one that is shown, both ways; applied: what "Apply to next answer" was pressed with
    preview: gives a PNG for places where no widget runs, such as a notebook on GitHub, and what
    nbconvert makes of one; alt: what it shows, in words
    answer: gives what view.update takes for a message of the view that is no trait, such as "need"
    """

    _esm = export.module() + ADAPTER
    _css = export.style() + THEMES
    data = traitlets.Dict().tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    applied = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        data: dict,
        preview: Callable[[], bytes],
        alt: str,
        answer: Callable[[dict], dict | None] = lambda message: None,
    ) -> None:
        super().__init__(data=data, frame=data["frame"])
        self._preview, self._alt = preview, alt
        self.on_msg(lambda _widget, message, _buffers: self._reply(answer(message)))

    def _reply(self, changes: dict | None) -> None:
        if changes is not None:
            self.send(changes)

    def _repr_mimebundle_(self, **kwargs) -> tuple[dict, dict]:
        found = super()._repr_mimebundle_(**kwargs)
        bundle, metadata = found if isinstance(found, tuple) else (found or {}, {})
        words = f"{self._alt}. A view to click and drag, when the notebook runs."
        picture = {"image/png": self._preview(), "text/plain": words}
        return bundle | picture, metadata | {"image/png": {"alt": self._alt}}
