// @ts-check
// The elements of the attention view. What they do is the view's; here is only what there is, and where.

import { button, make } from "../shared/dom.js";
import { matrixHeight, paintMatrix } from "./attention_canvas.js";
import { listenedTo } from "./attention_sound.js";
import { patchPlace, SOURCES } from "./attention_state.js";
import { aloneWords, frameRows, tokenText, wordRows } from "./attention_text.js";
import { picture } from "./canvas.js";
import { choice, radios, slider, sliderRow, table } from "./controls.js";

/**
 * @typedef {import("./attention_maps.js").Place} Place
 * @typedef {import("./attention_state.js").State} State
 * @typedef {object} Actions what a person can do
 * @property {(index: number) => void} lock chooses a token
 * @property {(index: number | null) => void} preview
 * @property {() => void} play
 * @property {(frame: number, medium?: number) => void} goTo
 * @property {() => void} goToStrongest
 * @property {(event: MouseEvent) => void} pickTotal
 * @property {(place: Place | null) => void} choosePatch
 * @property {(event: MouseEvent) => void} pickPatch
 * @property {(event: MouseEvent | null) => void} pointAt
 * @property {(event: MouseEvent) => void} pickCell
 * @property {(event: MouseEvent) => void} pointAtCell
 * @property {(changes: Partial<State>) => void} set what the weights depend on
 * @property {(changes: Partial<State>) => void} setLooks what only their colours depend on
 * @property {(layer: number) => void} setLayer
 * @property {(head: number | null) => void} setHead null for the mean of all
 * @property {() => void} released nothing is dragged any more
 * @property {import("./canvas.js").Paint} paintTotals
 * @typedef {ReturnType<typeof partsOf>} Parts
 */

/**
 * @param {State} state
 * @param {Actions} act
 */
export function partsOf(state, act) {
  const { released } = act;
  const tokens = state.words.map((word, index) => button(tokenText(word), () => act.lock(index), {
    class: "token", "data-token": index, tabindex: -1,
    onfocus: () => act.preview(index), onblur: () => act.preview(null), onpointerenter: () => act.preview(index),
  }));
  return {
    ...lines(), ...pictures(state, act), tokens, heard: listenedTo(state.sounds, state.split),
    strip: make("div", { class: "answer", role: "group", "aria-label": "Tokens of the answer",
      onpointerleave: () => act.preview(null) }, ...grouped(state.words, tokens)),
    play: button("Play", act.play, { class: "play", title: "Step through the answer (arrow keys)" }),
    frame: slider("Frame", 1, (index) => act.goTo(index), released),
    opacity: slider("Opacity", 100, (value) => act.setLooks({ opacity: value / 100 }), released),
    ...choices(state, act),
    layer: slider("Layer", 1, act.setLayer, released),
    heads: make("div", { class: "heads", role: "group", "aria-label": "Heads, most of the picture first" }),
    row: slider("Patch row", 1, (row) => act.choosePatch({ ...patchPlace(state), row }), released),
    col: slider("Patch column", 1, (col) => act.choosePatch({ ...patchPlace(state), col }), released),
    perFrame: table("Show as table", "Share of every frame", () => frameRows(state)),
    perWord: table("Show tokens as table", "Share of every token", () => wordRows(state)),
  };
}

function lines() {
  return {
    readout: make("p", { class: "readout" }),
    spoken: make("p", { class: "spoken", "aria-live": "polite" }),
    note: make("p", { class: "words note" }),
    tinted: make("p", { class: "words" }),
    legend: make("p", { class: "legend" }),
    under: make("output", { class: "under" }),
    sinkWords: make("span", {}),
    layerWords: make("output", { class: "levels" }),
    matrixScale: make("span", {}),
    patchWords: make("p", { class: "words" }),
  };
}

/**
 * @param {State} state
 * @param {Actions} act
 */
