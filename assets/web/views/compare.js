// @ts-check
// Two answers to one question: what each of them saw at the same moment, said, and cost.

import { button, make } from "../shared/dom.js";
import { clockTenths, count, duration, NO_BREAK, percent, short } from "../shared/format.js";
import {
  contextOf, coverRemoved, drawer, fitCells, framesOf, outline, paintKeptBars, picture, pixelRatio, ratioOf,
} from "./canvas.js";
import { swatch } from "./colours.js";
import { choice, slider, table } from "./controls.js";
import { PLACEHOLDER, REMOVED } from "./pruning_rule.js";
import { unpack } from "./unpack.js";

/**
 * @typedef {import("./canvas.js").Box} Box
 * @typedef {import("./canvas.js").DrawFrame} DrawFrame
 * @typedef {import("./mount.js").Emit} Emit
 * @typedef {{source: string, times_s: number[] | null, frames: number, token_rows: number, token_cols: number,
 *   kept: number[], state: string, sheet: number}} Medium
 * @typedef {{name: string, media: Medium[], answer: [boolean, string][], stopped: boolean, truncated: boolean,
 *   notes: string[]}} Side
 * @typedef {{name: string, unit: string, values: [number, number]}} Cost
 * @typedef {{view: "compare", question: string, sides: Side[], sheets: import("./canvas.js").Sheet[], rows: Cost[],
 *   frame: number}} CompareData of vl3/viz/compare.py
 * @typedef {ReturnType<typeof newState>} State
 * @typedef {object} View
 * @property {State} state
 * @property {ReturnType<typeof panelOf>[]} panels
 * @property {ReturnType<typeof partsOf>} parts
 * @property {ReturnType<typeof drawer>} drawing
 * @property {Emit} [emit]
 * @property {number} timer of playing
 */

const LETTERS = ["A", "B"];
const SAME_MOMENT_S = 1e-6;
const STEP_MS = 125;

/**
 * @param {Element} el
 * @param {CompareData} data
 * @param {Emit} [emit]
 */
export function compareView(el, data, emit) {
  const state = newState(data), seesPictures = state.number > 0;
  const view = /** @type {View} */ ({ state, emit, timer: 0 });
  view.panels = seesPictures ? data.sides.map((_, side) => panelOf(view, side)) : [];
  view.parts = partsOf(view);
  const root = rootOf(view);
  el.replaceChildren(root);
  view.drawing = drawer(root, () => view.panels.forEach((panel) => drawPanel(state, panel)));
  state.drawFrame = data.sheets.map((sheet) => framesOf(sheet, view.drawing.ask));
  if (seesPictures) begin(view);
  return {
    /** @param {Record<string, any>} changes */
    follow(changes) {
      if (!("frame" in changes) || state.medium !== 0 || !seesPictures) return;
      state.moment = momentOf(state, 0, changes.frame);
      refresh(view);
    },
    destroy() {
      clearInterval(view.timer);
      view.drawing.end();
    },
  };
}

/** @param {CompareData} data */
function newState(data) {
  const state = {
    data, sides: data.sides, medium: 0, moment: 0,
    number: data.sides[0].media.length,
    moments: momentsOf(data.sides, 0),
    drawFrame: /** @type {DrawFrame[]} */ ([]), // of every sheet
  };
  state.moment = momentOf(state, 0, data.frame || 0);
  return state;
}

/**
 * The times at which either run has a frame. Each shows its last frame until then.
 * @param {Side[]} sides
 * @param {number} medium
 */
function momentsOf(sides, medium) {
  const times = sides.flatMap(({ media }) => media[medium]?.times_s ?? [0]).sort((a, b) => a - b);
  return times.filter((time_s, i) => i === 0 || time_s - times[i - 1] > SAME_MOMENT_S);
}

/**
 * @param {State} state
 * @param {number} side
 */
function frameOf({ sides, medium, moments, moment }, side) {
  const { times_s } = sides[side].media[medium];
  return times_s ? Math.max(0, times_s.findLastIndex((time_s) => time_s <= moments[moment] + SAME_MOMENT_S)) : 0;
}

/**
 * @param {Pick<State, "sides" | "medium" | "moments">} state
 * @param {number} side
 * @param {number} frame
 */
