// @ts-check
// Keys of the page.

import { fieldOf, find, make } from "../shared/dom.js";
import { dialog } from "./dialog.js";
import { askTime, step } from "./film_strip.js";
import { goToTab, TABS } from "./inspect.js";
import { flip } from "./theme.js";
import { playing, setTime, timeOf } from "./video_time.js";

/** @typedef {import("./video_time.js").Video} Video */

const KEYS = [
  ["/", "Write a question"],
  ["Enter", "Send"],
  ["Shift+Enter", "New line"],
  ["Esc", "Stop"],
  ["Ctrl+Enter", "Try again"],
  ["Space or K", "Play or pause"],
  ["J, L", "Back or forward 5 s"],
  [", and .", "Previous or next frame that the model sees"],
  ["G", "Go to a time"],
  ["1 to 5", "Tabs of Inspect"],
  ["[ and ]", "Lower or higher threshold, in Pruning"],
  ["← and →", "Previous or next word, in Attention"],
  ["D", "Light or dark"],
  ["?", "This list"],
];

export function help() {
  const rows = KEYS.map(([key, what]) =>
    make("tr", {}, make("th", { scope: "row" }, make("kbd", {}, key)), make("td", {}, what)));
  dialog("vl3-help", "Keys", make("table", {}, make("tbody", {}, ...rows)));
}

/**
 * @param {Video | null} video
 * @param {number} seconds
 */
function move(video, seconds) {
  if (video) setTime(video, timeOf(video) + seconds);
}

/** @param {Video | null} video */
function toggle(video) {
  if (!video) return;
  if (video.paused) video.play().catch(() => {}); // the browser may refuse, and says so itself
  else video.pause();
}

/** @param {KeyboardEvent} event */
export function pressed(event) {
  const target = /** @type {Element} */ (event.target);
  if (event.key === "Escape" && !find("dialog[open]")) return find("#ask .stop-button")?.click();
  if (isTyping(target) || find("dialog[open]") || event.altKey || event.metaKey) return;
  if (event.ctrlKey) {
    if (event.key === "Enter") find("#again")?.click();
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const action = actionOf(key, target);
  if (action && action() !== false) event.preventDefault();
}

/**
 * A field of a dialog that was just closed has the focus until the next picture is drawn.
 * @param {Element} target
 */
function isTyping(target) {
  return (fieldOf(target) ?? target.closest?.("select"))?.checkVisibility();
}

/**
 * @param {string} key
 * @param {Element} target
 * @returns {(() => unknown) | undefined} gives false where the key keeps its own meaning
 */
function actionOf(key, target) {
  const video = playing(), tab = Number(key);
  if (Number.isInteger(tab) && tab >= 1 && tab <= Object.keys(TABS).length) return () => goToTab(tab);
  const onControl = target.closest?.("button, a, summary, video, input, [role=button]");
  /** @type {Record<string, () => unknown>} */
  const actions = {
    "/": () => find("#ask textarea")?.focus(),
    "?": help,
    d: flip,
    k: () => toggle(video),
    j: () => move(video, -5),
    l: () => move(video, 5),
    ",": () => step(video, -1),
    ".": () => step(video, 1),
    g: askTime,
    " ": () => (onControl ? false : toggle(video)),
  };
  return Object.hasOwn(actions, key) ? actions[key] : undefined;
}
