// @ts-check
// Boxes of an answer, on a canvas over the picture: #boxes=x0,y0,x1,y1@time;...&n=count&v=key.

import { find, make } from "../shared/dom.js";
import { clock } from "../shared/format.js";
import { AFTER_S, setTime, setTimeOnceLoaded, timeOf } from "./video_time.js";

/**
 * @typedef {{number: number, place: number[], time_s: number | null}} Box place: x0, y0, x1, y1 in thousandths
 * @typedef {{key: string | null, list: Box[], total: number, from: HTMLElement}} Boxes and the link that shows them
 * @typedef {import("./video_time.js").Video} Video
 * @typedef {{left: number, top: number, width: number, height: number}} Area
 */

const MOST_BOXES = 100;
const NEAR_S = 0.1; // as long as one picture stays, or a few
const state = {
  shown: /** @type {Boxes | null} */ (null),
  wanted: /** @type {Boxes | null} */ (null), // as soon as their video is there
};

/**
 * @param {HTMLAnchorElement} link
 * @returns {Boxes}
 */
export function readBoxes(link) {
  const target = new URLSearchParams(link.hash.slice(1));
  const list = (target.get("boxes") || "").split(";").slice(0, MOST_BOXES).map((text, i) => {
    const [place, time] = text.split("@");
    return { number: i + 1, place: place.split(",").map(Number), time_s: time === undefined ? null : Number(time) };
  });
  return { key: target.get("v"), list, total: Number(target.get("n")) || list.length, from: link };
}

/**
 * Shows them, where need be once the player has fetched their video.
 * @param {Boxes} wanted
 */
export function showBoxes(wanted) {
  const root = find(".vl3-player");
  if (!root) return;
  hideBoxes();
  if (wanted.key && root.dataset.key !== wanted.key) {
    state.wanted = wanted;
    root.dispatchEvent(new CustomEvent("recall", { detail: { key: wanted.key } }));
    return;
  }
  state.wanted = null;
  const picture = root.querySelector("video, img");
  if (!picture) return;
  state.shown = wanted;
  const timed = wanted.list.find((box) => box.time_s !== null);
  if (timed && picture.localName === "video") showMoment(picture, Number(timed.time_s));
  const canvas = make("canvas", { class: "boxes", role: "img", "aria-label": "Boxes of the answer" });
  picture.parentNode.append(canvas);
  const hide = () => {
    hideBoxes();
    wanted.from.focus();
  };
  root.append(make("div", { class: "told" }, make("p", { "aria-live": "polite" }),
    make("button", { class: "link go", onclick: toNextBox }, "Next"),
    make("button", { class: "link", onclick: hide }, "Hide boxes")));
  new ResizeObserver(drawBoxes).observe(canvas);
  followPictures(picture);
  picture.addEventListener("load", drawBoxes);
  drawBoxes();
  picture.scrollIntoView({ block: "nearest" });
}

/**
 * The player shows another video: perhaps the one whose boxes are wanted.
 * @param {string | undefined} key
 */
export function showWantedBoxes(key) {
  if (state.wanted && state.wanted.key === key) showBoxes(state.wanted);
}

/**
 * @param {Video} video
 * @param {number} time_s
 */
function showMoment(video, time_s) {
  video.pause();
  if (video.readyState > 0) setTime(video, time_s + AFTER_S);
  else setTimeOnceLoaded(video.dataset.key ?? "", time_s + AFTER_S);
}

/**
 * A box goes with its picture, not a quarter of a second later, when the player says that time passed.
 * @param {Video} video
 */
function followPictures(video) {
  if (!state.shown || !video.isConnected) return;
  drawBoxes();
  video.requestVideoFrameCallback?.(() => followPictures(video));
}

function toNextBox() {
  const video = find("#player video"), times = new Set(state.shown?.list.flatMap(({ time_s }) => time_s ?? []));
  const sorted = [...times].sort((a, b) => a - b);
  showMoment(video, sorted.find((each) => each > timeOf(video) + NEAR_S) ?? sorted[0]);
}

function hideBoxes() {
  state.shown = null;
  for (const node of document.querySelectorAll("#player canvas.boxes, #player .told")) node.remove();
}

/**
 * Where the picture lies in its element: object-fit contain leaves bars at two of the sides.
 * @param {any} element a video or an image
 * @returns {Area}
 */
function pictureIn(element) {
  const wide = element.videoWidth || element.naturalWidth, high = element.videoHeight || element.naturalHeight;
  const scale = Math.min(element.clientWidth / wide, element.clientHeight / high) || 0;
  const width = wide * scale, height = high * scale;
  return { left: element.offsetLeft + (element.clientWidth - width) / 2,
    top: element.offsetTop + (element.clientHeight - height) / 2, width, height };
}

export function drawBoxes() {
  const canvas = find("#player canvas.boxes"), boxes = state.shown;
  if (!boxes || !canvas) return;
  const picture = canvas.parentNode.querySelector("video, img");
  const ratio = devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  const at = pictureIn(picture);
  const now = boxes.list.filter(({ time_s }) => time_s === null || Math.abs(time_s - timeOf(picture)) <= NEAR_S);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  if (at.width) for (const box of now) drawBox(pen, at, box);
  const text = wordsOf(boxes, now), line = find("#player .told p");
  if (line.textContent !== text) line.textContent = text;
  find("#player .told .go").hidden = now.length === boxes.list.length;
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {Area} at
 * @param {Box} box
 */
function drawBox(pen, at, { number, place: [x0, y0, x1, y1] }) {
  const left = at.left + (x0 / 1000) * at.width, top = at.top + (y0 / 1000) * at.height;
  const width = ((x1 - x0) / 1000) * at.width, height = ((y1 - y0) / 1000) * at.height;
  // A light line inside a dark one is seen on any picture.
  for (const [color, thick] of /** @type {const} */ ([["#101828", 5], ["#ffd84d", 2]])) {
    pen.strokeStyle = color;
    pen.lineWidth = thick;
    pen.strokeRect(left, top, width, height);
  }
  pen.font = "600 13px system-ui, sans-serif";
  const label = String(number), labelWidth = pen.measureText(label).width + 10;
  const labelTop = top >= at.top + 18 ? top - 18 : top;
  pen.fillStyle = "#101828";
  pen.fillRect(left - 1, labelTop, labelWidth, 18);
  pen.fillStyle = "#ffd84d";
  pen.fillText(label, left + 4, labelTop + 13.5);
}

/**
 * @param {Boxes} boxes
 * @param {Box[]} now those that are shown
 */
function wordsOf({ list, total }, now) {
  const later = new Set(list.filter((box) => !now.includes(box)).map((box) => clock(Number(box.time_s))));
  const parts = [`${now.length} of ${total} ${total === 1 ? "box" : "boxes"} shown`];
  if (now.length && now.length <= 4) parts.push(now.map(placeWords).join("; "));
  if (later.size) parts.push(`more at ${[...later].slice(0, 8).join(", ")}`);
  return `${parts.join(" · ")}.`;
}

/** @param {Box} box */
function placeWords({ number, place: [x0, y0, x1, y1], time_s }) {
  /** @type {(from: number, to: number) => string} */
  const range = (from, to) => `${Math.round(from / 10)}–\u2060${Math.round(to / 10)}\u00a0%`; // never broken
  const when = time_s === null ? "" : ` at ${clock(time_s)}`;
  return `${number}${when}: ${range(x0, x1)} across, ${range(y0, y1)} down`;
}
