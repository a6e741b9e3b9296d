// @ts-check
// Everything of the page that runs in the browser. Gradio's components reach it by window.vl3; what the widgets
// show comes from vl3/webapp. Text of people, files and models only ever becomes textContent or an attribute.

import { readTime } from "../shared/format.js";
import { caption, cleanCopies } from "./conversation.js";
import { dragged, dropped, pasted } from "./drops.js";
import { budget, faults, gallery } from "./fields.js";
import { frame } from "./film_strip.js";
import { header } from "./header.js";
import { panel, tabs } from "./inspect.js";
import { pressed } from "./keyboard.js";
import { clicked } from "./links.js";
import { moment, momentWidget } from "./moment.js";
import { followPlayer, player, seek } from "./player.js";
import { saver } from "./share.js";
import { forgetEmpty, keep, memory, remembered } from "./storage.js";
import { followTheme, paint, theme } from "./theme.js";
import { answered, held, holds, watchUploads } from "./uploads.js";

/** @type {Record<string, import("./widget.js").Widget>} */
const WIDGETS = {
  header, player, budget, gallery, held, faults, tabs, saver, memory, moment: momentWidget,
  pruning: panel, positions: panel, attention: panel, compare: panel, run: panel,
};

/**
 * Draws a widget of vl3/webapp/layout.py, now and whenever it has another value.
 * @param {string} kind
 * @param {Element} element
 * @param {{value?: Record<string, any>}} props
 * @param {(name: string, changed: () => void) => void} watch
 * @param {import("./widget.js").Trigger} trigger
 * @param {import("./widget.js").Server | null} server
 */
function mount(kind, element, props, watch, trigger, server) {
  const draw = () => {
    const root = /** @type {import("./widget.js").Root | null} */ (element.querySelector(`.vl3-${kind}`));
    if (root) WIDGETS[kind](root, props.value || {}, trigger, server);
  };
  watch("value", draw);
  draw();
}

function start() {
  followTheme();
  document.addEventListener("click", (event) => {
    if (!holds(event)) clicked(event);
  }, true);
  document.addEventListener("keydown", holds, true);
  document.addEventListener("keydown", pressed);
  document.addEventListener("dragover", dragged, true);
  document.addEventListener("dragenter", dragged, true);
  document.addEventListener("drop", dropped, true);
  document.addEventListener("paste", pasted);
  watchUploads();
  window.addEventListener("pagehide", forgetEmpty);
  followPlayer();
  new MutationObserver(caption).observe(document.body, { childList: true, subtree: true });
  cleanCopies();
}

if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
else start();
window.addEventListener("load", () => setTimeout(paint, 0));

Object.assign(window, { vl3: { mount, seek, theme, keep, remembered, frame, readTime, arrived: answered, moment } });