function momentOf({ sides, medium, moments }, side, frame) {
  const times_s = sides[side].media[medium]?.times_s;
  if (!times_s) return 0;
  const time_s = times_s[Math.min(Math.max(0, frame), times_s.length - 1)];
  return moments.findIndex((each) => each > time_s - SAME_MOMENT_S);
}

/** @param {View} view */
function partsOf(view) {
  const { state } = view;
  const titles = state.sides[0].media.map(({ source }, i) =>
    /** @type {const} */ ([i, `${i + 1}: ${source || "picture"}`]));
  return {
    readout: make("p", { class: "readout" }),
    spoken: make("p", { class: "spoken", "aria-live": "polite" }),
    play: button("Play", () => toggle(view), { class: "play" }),
    moving: slider("Frame", 0, (moment) => goTo(view, moment), () => released(view)),
    legend: make("p", { class: "legend" }),
    perFrame: table("Show kept patches as table", "Kept patches of every frame", () => frameRows(state)),
    which: state.number > 1 ? choice("Clip or image", titles, 0, (medium) => pickMedium(view, Number(medium))) : null,
  };
}

/** @param {View} view */
function rootOf(view) {
  const { state, panels, parts } = view, { data, number } = state, { moving } = parts;
  const controls = make("div", { class: "row" }, parts.play, moving.label, moving.input);
  return make("section", { class: "vl3-look compare", "aria-label": "Compare",
    onkeydown: (/** @type {KeyboardEvent} */ event) => keyed(view, event) },
  data.question ? make("p", { class: "asked" }, data.question) : null,
  number ? make("div", { class: "top" }, parts.readout) : null, parts.spoken, parts.which?.node,
  make("div", { class: "both" }, ...panels.map(({ node }) => node)),
  ...(number ? [parts.legend, controls, parts.perFrame.node] : []),
  make("h3", {}, "Answers"), make("div", { class: "both answers" }, ...data.sides.map(answerOf)),
  make("p", { class: "words" }, differenceWords(data.sides)),
  make("h3", {}, "Tokens, time, memory"), costsOf(data));
}

// What a person does

/** @param {View} view */
function begin(view) {
  const { state, panels, parts } = view, { input } = parts.moving;
  const controls = /** @type {HTMLElement} */ (input.parentElement);
  input.max = String(state.moments.length - 1);
  controls.hidden = state.moments.length === 1;
  panels.forEach((panel) => showMedium(state, panel));
  const isMarked = (/** @type {number} */ mark) => panels.some(({ states }) => states.includes(mark));
  parts.legend.replaceChildren(
    ...(isMarked(REMOVED) ? [swatch("removed", "removed")] : []),
    ...(isMarked(PLACEHOLDER) ? [swatch("placeholder", "placeholder, kept so that no frame is empty")] : []));
  refresh(view);
  released(view);
}

/**
 * @param {View} view
 * @param {number} medium
 */
function pickMedium(view, medium) {
  const { state } = view;
  [state.medium, state.moment] = [medium, 0];
  state.moments = momentsOf(state.sides, medium);
  begin(view);
}

/**
 * @param {View} view
 * @param {number} moment
 */
function goTo(view, moment) {
  const { state } = view;
  if (moment === state.moment || moment < 0 || moment >= state.moments.length) return;
  const before = frameOf(state, 0);
  state.moment = moment;
  refresh(view);
  const frame = frameOf(state, 0);
  if (state.medium === 0 && frame !== before) view.emit?.("frame", frame);
}

/**
 * @param {View} view
 * @param {KeyboardEvent} event
 */
function keyed(view, event) {
  const direction = { ",": -1, ".": 1 }[event.key];
  if (!direction || /** @type {Element} */ (event.target).matches("input, select, summary")) return;
  event.stopPropagation(); // the page would move its player as well, which then moves this
  goTo(view, view.state.moment + direction);
  released(view);
}

/** @param {View} view */
function toggle(view) {
  const { state } = view, runs = view.timer !== 0;
  clearInterval(view.timer);
  view.timer = runs ? 0 : window.setInterval(() => goTo(view, (state.moment + 1) % state.moments.length), STEP_MS);
  view.parts.play.textContent = runs ? "Play" : "Pause";
  released(view);
}

// What it says

