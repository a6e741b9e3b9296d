// @ts-check
// 2D-RoPE turns every patch by its row and its column; the language model counts on in one dimension.

import { make } from "../shared/dom.js";
import { clockTenths, count, short } from "../shared/format.js";
import { drawer, picture } from "./canvas.js";
import { scaleBar, twilight, viridis } from "./colours.js";
import { slider, sliderRow, table } from "./controls.js";
import {
  blocksHeight, frequencyAt, paintAlike, paintAngles, paintBlocks, paintDecay, paintNear, paintSpectrum, paintTracks,
} from "./positions_canvas.js";
import { languageOf, rope } from "./rope.js";
import { unpack } from "./unpack.js";

/**
 * @typedef {import("./mount.js").Emit} Emit
 * @typedef {import("./rope.js").PositionsData} PositionsData
 * @typedef {ReturnType<typeof languageOf>} Language
 * @typedef {ReturnType<typeof newState>} State
 * @typedef {object} View
 * @property {State} state
 * @property {ReturnType<typeof partsOf>} parts
 * @property {ReturnType<typeof drawer>} drawing
 * @property {Emit} [emit]
 */

const MAP_HEIGHT_PX = 300;

/**
 * @param {Element} el
 * @param {PositionsData} data
 * @param {Emit} [emit]
 */
export function positionsView(el, data, emit) {
  const state = newState(data), view = /** @type {View} */ ({ state, emit });
  view.parts = partsOf(view);
  const root = rootOf(view), { tracks, near, ...others } = view.parts.pictures;
  el.replaceChildren(root);
  const pictures = [...Object.values(others), ...(tracks && near ? [tracks, near] : [])];
  view.drawing = drawer(root, () => pictures.forEach((each) => each.draw()));
  refresh(view);
  released(view);
  return {
    /** @param {Record<string, any>} changes */
    follow(changes) {
      if (!("frame" in changes)) return;
      state.frame = Math.min(Math.max(0, changes.frame), data.frames - 1);
      refresh(view);
    },
    destroy: view.drawing.end,
  };
}

/** @param {PositionsData} data */
function newState(data) {
  const { rows, cols } = data, angles = rope(data), row = Math.floor(rows / 2), col = Math.floor(cols / 2);
  // The frequency to begin with: the last that turns once within half of the picture.
  const telling = angles.frequencies.findLastIndex((_, index) => angles.wavelength(index) <= Math.max(rows, cols) / 2);
  return {
    data, angles, row, col,
    number: angles.frequencies.length,
    order: unpack(data.order, Uint16Array), // row and column of every patch, in block order
    language: data.language && languageOf(data.language),
    frequency: Math.max(0, telling),
    frame: Math.min(data.frame || 0, data.frames - 1),
    alike: angles.similarity(row, col),
  };
}

/** @param {View} view */
function partsOf(view) {
  const { state } = view, { data } = state, { rows, cols, frames } = data, done = () => released(view);
  return {
    pictures: picturesOf(view),
    readout: make("p", { class: "readout" }),
    spoken: make("p", { class: "spoken", "aria-live": "polite" }),
    told: make("p", { class: "words" }),
    blockWords: make("p", { class: "words" }),
    alikeScale: make("p", { class: "legend" }),
    frequency: slider("Frequency", state.number - 1, (value) => {
      state.frequency = value;
      refresh(view);
    }, done),
    row: slider("Row", rows - 1, (row) => pick(view, row, state.col), done),
    col: slider("Column", cols - 1, (col) => pick(view, state.row, col), done),
    frame: slider("Frame", frames - 1, (index) => goTo(view, index), done),
    waves: table("Show wavelengths as table", "Wavelength of every frequency", () => waveRows(state)),
    spans: state.language && table("Show as table", "Positions of every frame", () => spanRows(state)),
  };
}

/** @param {View} view */
function picturesOf(view) {
  const { state } = view, { rows, cols } = state.data;
  const mapSize = `width: min(100%, ${Math.round((MAP_HEIGHT_PX * cols) / rows)}px); aspect-ratio: ${cols} / ${rows}`;
  const onMap = { class: "pick map", onclick: (/** @type {MouseEvent} */ event) => pickPatch(view, event) };
  const onWaves = { class: "pick", onclick: (/** @type {MouseEvent} */ event) => pickFrequency(view, event) };
  const onTracks = { class: "pick", onclick: (/** @type {MouseEvent} */ event) => pickFrame(view, event) };
  const { language } = state;
  return {
    rows: picture(mapSize, (...args) => paintAngles(state, "row", ...args), onMap),
    cols: picture(mapSize, (...args) => paintAngles(state, "col", ...args), onMap),
    alike: picture(mapSize, (...args) => paintAlike(state, ...args), onMap),
    spectrum: picture("height: 190px", (...args) => paintSpectrum(state, ...args), onWaves),
    decay: picture("height: 190px", (...args) => paintDecay(state, ...args)),
    blocks: picture(`height: ${blocksHeight(rows)}px`, (...args) => paintBlocks(state, ...args)),
    tracks: language && picture("height: 58px", (...args) => paintTracks(state, language, ...args), onTracks),
    near: language && picture("height: 84px", (...args) => paintNear(state, language, ...args)),
  };
}

