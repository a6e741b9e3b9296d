// @ts-check
// "Ask at 0:12" beside the ask box, while the video is paused there. What is sent stands in the box.

import { find, make } from "../shared/dom.js";
import { clock } from "../shared/format.js";
import { playing, timeOf } from "./video_time.js";

/** @type {import("./widget.js").Trigger | null} */
let tell = null;

/** @type {import("./widget.js").Widget} */
export function momentWidget(root, value, trigger) {
  tell = trigger;
  offerMoment();
}

/**
 * Asks the question of a turn once more, without sound or picture.
 * @param {string | null} what
 * @param {number} turn
 */
export function askWithout(what, turn) {
  tell?.("without", { what, turn });
}

export function offerMoment() {
  const root = find(".vl3-moment");
  if (!root) return;
  const video = playing(), time_s = video?.paused ? timeOf(video) : 0;
  const label = `Ask at ${clock(time_s)}`;
  if (!(time_s > 0)) root.replaceChildren();
  else if (root.textContent !== label) root.replaceChildren(make("button", { onclick: askAt }, label));
}

/** Where the player stands, for a question that does not say. */
export function moment() {
  const video = playing();
  return video ? { time_s: Math.max(0, timeOf(video)), key: find(".vl3-player").dataset.key } : {};
}

function askAt() {
  const field = find("#ask textarea"), time_s = timeOf(playing());
  field.value = `At ${Number(time_s.toFixed(1))} seconds: ${field.value.replace(/^At [\d.]+ seconds: /, "")}`;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  field.focus();
}
