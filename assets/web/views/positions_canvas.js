// @ts-check
// Pictures of the positions view.

import { count } from "../shared/format.js";
import { disc, frameChosen, raster, stroke } from "./canvas.js";
import { twilight, viridis } from "./colours.js";

/**
 * @typedef {import("./canvas.js").Context} Context
 * @typedef {import("./canvas.js").Ink} Ink
 * @typedef {import("./positions.js").Language} Language
 * @typedef {import("./positions.js").State} State
 */

const SHOWN_ROWS = 6, SHOWN_COLS = 10; // of the block order, which goes on the same way

/**
 * A colour for every patch, and a frame around the chosen one.
 * @param {State} state
 * @param {Context} context
 * @param {number} width
 * @param {number} height
 * @param {(row: number, col: number) => number[]} rgbAt
 */
function paintMap({ data, row, col }, context, width, height, rgbAt) {
  const { rows, cols } = data;
  context.imageSmoothingEnabled = false;
  context.drawImage(raster(rows, cols, rgbAt), 0, 0, width, height);
  frameChosen(context, [(col * width) / cols, (row * height) / rows, width / cols, height / rows]);
}

/**
 * @param {State} state
 * @param {"row" | "col"} along
 * @param {Context} context
 * @param {number} width
 * @param {number} height
 * @param {Ink} _ink
 */
export function paintAngles(state, along, context, width, height, _ink) {
  const { angles, number, frequency } = state, list = along === "row" ? angles.rowAngles : angles.colAngles;
  paintMap(state, context, width, height, (row, col) => {
    const turns = list[(along === "row" ? row : col) * number + frequency] / (2 * Math.PI);
    return twilight.rgb(turns - Math.floor(turns));
  });
}

/**
 * @param {State} state
 * @param {Context} context
 * @param {number} width
 * @param {number} height
 * @param {Ink} _ink
 */
export function paintAlike(state, context, width, height, _ink) {
  const { alike } = state, least = Math.min(...alike.flat());
  paintMap(state, context, width, height, (row, col) => viridis.rgb((alike[row][col] - least) / (1 - least || 1)));
}

/**
 * @param {number} width
 * @param {number} height
 */
function plot(width, height) {
  return { left: 56, right: width - 10, top: 8, bottom: height - 34 };
}

/**
 * The frequency that is drawn at x.
 * @param {State} state
 * @param {Element} canvas
 * @param {number} x
 */
export function frequencyAt({ number }, { clientWidth, clientHeight }, x) {
  const { left, right } = plot(clientWidth, clientHeight);
  return Math.min(number - 1, Math.max(0, Math.round(((x - left) / (right - left)) * (number - 1))));
}

/**
 * @param {Context} context
 * @param {Ink} ink
 * @param {[number, number]} size width and height
 * @param {{ticks: [number, string][], y(value: number): number, below: string}} axes
 */
function paintAxes(context, ink, [width, height], { ticks, y, below }) {
  const { left, right } = plot(width, height);
  context.font = ink.font;
  context.lineWidth = 1;
  context.strokeStyle = ink.line;
  context.fillStyle = ink.faint;
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const [value, text] of ticks) {
    context.fillText(text, left - 6, y(value));
    stroke(context, [[left, y(value)], [right, y(value)]]);
  }
  context.textAlign = "center";
  context.textBaseline = "bottom";
  context.fillText(below, (left + right) / 2, height);
}

/**
 * The numbers at both ends of the lower axis.
 * @param {Context} context
 * @param {Ink} ink
 * @param {number} top
 * @param {(readonly [number, number])[]} ends where the left and the right one stand, and what they say
 */
function writeEnds(context, ink, top, [[left, first], [right, last]]) {
  context.textBaseline = "top";
  context.fillStyle = ink.faint;
  context.textAlign = "left";
  context.fillText(String(first), left, top);
  context.textAlign = "right";
  context.fillText(String(last), right, top);
}

/**
 * @param {State} state
 * @param {Context} context
 * @param {number} width
 * @param {number} height
 * @param {Ink} ink
 */