/** @param {View} view */
function rootOf({ state, parts }) {
  const { pictures } = parts, { language } = state;
  const figure = (/** @type {string} */ title, /** @type {Element[]} */ ...inside) =>
    make("div", { class: "figure" }, make("h3", {}, title), ...inside);
  return make("section", { class: "vl3-look positions", "aria-label": "Positions" },
    make("div", { class: "top" }, parts.readout), parts.spoken,
    make("div", { class: "row wide" }, ...[parts.frequency, parts.row, parts.col].map((each) => sliderRow(each))),
    make("div", { class: "figures" },
      figure("Angle from the row", pictures.rows.canvas),
      figure("Angle from the column", pictures.cols.canvas,
        make("p", { class: "legend" }, scaleBar(twilight, "0", "2π", "Angle"))),
      figure("Likeness to the chosen patch", pictures.alike.canvas, parts.alikeScale),
      figure("Wavelength of each frequency", pictures.spectrum.canvas),
      figure("Likeness and distance", pictures.decay.canvas),
      figure("Order of the patches", pictures.blocks.canvas, parts.blockWords)),
    parts.waves.node,
    ...(language ? languageParts(state, language, parts) : []));
}

/**
 * @param {State} state
 * @param {Language} language
 * @param {View["parts"]} parts
 */
function languageParts({ data }, language, { frame, pictures, told, spans }) {
  const words = (/** @type {string} */ text) => make("p", { class: "words" }, text);
  const last = count(language.reach.last - 1);
  return [
    make("h3", {}, "Positions in the language model"),
    ...(data.frames < 2 ? [] : [
      sliderRow(frame),
      words(`All frames: above with every patch, to position ${last}; below as they are.`), pictures.tracks?.canvas,
      words("This frame and its neighbours: removed patches are pale, gaps hold the words between."),
      pictures.near?.canvas,
    ]),
    told, spans?.node,
  ];
}

// What a person does

/**
 * @param {View} view
 * @param {number} row
 * @param {number} col
 */
function pick(view, row, col) {
  const { state } = view;
  [state.row, state.col] = [row, col];
  state.alike = state.angles.similarity(row, col);
  refresh(view);
}

/**
 * @param {View} view
 * @param {MouseEvent} event
 */
function pickPatch(view, { target, offsetX, offsetY }) {
  const { clientWidth, clientHeight } = /** @type {Element} */ (target), { rows, cols } = view.state.data;
  /** @type {(offset: number, size: number, number: number) => number} */
  const at = (offset, size, number) => Math.min(number - 1, Math.max(0, Math.floor((offset / size) * number)));
  pick(view, at(offsetY, clientHeight, rows), at(offsetX, clientWidth, cols));
  released(view);
}

/**
 * @param {View} view
 * @param {MouseEvent} event
 */
function pickFrequency(view, { target, offsetX }) {
  view.state.frequency = frequencyAt(view.state, /** @type {Element} */ (target), offsetX);
  refresh(view);
  released(view);
}

/**
 * @param {View} view
 * @param {number} index
 */
function goTo(view, index) {
  if (index === view.state.frame) return;
  view.state.frame = index;
  refresh(view);
  view.emit?.("frame", index);
}

/**
 * @param {View} view
 * @param {MouseEvent} event
 */
function pickFrame(view, { target, offsetX }) {
  const { language, data } = view.state;
  if (!language) return;
  const { first, last } = language.reach;
  const position = first + (offsetX / /** @type {Element} */ (target).clientWidth) * (last - first);
  const starts = Array.from({ length: data.frames }, (_, i) => language.before[language.steps[i] * language.tokens]);
  const start = starts.findLast((each) => each <= position) ?? starts[0];
  goTo(view, starts.indexOf(start));
  released(view);
}

// What it says