/** @param {State} state */
function keptHere(state) {
  const { sides, medium } = state;
  const [[a, ofA], [b, ofB]] = sides.map(({ media }, side) =>
    [media[medium].kept[frameOf(state, side)], tokensOf(media[medium])]);
  if (ofA === ofB) return `kept ${count(a)} in A, ${count(b)} in B, of ${count(ofA)}`;
  return `kept ${count(a)} of ${count(ofA)} in A, ${count(b)} of ${count(ofB)} in B`;
}

/** @param {State} state */
function summary(state) {
  const { sides, medium, moment, moments } = state;
  if (sides[0].media[medium].times_s === null) return `Image · ${keptHere(state)}`;
  return `Frame ${moment + 1} of ${moments.length} · ${clockTenths(moments[moment])} · ${keptHere(state)}`;
}

/** @param {View} view */
function refresh({ state, parts, drawing }) {
  const { moment, moments } = state, { input } = parts.moving;
  parts.readout.textContent = summary(state);
  input.value = String(moment);
  input.setAttribute("aria-valuetext", `${moment + 1} of ${moments.length} · ${clockTenths(moments[moment])}`);
  drawing.ask();
}

/**
 * What pictures show, for those who hear it: on release and not while something is dragged.
 * @param {View} view
 */
function released({ state, panels, parts }) {
  parts.spoken.textContent = summary(state);
  panels.forEach((panel) => describePanel(state, panel));
  parts.perFrame.fill();
}

/** @param {State} state */
function frameRows(state) {
  const { sides, medium, moments } = state, isImage = sides[0].media[medium].times_s === null;
  const rows = moments.map((time_s, moment) => [moment + 1, ...(isImage ? [] : [clockTenths(time_s)]),
    ...sides.map(({ media }, side) => media[medium].kept[frameOf({ ...state, moment }, side)])]);
  return [["Frame", ...(isImage ? [] : ["Time"]), ...LETTERS.map((letter) => `Kept in ${letter}`)], ...rows];
}

/**
 * @param {Side} run
 * @param {number} side
 */
function answerOf({ name, answer, stopped, truncated, notes }, side) {
  const words = answer.flatMap(([isOnly, text]) => (isOnly ? marked(text) : [text]));
  const after = [stopped && "Stopped before its end.", truncated && "Cut off at the longest answer allowed.", ...notes];
  return make("article", { "aria-label": `Answer ${LETTERS[side]}` }, sideName(name, side),
    make("p", { class: "text" }, ...(words.length ? words : ["(no answer)"])),
    ...after.map((text) => (text ? make("p", { class: "words" }, text) : null)));
}

/**
 * A word that is in one answer only; the space before it stays unmarked.
 * @param {string} text
 */
function marked(text) {
  const word = text.trimStart();
  return [text.slice(0, text.length - word.length), make("mark", {}, word)];
}

/** @param {Side[]} sides */
function differenceWords(sides) {
  const differ = sides.some(({ answer }) => answer.some(([isOnly]) => isOnly));
  return differ ? "Underlined words are in one answer only." : "Both answers are the same, word for word.";
}

/** @param {CompareData} data */
function costsOf({ sides, rows }) {
  const heads = sides.map(({ name }, side) =>
    make("th", { scope: "col" }, letterOf(side), make("span", { class: "long" }, name)));
  const lines = rows.map(({ name, unit, values: [a, b] }) => make("tr", {}, make("th", { scope: "row" }, name),
    make("td", {}, amount(a, unit)), make("td", {}, amount(b, unit)), make("td", { class: "ratio" }, timesMore(a, b))));
  const head = make("tr", {}, make("td", {}), ...heads, make("th", { scope: "col" }, "B : A"));
  return make("div", { class: "costs" },
    make("table", { "aria-label": "Tokens, time and memory of both runs" },
      make("thead", {}, head), make("tbody", {}, ...lines)),
    make("p", { class: "words" }, "A clip that both see is read and encoded once; its time stands in both columns."));
}

/**
 * @param {number} value
 * @param {string} unit
 */
function amount(value, unit) {
  if (unit === "s") return duration(value);
  if (unit !== "bytes") return count(value);
  return value >= 1e9 ? `${(value / 1e9).toFixed(2)}${NO_BREAK}GB` : `${Math.round(value / 1e6)}${NO_BREAK}MB`;
}

/**
 * @param {number} a
 * @param {number} b
 */
function timesMore(a, b) {
  if (a === b) return "same";
  if (!(a > 0)) return "–";
  return `${b / a < 10 ? (b / a).toFixed(2) : short(b / a)}${NO_BREAK}×`;
}

