// @ts-check

import { find, make } from "../shared/dom.js";

/**
 * Shows a dialog, unless it is open.
 * @param {string} id
 * @param {string} title
 * @param {...Node} content
 */
export function dialog(id, title, ...content) {
  if (find(`#${id}[open]`)) return;
  find(`#${id}`)?.remove();
  const box = make("dialog", { id, class: "vl3-dialog", "aria-label": title }, make("h2", {}, title), ...content,
    make("form", { method: "dialog" }, make("button", {}, "Close")));
  document.body.append(box);
  box.showModal();
}
