// @ts-check
// Pictures of the pruning view: the frame with what is removed of it, bars of frames, the curve over thresholds.

import { clockTenths } from "../shared/format.js";
import {
  contextOf, coverRemoved, disc, fitCells, outline, paintKeptBars, pixelRatio, ratioOf, stroke, writeBelow,
} from "./canvas.js";
import { cividis, viridis } from "./colours.js";
import { HIGH, logShare, LOW, NUDGE, PLACEHOLDER, REMOVED, STEPS, thresholdAt } from "./pruning_rule.js";

/**
 * @typedef {import("./canvas.js").Box} Box
 * @typedef {import("./canvas.js").Context} Context
 * @typedef {import("./canvas.js").Ink} Ink
 * @typedef {import("./pruning.js").State} State
 */

// Ends of the colours, in grey levels whatever the rule's unit.
export const DARK_LEVELS = 0.1;
export const BRIGHT_LEVELS = 100;

/**
 * @param {State} state
 * @param {HTMLCanvasElement} canvas
 */
export function paintFrame(state, canvas) {
  const { data, decision, frame, layer } = state, { tokens, sheet } = data;
  const { width, height } = fitCells(canvas, data.token_rows, data.token_cols, Number(ratioOf(sheet)));
  const context = contextOf(canvas, { willReadFrequently: true });
  state.drawFrame(context, frame, 0, 0, width, height);
  if (layer === "off" || state.isImage) return;
  const states = decision.state.subarray(frame * tokens, (frame + 1) * tokens);
  const boxes = data.boxes.map((box) => inPixels(box, width, height)), removed = new Path2D();
  boxes.forEach((box, token) => {
    if (states[token] === REMOVED) removed.rect(...box);
  });
  if (layer !== "removed") paintValues(state, context, boxes);
  coverRemoved(context, removed, layer === "removed");
  context.lineWidth = Math.max(2, Math.round(2 * pixelRatio()));
  boxes.forEach((box, token) => {
    if (states[token] === PLACEHOLDER) outline(context, box);
  });
}

/**
 * @param {number[]} box shares of width and height: x0, y0, x1, y1
 * @param {number} width
 * @param {number} height
 * @returns {Box}
 */
function inPixels([x0, y0, x1, y1], width, height) {
  const [left, top] = [Math.round(x0 * width), Math.round(y0 * height)];
  return [left, top, Math.round(x1 * width) - left, Math.round(y1 * height) - top];
}

/**
 * The change of every token, or how far the removed ones are from their last kept version.
 * @param {State} state
 * @param {Context} context
 * @param {Box[]} boxes
 */
function paintValues({ data, decision, rule, chosen, frame, layer }, context, boxes) {
  const { tokens } = data, isHeat = layer === "heat";
  const values = isHeat ? decision.change.subarray(frame * tokens, (frame + 1) * tokens) : rule.drift(decision, frame);
  const scale = isHeat ? cividis : viridis, levels = isHeat ? data.levels[chosen.mode] : 1;
  context.globalAlpha = 0.82;
  boxes.forEach((box, token) => {
    const value = values[token];
    if (value === Infinity || (!isHeat && decision.state[frame * tokens + token] !== REMOVED)) return;
    context.fillStyle = scale(logShare(DARK_LEVELS, BRIGHT_LEVELS, value * levels));
    context.fillRect(...box);
  });
  context.globalAlpha = 1;
}

/**
 * @param {State} state
 * @param {Context} context
 * @param {number} width
 * @param {number} height
 * @param {Ink} ink
 */
export function paintBars({ data, decision, frame }, context, width, height, ink) {
  const top = 4, { tokens, times_s } = data;
  paintKeptBars(context, ink, [0, top, width, height - 28 - top], { kept: decision.kept, tokens, frame });
  writeBelow(context, ink, width, height, `${tokens} patches in a frame`, times_s ? clockTenths(times_s[frame]) : "");
}

/**
 * @param {State} state
 * @param {Context} context
 * @param {number} width
 * @param {number} height
 * @param {Ink} ink
 */
export function paintCurve(state, context, width, height, ink) {
  const { data, rule, chosen, used } = state, all = data.frames * data.tokens;
  state.curve ||= Array.from({ length: STEPS / NUDGE + 1 },
    (_, i) => rule.decide({ ...chosen, threshold: thresholdAt(i * NUDGE) }).total / all);
  const left = 42, top = 8, right = width - 8, bottom = height - 20;
  const x = (/** @type {number} */ value) =>
    left + Math.min(1, Math.max(0, logShare(LOW, HIGH, value))) * (right - left);
  const y = (/** @type {number} */ share) => bottom - share * (bottom - top);
  const axes = { left, right, height, x, y };
  paintAxes(context, ink, axes);
  if (used) {
    context.setLineDash([3, 3]);
    context.strokeStyle = ink.faint;
    stroke(context, [[x(used.threshold), top], [x(used.threshold), bottom]]);
    context.setLineDash([]);
  }
  context.strokeStyle = ink.text;
  context.lineWidth = 2;
  stroke(context, state.curve.map((share, i) => /** @type {const} */ ([x(thresholdAt(i * NUDGE)), y(share)])));
  const [cursorX, cursorY] = [x(chosen.threshold), y(state.decision.total / all)];
  context.strokeStyle = context.fillStyle = ink.accent;
  stroke(context, [[cursorX, top], [cursorX, bottom]]);
  disc(context, cursorX, cursorY, 5);
}

/**
 * @param {Context} context
 * @param {Ink} ink
 * @param {{left: number, right: number, height: number, x(value: number): number, y(share: number): number}} axes
 */
function paintAxes(context, ink, { left, right, height, x, y }) {
  context.font = ink.font;
  context.textBaseline = "middle";
  context.strokeStyle = ink.line;
  context.fillStyle = ink.faint;
  context.lineWidth = 1;
  for (const share of [0, 0.5, 1]) {
    context.textAlign = "right";
    context.fillText(`${100 * share} %`, left - 6, y(share));
    stroke(context, [[left, y(share)], [right, y(share)]]);
  }
  context.textBaseline = "bottom";
  for (const value of [0.01, 0.1, 1, 10, 100]) {
    context.textAlign = value === LOW ? "left" : value === HIGH ? "right" : "center";
    context.fillText(String(value), x(value), height);
  }
}
