// @ts-check
// Pictures of the attention view: the frame with its weights, the heads in small, bars of frames, layers by heads.

import { clockTenths, smallPercent } from "../shared/format.js";
import { clamp } from "./attention_maps.js";
import { frameNumber, isHidden, shareAt, topOf } from "./attention_state.js";
import { MEASURES } from "./attention_text.js";
import { contextOf, coverRemoved, fitCells, frameChosen, markBelow, pixelRatio, resize, writeBelow } from "./canvas.js";
import { cividis, viridis } from "./colours.js";

/**
 * @typedef {import("./canvas.js").Box} Box
 * @typedef {import("./canvas.js").Context} Context
 * @typedef {import("./canvas.js").DrawFrame} DrawFrame
 * @typedef {import("./canvas.js").Ink} Ink
 * @typedef {import("./attention_state.js").State} State
 */

export const SHOWN_DECADES = 2; // between the ends of the colours
const GAP = 10; // between the frames of two media, in pixels
const THUMB_HEIGHT = 32;

/**
 * @param {number} weight
 * @param {number} top
 */
function colourOf(weight, top) {
  return cividis(weight > 0 && top > 0 ? 1 + Math.log10(weight / top) / SHOWN_DECADES : 0);
}

/**
 * @param {State} state
 * @param {HTMLCanvasElement} canvas
 * @param {DrawFrame} drawFrame
 */
export function paintFrame(state, canvas, drawFrame) {
  const { medium, frame, patch, shown } = state, { rows, cols, sheet } = state.media[medium], scale = pixelRatio();
  const { width, height } = fitCells(canvas, rows, cols, sheet.height / sheet.width);
  const context = contextOf(canvas, { willReadFrequently: true });
  const [across, down] = [width / cols, height / rows], top = topOf(state, shown.weights);
  const removed = new Path2D(), hidden = /** @type {Box[]} */ ([]);
  drawFrame(context, frame, 0, 0, width, height);
  context.globalAlpha = state.opacity;
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) {
      const box = /** @type {Box} */ ([col * across, row * down, across, down]);
      const slot = state.slots.at({ medium, frame, row, col });
      if (slot < 0) removed.rect(...box);
      else if (isHidden(state, slot)) hidden.push(box);
      else if (shown.reaches(slot)) {
        context.fillStyle = colourOf(shown.weights[slot], top);
        context.fillRect(...box);
      }
    }
  }
  context.globalAlpha = 1;
  coverRemoved(context, removed);
  for (const box of hidden) cross(context, box, scale);
  const extent = patch && patch.medium === medium ? state.slots.extentOf(patch, frame) : null;
  if (!extent) return;
  const inset = 2 * scale, [above, below, left, right] = extent;
  const size = [(right - left) * across - 2 * inset, (below - above) * down - 2 * inset];
  frameChosen(context, [left * across + inset, above * down + inset, size[0], size[1]], scale);
}

/**
 * Marks a patch whose value is hidden.
 * @param {Context} context
 * @param {Box} box
 * @param {number} scale
 */
function cross(context, [left, top, width, height], scale) {
  for (const [ink, thick] of /** @type {const} */ ([["#000", 3], ["#fff", 1.5]])) {
    context.strokeStyle = ink;
    context.lineWidth = thick * scale;
    context.beginPath();
    context.moveTo(left + 0.35 * width, top + 0.35 * height);
    context.lineTo(left + 0.65 * width, top + 0.65 * height);
    context.moveTo(left + 0.65 * width, top + 0.35 * height);
    context.lineTo(left + 0.35 * width, top + 0.65 * height);
    context.stroke();
  }
}

/**
 * A head in small, with the colours of its own largest weight.
 * @param {State} state
 * @param {HTMLCanvasElement} canvas
 * @param {number | null} head null for the mean of all
 */
export function paintHead(state, canvas, head) {
  const { medium, frame, shown } = state, { rows, cols } = state.media[medium];
  resize(canvas, cols, rows);
  const context = contextOf(canvas);
  context.clearRect(0, 0, cols, rows);
  const weights = head === null ? shown.joint : shown.perHead?.[head];
  if (shown.source !== state.source || !weights) return;
  const top = topOf(state, weights);
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) {
      const slot = state.slots.at({ medium, frame, row, col });
      if (slot < 0 || isHidden(state, slot) || !shown.reaches(slot)) continue;
      context.fillStyle = colourOf(weights[slot], top);
      context.fillRect(col, row, 1, 1);
    }
  }
}

/**
 * Where the bars of the frames stand: each is so wide, that of frame number n begins at left(n).
 * @param {State} state
 * @param {number} width
 */
function columns({ media, slots }, width) {
  const each = (width - GAP * (media.length - 1)) / slots.numFrames;
  const left = (/** @type {number} */ number) => number * each + GAP * Math.max(0, slots.mediumOf(number));
  return { each, left };
}

/**
 * The medium and frame whose bar is at x.
 * @param {State} state
 * @param {number} x
 * @param {number} width
 */
export function frameAt(state, x, width) {
  const { media, slots } = state, { left, each } = columns(state, width);
  const medium = Math.max(0, media.findLastIndex((_, m) => x >= left(slots.starts[m]) - GAP / 2));
  return { medium, frame: clamp(Math.floor((x - left(slots.starts[medium])) / each), media[medium].frames) };
}