function pictures(state, act) {
  return {
    totals: picture("height: 118px", act.paintTotals, { class: "bars totals", onclick: act.pickTotal }),
    canvas: make("canvas", { role: "img", class: "frame pick", onclick: act.pickPatch, onpointermove: act.pointAt,
      onpointerleave: () => act.pointAt(null) }),
    matrix: picture(`height: ${matrixHeight(state)}px`, (...args) => paintMatrix(state, ...args),
      { class: "pick matrix", onclick: act.pickCell, onpointermove: act.pointAtCell }),
  };
}

/**
 * @param {State} state
 * @param {Actions} act
 */
function choices({ media, medium, source, scaledBy, offered }, act) {
  const titles = media.map((each, index) =>
    /** @type {const} */ ([index, `${index + 1}: ${each.source || (each.times_s ? "video" : "image")}`]));
  const media_ = media.length < 2 ? null : choice("Picture", titles, medium, (index) => {
    act.goTo(0, Number(index));
    act.released();
  });
  const sources = choice("Source", SOURCES, source, (name) => {
    act.set({ source: name });
    act.released();
  });
  for (const option of sources.select.options) option.disabled = !offered.has(option.value);
  const scale = radios("Scale", [["frame", "Per frame"], ["clip", "Whole clip"]], scaledBy, (name) => {
    act.setLooks({ scaledBy: name });
    act.released();
  });
  const sinks = make("input", { type: "checkbox", onchange: () => {
    act.set({ hidesSinks: sinks.checked });
    act.released();
  } });
  const noPatch = button("No patch", () => {
    act.choosePatch(null);
    act.released();
  });
  return { medium: media_, source: sources, scale, sinks, noPatch };
}

/**
 * Tokens by word: those without a space between them stand close together.
 * @param {string[]} words
 * @param {Element[]} tokens
 */
function grouped(words, tokens) {
  /** @type {Element[]} */
  const groups = [];
  words.forEach((word, index) => {
    if (index === 0 || /^\s/.test(word) || /\s$/.test(words[index - 1])) groups.push(make("span", { class: "word" }));
    groups[groups.length - 1].append(tokens[index]);
  });
  return groups;
}

/**
 * @param {State} state
 * @param {Parts} parts
 * @param {Actions} act
 */
export function rootOf(state, parts, act) {
  const seesPictures = state.media.length > 0;
  return make("section", { class: "vl3-look attention", "aria-label": "Attention" },
    make("div", { class: "top" }, parts.readout), parts.spoken,
    make("p", { class: "words caption" }, "Attention shows where information was read, not why the answer was given."),
    make("div", { class: "row said" }, parts.play, parts.strip),
    parts.tinted, parts.note, parts.heard?.node,
    seesPictures ? make("div", { class: "halves" }, mainHalf(parts, act), sideHalf(state, parts)) : null,
    seesPictures ? parts.perFrame.node : null, parts.perWord.node);
}

/**
 * @param {Parts} parts
 * @param {Actions} act
 */
function mainHalf(parts, act) {
  const { frame } = parts;
  return make("div", { class: "main" },
    parts.totals.canvas, parts.canvas, parts.legend, parts.under, parts.medium?.node,
    make("div", { class: "row" }, frame.label, frame.input, button("Strongest frame", act.goToStrongest)),
    sliderRow(parts.opacity),
    make("h3", {}, "From a patch to the tokens"),
    make("div", { class: "row wide places" }, sliderRow(parts.row), sliderRow(parts.col), parts.noPatch),
    parts.patchWords);
}

/**
 * @param {State} state
 * @param {Parts} parts
 */
function sideHalf(state, parts) {
  const { layer } = parts;
  return make("div", { class: "side" },
    parts.source.node, state.canAsk ? null : make("p", { class: "words" }, aloneWords(state)),
    make("div", { class: "threshold" }, layer.label, parts.layerWords, make("div", { class: "row" }, layer.input)),
    parts.heads,
    make("h3", {}, `Share of attention on the ${state.where}: layer by head`), parts.matrix.canvas,
    make("p", { class: "legend" }, parts.matrixScale,
      make("span", {}, "layers down, heads across, counted from 0; click one to see it")),
    make("div", { class: "pair" }, parts.scale, make("label", { class: "check" }, parts.sinks, parts.sinkWords)));
}