/** @param {View} view */
function refresh(view) {
  const { state, parts } = view, { data, angles, row, col, frequency, number, frame } = state;
  const wave = short(angles.wavelength(frequency)), place = `frequency ${frequency + 1} of ${number}`;
  parts.frequency.input.value = String(frequency);
  parts.frequency.input.setAttribute("aria-valuetext", `${frequency + 1} of ${number}, wavelength ${wave} patches`);
  parts.row.input.value = String(row);
  parts.col.input.value = String(col);
  parts.frame.input.value = String(frame);
  parts.frame.input.setAttribute("aria-valuetext", `${frame + 1} of ${data.frames}`);
  const patch = `Patch row ${row}, column ${col} of ${data.rows} × ${data.cols}`;
  parts.readout.textContent = `${patch} · ${place} · repeats after ${wave} patches`;
  if (state.language) parts.told.textContent = languageWords(state, state.language);
  view.drawing.ask();
}

/**
 * What pictures show, for those who hear it: on release and not while something is dragged.
 * @param {View} view
 */
function released({ state, parts }) {
  const { data, angles, row, col, frequency, number, language, frame } = state, { merge } = data, { pictures } = parts;
  const down = short(angles.rowAngles[row * number + frequency]);
  const across = short(angles.colAngles[col * number + frequency]);
  const least = short(Math.min(...state.alike.flat()));
  const wave = (/** @type {number} */ index) => short(angles.wavelength(index));
  const turned = `turned by ${down} for its row and ${across} for its column`;
  parts.spoken.textContent = `${parts.readout.textContent} · ${turned}`;
  /** @type {(picture: import("./canvas.js").Picture | null, text: string) => void} */
  const say = (each, text) => each?.canvas.setAttribute("aria-label", text);
  say(pictures.rows, `Row angles at frequency ${frequency + 1}: ${down} radians in row ${row}`);
  say(pictures.cols, `Column angles at frequency ${frequency + 1}: ${across} radians in column ${col}`);
  say(pictures.alike, `Likeness of every patch to row ${row}, column ${col}: from ${least} to 1 at the patch itself`);
  const ends = `from ${wave(0)} to ${wave(number - 1)} patches`;
  say(pictures.spectrum, `Wavelengths of ${number} frequencies, ${ends}; chosen ${wave(frequency)}`);
  say(pictures.decay, `Likeness falls with distance, from 1 to ${least}`);
  say(pictures.blocks, `Order of the patches: ${merge} × ${merge} neighbours follow each other`);
  if (language) {
    say(pictures.tracks, languageWords(state, language));
    say(pictures.near, `Frame ${frame + 1} and its neighbours, token by token`);
  }
  parts.alikeScale.replaceChildren(scaleBar(viridis, least, "1", "Mean cosine"));
  parts.blockWords.textContent = blockWords(state);
  parts.waves.fill();
  parts.spans?.fill();
}

/** @param {State} state */
function blockWords({ data, order, row, col }) {
  let place = 0;
  while (order[2 * place] !== row || order[2 * place + 1] !== col) place++;
  if (data.merge === 1) return `Row after row: the chosen patch is number ${place}.`;
  const neighbours = `${data.merge} × ${data.merge} neighbours, which become one token, follow each other`;
  const token = count(Math.floor(place / data.merge ** 2));
  return `${neighbours}: the chosen patch is number ${count(place)}, its token number ${token} of its frame.`;
}

/**
 * @param {State} state
 * @param {Language} language
 */
function languageWords({ data, frame }, language) {
  const before = language.extent("before", frame), after = language.extent("after", frame);
  const name = data.times_s ? `Frame ${frame + 1} at ${clockTenths(data.times_s[frame])}` : "The image";
  /** @type {(found: typeof before) => string} */
  const range = (found) => (found ? `${count(found.first)} to ${count(found.last)}` : "");
  if (data.frames === 1) return `${name}: positions ${range(before)}.`;
  const left = after ? `${range(after)} for the ${count(after.number)} that are left` : "none of them is left";
  const stamp = frame && data.times_s
    ? ` Between it and the frame before stand ${language.wordsBefore(frame)} positions of words, its time stamp.` : "";
  return `${name}: positions ${range(before)} with every patch, ${left}.${stamp}`;
}

/** @param {State} state */
function waveRows({ angles }) {
  return [["Frequency", "Radians per patch", "Wavelength in patches"],
    ...Array.from(angles.frequencies, (step, i) => [i + 1, step.toPrecision(4), short(angles.wavelength(i))])];
}

/** @param {State} state */
function spanRows({ data, language }) {
  /** @type {(string | number)[][]} */
  const rows = [["Frame", "Words before it", "With every patch", "As it is", "Kept"]];
  for (let frame = 0; language && frame < data.frames; frame++) {
    const before = language.extent("before", frame), after = language.extent("after", frame);
    /** @type {(found: typeof before) => string} */
    const range = (found) => (found ? `${found.first}–${found.last}` : "–");
    rows.push([frame + 1, language.wordsBefore(frame), range(before), range(after), after?.number ?? 0]);
  }
  return rows;
}
