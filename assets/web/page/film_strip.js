// @ts-check
// The film strip: pictures that stand for the frames the model sees, and what was kept of those. And the current
// frame: of those the model sees, the one nearest to the player's time. Whatever shows a frame follows it.

import { find, make } from "../shared/dom.js";
import { readTime } from "../shared/format.js";
import { dialog } from "./dialog.js";
import { AFTER_S, playing, setTime, timeOf } from "./video_time.js";

/**
 * @typedef {{first: number, time_s: number, label: string, share: number | null}} Cell
 * @typedef {object} Frames as vl3/webapp/film_strip.py has them
 * @property {number[]} times_s
 * @property {string[]} labels
 * @property {Cell[]} cells
 * @property {number[] | null} kept tokens of each
 * @property {number | null} tokens
 * @property {string} [url] of the sheet with the pictures of the cells
 * @property {[number, number]} [size] of a picture
 * @typedef {(index: number, frames: Frames) => void} Follower index is -1 where there is no frame
 * @typedef {import("./video_time.js").Video} Video
 */

/** @type {Frames} */
const NO_FRAMES = { times_s: [], labels: [], cells: [], kept: null, tokens: null };
const shown = { frames: NO_FRAMES, drawn: /** @type {WeakMap<Element, string>} */ (new WeakMap()) };
/** @type {Set<Follower>} */
const followers = new Set([markFrame]);

export const frame = { index: -1, subscribe };

/**
 * Draws the strip below the player.
 * @param {HTMLElement} root
 * @param {Frames | null} value
 */
export function filmStrip(root, value) {
  const box = /** @type {HTMLElement | null} */ (root.querySelector(".strip"));
  const drawn = JSON.stringify([root.dataset.url, value]);
  if (shown.drawn.get(root) === drawn) return;
  shown.drawn.set(root, drawn);
  if (box) {
    const focused = [...box.querySelectorAll("button")].findIndex((button) => button === document.activeElement);
    box.replaceChildren(...(value ? [make("div", { class: "cells" }, ...cellsOf(value)), make("p")] : []));
    const number = value?.cells.length || 0;
    box.style.setProperty("--columns", String(number > 8 ? Math.ceil(number / 2) : Math.max(number, 5)));
    box.querySelectorAll("button")[focused]?.focus();
  }
  shown.frames = value || NO_FRAMES;
  follow(true); // the same index is another frame now
}

/** @param {Frames} value */
function cellsOf({ cells, size, url }) {
  const [width, height] = size || [0, 0];
  const canvases = cells.map(() => make("canvas", { width, height }));
  if (url) {
    const sheet = new Image();
    sheet.onload = () => canvases.forEach((canvas, i) =>
      canvas.getContext("2d")?.drawImage(sheet, i * width, 0, width, height, 0, 0, width, height));
    sheet.src = url;
  }
  return cells.map(({ share, label, time_s }, i) => {
    const percent = share === null ? null : Math.round(100 * share);
    const bar = make("span", { class: "kept" },
      percent === null ? null : make("b", { style: `width: ${percent}%` }));
    return make("button", { "aria-label": `Go to ${label}`, onclick: () => goTo(time_s),
      title: percent === null ? label : `${label}, ${percent} % of the tokens kept` }, canvases[i], bar);
  });
}

/**
 * Calls the follower now and whenever the frame changes; gives a function that ends this.
 * @param {Follower} follower
 */
function subscribe(follower) {
  followers.add(follower);
  follower(frame.index, shown.frames);
  return () => followers.delete(follower);
}

export function followFrame() {
  follow(false);
}

/** @param {boolean} isNew whether there are other frames now */
function follow(isNew) {
  const video = playing();
  const index = video ? nearest(shown.frames.times_s, timeOf(video)) : -1;
  if (index === frame.index && !isNew) return;
  frame.index = index;
  for (const follower of followers) follower(index, shown.frames);
}

/** The frames that the model sees now. */
export function framesNow() {
  return shown.frames;
}

/**
 * The index of the time that is nearest.
 * @param {number[]} times_s
 * @param {number} time_s
 */
export function nearest(times_s, time_s) {
  const after = times_s.findIndex((each) => each >= time_s);
  if (after < 0) return times_s.length - 1;
  return after > 0 && time_s - times_s[after - 1] < times_s[after] - time_s ? after - 1 : after;
}

/** @type {Follower} */
function markFrame(index, { cells, labels, times_s, kept, tokens }) {
  const box = find("#player .strip");
  const current = cells.findLastIndex((cell) => cell.first <= index);
  /** @type {HTMLElement[]} */ ([...(box?.querySelectorAll("button") ?? [])]).forEach((button, i) =>
    button.setAttribute("aria-current", String(i === current)));
  const line = box?.querySelector("p");
  if (!line || index < 0) return;
  // Read out when somebody goes to a frame, not while the video plays.
  line.setAttribute("aria-live", playing().paused ? "polite" : "off");
  const parts = [`Frame ${index + 1} of ${times_s.length}`, labels[index]];
  if (kept) parts.push(`${kept[index]} of ${tokens} tokens kept`);
  line.textContent = parts.join(" · ");
}

/** @param {number} time_s */
export function goTo(time_s) {
  setTime(playing(), time_s + AFTER_S);
  followFrame();
}

/**
 * To the frame before or after.
 * @param {Video | null} video
 * @param {number} direction
 */
export function step(video, direction) {
  if (!video) return;
  video.pause();
  const now_s = timeOf(video), { times_s } = shown.frames;
  const time_s = direction > 0 ? times_s.find((each) => each > now_s + 0.01)
    : times_s.findLast((each) => each < now_s - 0.01);
  if (time_s !== undefined) goTo(time_s);
}

export function askTime() {
  if (!playing()) return;
  const field = make("input", { "aria-label": "Time", placeholder: "0:12", autocomplete: "off" });
  const note = make("p", { role: "alert" });
  const go = (/** @type {Event} */ event) => {
    event.preventDefault();
    const time_s = readTime(field.value);
    if (time_s === null) {
      note.textContent = "This is not a time. Write 12, 0:12 or 1:02:03.";
      return;
    }
    find("#vl3-time").close();
    goTo(time_s);
  };
  dialog("vl3-time", "Go to time", make("form", { onsubmit: go }, field, make("button", {}, "Go")), note);
}