/**
 * Bars of every frame of all media, and below them what the frames look like.
 * @param {State} state
 * @param {DrawFrame[]} drawFrame of every medium
 * @param {Context} context
 * @param {number} width
 * @param {number} height
 * @param {Ink} ink
 */
export function paintTotals(state, drawFrame, context, width, height, ink) {
  const { media, slots, totals, shown } = state, { each, left } = columns(state, width);
  const top = 4, bottom = height - 60, best = Math.max(...totals), here = frameNumber(state);
  media.forEach(({ frames }, m) => {
    context.fillStyle = ink.soft;
    context.fillRect(left(slots.starts[m]), top, frames * each, bottom - top);
    paintThumbnails(state, m, drawFrame[m], context, left(slots.starts[m]), bottom + 10, each);
  });
  totals.forEach((share, number) => {
    const tall = best > 0 ? Math.max(share > 0 ? 1 : 0, ((bottom - top) * share) / best) : 0;
    context.fillStyle = number === here ? ink.accent : ink.faint;
    context.fillRect(left(number), bottom - tall, Math.max(1, each - (each > 4 ? 1 : 0)), tall);
  });
  markBelow(context, ink, left(here) + each / 2, bottom);
  const { times_s } = media[state.medium];
  const words = `Share of ${MEASURES[shown.source]} in each frame, highest ${smallPercent(best)}`;
  writeBelow(context, ink, width, height, words, times_s ? clockTenths(times_s[state.frame]) : "");
}

/**
 * As many frames of a medium as have room beside each other.
 * @param {State} state
 * @param {number} m
 * @param {DrawFrame} drawFrame
 * @param {Context} context
 * @param {number} left
 * @param {number} top
 * @param {number} each width of a bar
 */
function paintThumbnails({ media }, m, drawFrame, context, left, top, each) {
  const { frames, sheet } = media[m], wide = frames * each, full = (THUMB_HEIGHT * sheet.width) / sheet.height;
  const fit = Math.max(1, Math.min(frames, Math.floor(wide / Math.max(each, full))));
  for (let i = 0; i < fit; i++) {
    const index = Math.floor(((i + 0.5) * frames) / fit), space = wide / fit - 1;
    const thumbWide = Math.min(space, full), thumbHigh = (thumbWide * sheet.height) / sheet.width;
    drawFrame(context, index, left + (i * wide) / fit + (space - thumbWide) / 2, top, thumbWide, thumbHigh);
  }
}

/** @param {State} state */
export function matrixHeight({ sizes }) {
  return 22 + sizes.layers * Math.min(26, Math.max(9, Math.round(250 / sizes.layers)));
}

/**
 * @param {State} state
 * @param {number} width
 * @param {number} height
 */
function cells({ sizes }, width, height) {
  const left = 24, top = 3, right = width - 3;
  return { left, top, wide: (right - left) / sizes.heads, high: (height - 19 - top) / sizes.layers };
}

/**
 * The layer and head whose cell is there.
 * @param {State} state
 * @param {HTMLCanvasElement} canvas
 * @param {{offsetX: number, offsetY: number}} event
 */
export function cellAt(state, canvas, { offsetX, offsetY }) {
  const { left, top, wide, high } = cells(state, canvas.clientWidth, canvas.clientHeight);
  return { layer: clamp(Math.floor((offsetY - top) / high), state.sizes.layers),
    head: clamp(Math.floor((offsetX - left) / wide), state.sizes.heads) };
}

/**
 * Share of attention on the media, layers down and heads across.
 * @param {State} state
 * @param {Context} context
 * @param {number} width
 * @param {number} height
 * @param {Ink} ink
 */
export function paintMatrix(state, context, width, height, ink) {
  const { sizes, shown, layers, heads } = state, { left, top, wide, high } = cells(state, width, height);
  let best = 0;
  for (let i = 0; i < sizes.layers * sizes.heads; i++) best = Math.max(best, state.share.at(shown.word, i));
  context.font = ink.font;
  context.textBaseline = "middle";
  for (let layer = 0; layer < sizes.layers; layer++) {
    for (let head = 0; head < sizes.heads; head++) {
      context.fillStyle = viridis(best ? shareAt(state, shown.word, layer, head) / best : 0);
      context.fillRect(left + head * wide, top + layer * high, wide - 1, high - 1);
    }
    context.fillStyle = ink.faint;
    context.textAlign = "right";
    if (high >= 12 || layer % 4 === 0) context.fillText(String(layer), left - 6, top + (layer + 0.5) * high);
  }
  context.textAlign = "center";
  context.textBaseline = "bottom";
  for (let head = 0; head < sizes.heads; head += wide >= 18 ? 1 : 4) {
    context.fillText(String(head), left + (head + 0.5) * wide, height);
  }
  if (state.source !== "language") return;
  const head = heads.language, across = (head === null ? sizes.heads : 1) * wide + 1; // around the cell
  frameChosen(context, [left + (head ?? 0) * wide - 1, top + layers.language * high - 1, across, high + 1]);
}
