// @ts-check
// The player's clock. Everything on the page counts from where the file starts; a browser may count by
// the file's own clock, in which that is at zero_s: Chromium does, Firefox does not. Nothing but these
// functions reads or sets what a video, or a sound without a picture, says of its time.

import { find } from "../shared/dom.js";

/**
 * @typedef {HTMLVideoElement & {zero_s: number, goal_s?: number | null, end_s?: number}} Video
 *   goal_s: where it is to go; end_s: how long the file seemed when it was sent there
 */

export const AFTER_S = 0.0005; // browsers round times down, to the frame before

/** Of a video that is not loaded yet. @type {{key: string, time_s: number} | null} */
let wish = null;

/**
 * @param {Video} video
 * @param {string} key of the video
 * @param {{zero_s: number, first_s: number}} clock of vl3/webapp/widget_values.py
 */
export function keepClock(video, key, { zero_s, first_s }) {
  video.zero_s = zero_s;
  video.dataset.key = key;
  video.addEventListener("loadedmetadata", () => {
    if (wish?.key !== key) return; // the one before, which loads slowly
    setTime(video, wish.time_s);
    wish = null;
  });
  if (!zero_s) return;
  video.requestVideoFrameCallback?.((_, { mediaTime }) => {
    if (mediaTime < first_s + zero_s / 2) video.zero_s = 0;
  });
  // How long a file is that begins late, Chromium learns while it reads on, and goes no further.
  video.addEventListener("durationchange", () => {
    const { duration, end_s, goal_s } = video;
    if (end_s !== undefined && duration > end_s && (goal_s ?? 0) > end_s) goOn(video);
  });
  for (const name of ["play", "pointerdown"]) {
    video.addEventListener(name, () => { video.goal_s = null; });
  }
}

/**
 * What plays: the video, or a sound without a picture; null for neither.
 * @returns {any}
 */
export function playing() {
  return find("#player :is(video, audio)");
}

/** @param {Video} video */
export function timeOf(video) {
  return video.currentTime - video.zero_s;
}

/**
 * @param {Video} video
 * @param {number} time_s
 */
export function setTime(video, time_s) {
  video.goal_s = Math.max(0, time_s) + video.zero_s;
  goOn(video);
}

/**
 * For the video of that key, as soon as it is loaded.
 * @param {string} key
 * @param {number} time_s
 */
export function setTimeOnceLoaded(key, time_s) {
  wish = { key, time_s };
}

/** @param {Video} video */
function goOn(video) {
  video.end_s = video.duration || Infinity;
  video.currentTime = video.goal_s ?? 0;
}
