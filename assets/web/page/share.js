// @ts-check
// Files and links that the server hands over.

import { make } from "../shared/dom.js";
import { dialog } from "./dialog.js";

/**
 * @typedef {import("./widget.js").Trigger} Trigger
 * @typedef {import("./widget.js").Value} Value
 */

const HELD_MS = 10_000; // of a file that was made here: as long as a browser may take to begin with it

/** @type {import("./widget.js").Widget} */
export function saver(_root, value, trigger) {
  if (value.link) handOver(value, trigger);
  if (value.url) make("a", { href: value.url, download: value.name }).click();
  if (!value.text) return;
  const url = URL.createObjectURL(new Blob([value.text], { type: value.type }));
  make("a", { href: url, download: value.name }).click();
  setTimeout(() => URL.revokeObjectURL(url), HELD_MS);
}

/**
 * Copies the link; where the browser does not allow it (a page without https), shows it.
 * @param {Value} value
 * @param {Trigger} trigger
 */
async function handOver(value, trigger) {
  const url = `${location.origin}${location.pathname}?run=${encodeURIComponent(value.link)}`;
  try {
    await navigator.clipboard.writeText(url);
    trigger("copied", {});
  } catch {
    const field = make("input", { readonly: "", value: url, "aria-label": "Link" });
    dialog("vl3-link", "Copy this link", make("p", {}, value.note), field);
    field.select();
  }
}