export function paintSpectrum(state, context, width, height, ink) {
  const { angles, number, frequency } = state, { left, right, top, bottom } = plot(width, height);
  const high = Math.log10(angles.wavelength(number - 1)), low = Math.log10(angles.wavelength(0));
  const y = (/** @type {number} */ value) => bottom - ((Math.log10(value) - low) / (high - low || 1)) * (bottom - top);
  const x = (/** @type {number} */ index) => left + (number > 1 ? index / (number - 1) : 0.5) * (right - left);
  const shown = [10, 100, 1000, 10_000, 100_000].filter((value) => Math.log10(value) < high + 0.02);
  const ticks = shown.map((value) => /** @type {[number, string]} */ ([value, count(value)]));
  paintAxes(context, ink, [width, height], { ticks, y, below: "frequency, highest first" });
  const side = Math.max(state.data.rows, state.data.cols);
  if (Math.log10(side) > low) {
    context.strokeStyle = context.fillStyle = ink.accent;
    context.setLineDash([4, 4]);
    stroke(context, [[left, y(side)], [right, y(side)]]);
    context.setLineDash([]);
    context.textAlign = "right";
    context.fillText(`${side}: the longer side`, right, y(side) - 2);
  }
  for (let i = 0; i < number; i++) {
    context.fillStyle = i === frequency ? ink.accent : ink.faint;
    disc(context, x(i), y(angles.wavelength(i)), i === frequency ? 6 : 3.5);
  }
  writeEnds(context, ink, bottom + 5, [[x(0), 1], [x(number - 1), number]]);
}

/**
 * Likeness of the patches at every distance: the mean, and from the least to the most.
 * @param {State} state
 */
function likenessByDistance({ alike, row, col }) {
  /** @type {{low: number, high: number, sum: number, number: number}[]} */
  const bins = [];
  alike.forEach((line, r) => line.forEach((value, c) => {
    const distance = Math.round(Math.hypot(r - row, c - col));
    const bin = (bins[distance] ||= { low: 1, high: -1, sum: 0, number: 0 });
    bin.low = Math.min(bin.low, value);
    bin.high = Math.max(bin.high, value);
    bin.sum += value;
    bin.number++;
  }));
  return bins;
}

/**
 * @param {State} state
 * @param {Context} context
 * @param {number} width
 * @param {number} height
 * @param {Ink} ink
 */
export function paintDecay(state, context, width, height, ink) {
  const { left, right, top, bottom } = plot(width, height), bins = likenessByDistance(state);
  const low = Math.min(0.5, ...bins.map((bin) => bin.low)), far = Math.max(1, bins.length - 1);
  const x = (/** @type {number} */ distance) => left + (distance / far) * (right - left);
  const y = (/** @type {number} */ value) => bottom - ((value - low) / (1 - low)) * (bottom - top);
  const shown = [-1, -0.5, 0, 0.25, 0.5, 0.75, 1].filter((value) => value >= low);
  const ticks = shown.map((value) => /** @type {[number, string]} */ ([value, String(value)]));
  paintAxes(context, ink, [width, height], { ticks, y, below: "distance in patches" });
  context.fillStyle = ink.soft;
  context.beginPath();
  bins.forEach((bin, i) => context.lineTo(x(i), y(bin.high)));
  for (let i = bins.length - 1; i >= 0; i--) context.lineTo(x(i), y(bins[i].low));
  context.fill();
  context.strokeStyle = ink.accent;
  context.lineWidth = 2;
  stroke(context, bins.map((bin, i) => /** @type {const} */ ([x(i), y(bin.sum / bin.number)])));
  writeEnds(context, ink, bottom + 5, [[x(0), 0], [x(far), far]]);
}

/** @param {number} rows */
export function blocksHeight(rows) {
  return 8 + 31 * Math.min(rows, SHOWN_ROWS);
}

/**
 * The order in which the patches follow each other, in the first rows and columns.
 * @param {State} state
 * @param {Context} context
 * @param {number} width
 * @param {number} height
 * @param {Ink} ink
 */
