// @ts-check
// The line at the top: what answers here.

import { make } from "../shared/dom.js";
import { help } from "./keyboard.js";
import { flip } from "./theme.js";
import { dotted } from "./widget.js";

const NEWS_MS = 5000; // how often an open tab asks whether another model answers now

/**
 * Shows what only a model with an ear needs; by a variable, since Gradio puts its own selectors before ours.
 * @param {boolean} isHearing
 */
function hears(isHearing) {
  const { style } = document.documentElement;
  style.setProperty("--of-sound", isHearing ? "block" : "none");
  style.setProperty("--drop-here", `"Drop a video${isHearing ? ", an image or a sound" : " or an image"} here, `
    + 'or click to choose"');
}

/** @type {import("./widget.js").Widget} */
export function header(root, value, trigger, server) {
  root.number = value.number;
  hears(Boolean(value.hears));
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