/** @param {number} side */
function letterOf(side) {
  return make("b", { class: "letter" }, LETTERS[side]);
}

/**
 * @param {string} name
 * @param {number} side
 */
function sideName(name, side) {
  return make("p", { class: "side-name" }, letterOf(side), name);
}

/** @param {Medium} medium */
function tokensOf({ token_rows, token_cols }) {
  return token_rows * token_cols;
}

// Pictures: a panel for each side, with its frame and the bars of all frames

/** @typedef {ReturnType<typeof panelOf>} Panel */

/**
 * @param {View} view
 * @param {number} side
 */
function panelOf(view, side) {
  const { state } = view, { name, media } = state.sides[side];
  const canvas = make("canvas", { role: "img", class: "frame" }), told = make("p", { class: "words" });
  const bars = picture("height: 64px", (context, width, height, ink) => {
    const { kept } = panel.shown;
    const box = /** @type {const} */ ([0, 0, width, height - 10]);
    paintKeptBars(context, ink, box, { kept, tokens: tokensOf(panel.shown), frame: frameOf(state, side) });
  }, { class: "bars", onclick: (/** @type {MouseEvent} */ { offsetX }) => {
    const frame = Math.floor((offsetX / bars.canvas.clientWidth) * panel.shown.frames);
    goTo(view, momentOf(state, side, frame));
    released(view);
  } });
  const node = make("div", { class: "panel" }, sideName(name, side), canvas, told, bars.canvas);
  const panel = { side, name, node, canvas, told, bars, shown: media[0], states: new Uint8Array(0) };
  return panel;
}

/**
 * @param {State} state
 * @param {Panel} panel
 */
function showMedium({ sides, medium, data }, panel) {
  const shown = panel.shown = sides[panel.side].media[medium];
  panel.states = unpack(shown.state, Uint8Array);
  panel.canvas.style.setProperty("--ratio", ratioOf(data.sheets[shown.sheet]));
  panel.bars.canvas.hidden = shown.frames === 1;
  const total = shown.kept.reduce((sum, each) => sum + each, 0), all = shown.frames * tokensOf(shown);
  panel.told.textContent = `kept ${count(total)} of ${count(all)} (${percent(total / all)})`;
}

/**
 * @param {State} state
 * @param {Panel} panel
 */
function describePanel(state, { side, name, canvas, bars, shown }) {
  const frame = frameOf(state, side), tokens = tokensOf(shown), letter = LETTERS[side];
  const here = `frame ${frame + 1} of ${shown.frames}, kept ${shown.kept[frame]} of ${tokens}`;
  canvas.setAttribute("aria-label", `${letter}, ${name}: ${shown.source || "clip"}, ${here}`);
  const [least, best] = [Math.min(...shown.kept), Math.max(...shown.kept)];
  bars.canvas.setAttribute("aria-label",
    `${letter}: kept patches of every frame, between ${least} and ${best} of ${tokens}`);
}

/**
 * The frame with its removed patches dimmed and hatched, and placeholders outlined; and the bars.
 * @param {State} state
 * @param {Panel} panel
 */
function drawPanel(state, { side, canvas, bars, shown, states }) {
  const { token_rows: rows, token_cols: cols, sheet } = shown, frame = frameOf(state, side), tokens = rows * cols;
  const { width, height } = fitCells(canvas, rows, cols, Number(ratioOf(state.data.sheets[sheet])));
  const context = contextOf(canvas, { willReadFrequently: true });
  state.drawFrame[sheet](context, frame, 0, 0, width, height);
  const [across, down] = [width / cols, height / rows], here = states.subarray(frame * tokens, (frame + 1) * tokens);
  const boxes = Array.from(here, (_, token) =>
    /** @type {Box} */ ([(token % cols) * across, Math.floor(token / cols) * down, across, down]));
  const removed = new Path2D();
  boxes.forEach((box, token) => {
    if (here[token] === REMOVED) removed.rect(...box);
  });
  coverRemoved(context, removed);
  context.lineWidth = Math.max(2, Math.round(2 * pixelRatio()));
  boxes.forEach((box, token) => {
    if (here[token] === PLACEHOLDER) outline(context, box);
  });
  if (!bars.canvas.hidden) bars.draw();
}