export function paintBlocks(state, context, width, height, ink) {
  const { order, row, col } = state, { rows, cols, merge } = state.data;
  const shownRows = Math.min(rows, SHOWN_ROWS - (SHOWN_ROWS % merge));
  const shownCols = Math.min(cols, SHOWN_COLS - (SHOWN_COLS % merge));
  const side = Math.min(31, (width - 8) / shownCols, (height - 8) / shownRows);
  const at = (/** @type {number} */ r, /** @type {number} */ c) => /** @type {const} */ ([4 + c * side, 4 + r * side]);
  /** @type {[number, number, number][]} row, column and place in the order */
  const path = [];
  for (let place = 0; 2 * place < order.length; place++) {
    const [r, c] = [order[2 * place], order[2 * place + 1]];
    if (r < shownRows && c < shownCols) path.push([r, c, place]);
  }
  for (const [r, c] of path) {
    const even = (Math.floor(r / merge) + Math.floor(c / merge)) % 2 === 0;
    context.fillStyle = r === row && c === col ? ink.accent : even ? ink.soft : "transparent";
    context.fillRect(...at(r, c), side, side);
  }
  context.strokeStyle = ink.line;
  context.lineWidth = 1;
  for (let r = 0; r < shownRows; r += merge) {
    for (let c = 0; c < shownCols; c += merge) context.strokeRect(...at(r, c), side * merge, side * merge);
  }
  context.strokeStyle = ink.faint;
  context.globalAlpha = 0.55;
  path.forEach(([r, c, place], i) => {
    const [r0, c0, before] = path[i - 1] ?? [0, 0, -2];
    // The path is broken where it runs on outside of what is shown.
    if (place === before + 1) stroke(context, [at(r0 + 0.5, c0 + 0.5), at(r + 0.5, c + 0.5)]);
  });
  context.globalAlpha = 1;
  context.font = ink.font;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (const [r, c, place] of path) {
    context.fillStyle = r === row && c === col ? ink.onAccent : ink.text;
    if (side >= 22) context.fillText(String(place), ...at(r + 0.5, c + 0.5));
  }
}

/**
 * All frames, with every patch above and as they are below.
 * @param {State} state
 * @param {Language} language
 * @param {Context} context
 * @param {number} width
 * @param {number} _height
 * @param {Ink} ink
 */
export function paintTracks({ data, frame }, language, context, width, _height, ink) {
  const { first, last } = language.reach;
  const x = (/** @type {number} */ position) => ((position - first) / (last - first)) * width;
  for (let i = 0; i < data.frames; i++) {
    context.fillStyle = language.steps[i] === language.steps[frame] ? ink.accent : ink.faint;
    for (const [which, top] of /** @type {const} */ ([["before", 2], ["after", 32]])) {
      const found = language.extent(which, i);
      if (found) context.fillRect(x(found.first), top, Math.max(1, x(found.last + 1) - x(found.first) - 0.5), 24);
    }
  }
}

/**
 * The current frame and its neighbours token by token, and where each that is left has moved. As they are, the
 * frames begin further to the front: both rows start at the first of the three.
 * @param {State} state
 * @param {Language} language
 * @param {Context} context
 * @param {number} width
 * @param {number} _height
 * @param {Ink} ink
 */
export function paintNear({ frame }, { before, after, tokens, steps, extent }, context, width, _height, ink) {
  const here = steps[frame], from = Math.max(0, here - 1), to = Math.min(before.length / tokens - 1, here + 1);
  const first = before[from * tokens], last = before[(to + 1) * tokens - 1] + 1;
  const moved = first - (extent("after", steps.indexOf(from))?.first ?? first);
  const x = (/** @type {number} */ position) => ((position - first) / (last - first)) * width;
  const thick = Math.max(1, x(first + 1) - 0.5);
  context.lineWidth = 1;
  for (let i = from * tokens; i < (to + 1) * tokens; i++) {
    const kept = after[i] >= 0, above = x(before[i]), below = x(after[i] + moved);
    context.fillStyle = context.strokeStyle = Math.floor(i / tokens) === here ? ink.accent : ink.faint;
    context.globalAlpha = kept ? 1 : 0.22;
    context.fillRect(above, 2, thick, 24);
    if (!kept) continue;
    context.fillRect(below, 58, thick, 24);
    context.globalAlpha = 0.35;
    stroke(context, [[above + thick / 2, 27], [below + thick / 2, 57]]);
  }
  context.globalAlpha = 1;
}
