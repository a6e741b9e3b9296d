// @ts-check
// The line at the top: what answers here.

import { make } from "../shared/dom.js";
import { help } from "./keyboard.js";
import { flip } from "./theme.js";
import { dotted } from "./widget.js";

const NEWS_MS = 5000; // how often an open tab asks whether another model answers now

/** @type {import("./widget.js").Widget} */
export function header(root, value, trigger, server) {
  root.number = value.number;
  document.body.toggleAttribute("data-hears", Boolean(value.hears)); // what only such a model needs is shown
  root.news ??= server && setInterval(async () => {
    if (document.visibilityState !== "visible" || root.asking || !root.isConnected) return;
    root.asking = true;
    const number = await server.news(root.number).catch(() => root.number); // it asks again
    root.asking = false;
    if (number !== root.number) trigger("changed", {});
  }, NEWS_MS);
  root.replaceChildren(
    make("h1", {}, "vl3"),
    make("p", { class: "facts" }, ...dotted(value.facts)),
    make("p", { class: "note" }, value.note || ""),
    make("button", { title: "Light or dark (D)", "aria-label": "Light or dark", onclick: flip }, "◐"),
    make("button", { title: "Keys (?)", "aria-label": "Keys", onclick: help }, "?"),
  );
}
