// @ts-check
// What the attention view says in words; each function gives a text, or the rows of a table.

import { clockTenths, percent, smallPercent } from "../shared/format.js";
import { most } from "./attention_maps.js";
import {
  frameNumber, isHidden, mapsFrom, patchSlot, readOfPatch, shareAt, SOURCES, wordShare,
} from "./attention_state.js";

/**
 * @typedef {import("./attention_state.js").State} State
 * @typedef {import("./attention_state.js").Place} Place
 * @typedef {ReturnType<typeof readOfPatch>} Read
 */

/** @type {Record<string, string>} */
export const MEASURES = {
  language: "attention", mean: "attention", rollout: "rollout", relevancy: "relevancy", vision: "attention",
};

/** @type {Record<string, string>} */
const JOINED = { mean: "mean of layers", rollout: "rollout", relevancy: "gradient relevancy" };

/** @param {string} source */
function titleOf(source) {
  return SOURCES.find(([name]) => name === source)?.[1] ?? source;
}

/** @param {string} word */
export function tokenText(word) {
  return word.trim() || (word.includes("\n") ? "↵" : word ? "␣" : "·");
}

/** @param {string} word */
function quoted(word) {
  return word.trim() ? `“${word.trim()}”` : word ? "a space" : "no text of its own";
}

/** @param {State} state */
function sourceWords({ shown, heads, layers }) {
  if (shown.source in JOINED) return JOINED[shown.source];
  const head = heads[shown.source];
  const of = shown.source === "vision" ? "vision encoder, " : "";
  return `${of}layer ${layers[shown.source]}, ${head === null ? "mean of heads" : `head ${head}`}`;
}

/** @param {State} state */
function frameName({ media, medium, frame }) {
  const { frames, times_s } = media[medium], which = media.length > 1 ? ` of picture ${medium + 1}` : "";
  return times_s ? `frame ${frame + 1} of ${frames}${which}` : `the image${which}`;
}

/**
 * The line above everything.
 * @param {State} state
 */
export function summary(state) {
  const { shown, words, media, totals, patch, where, slots } = state;
  const word = `Token ${shown.word + 1} of ${words.length}, ${quoted(words[shown.word])}`;
  if (!media.length) return word;
  const all = totals.reduce((sum, each) => sum + each, 0), here = totals[frameNumber(state)];
  if (shown.source === "vision" && patch) {
    const from = `Patch row ${patch.row}, column ${patch.col} of frame ${patch.frame + 1}`;
    return `${from} · ${sourceWords(state)} · ${percent(all)} of its attention on patches that were kept`;
  }
  const onFrame = slots.numFrames > 1 ? `, ${smallPercent(here)} on ${frameName(state)}` : "";
  const measured = `${percent(all)} of its ${MEASURES[shown.source]} on the ${where}`;
  return `${word} · ${sourceWords(state)} · ${measured}${onFrame}`;
}

/**
 * @param {State} state
 * @param {Place} place
 */
export function weightWords(state, place) {
  const { shown } = state, slot = state.slots.at(place), name = `Row ${place.row}, column ${place.col}`;
  if (slot < 0) return `${name}: removed, no token could read it`;
  if (isHidden(state, slot)) return `${name}: a sink, hidden`;
  if (!shown.reaches(slot)) return `${name}: in another frame, which it cannot see`;
  return `${name}: ${smallPercent(shown.weights[slot])}`;
}

/** @param {State} state */
export function strongestWords(state) {
  const { rows, cols, times_s } = state.media[state.medium], { weights } = state.shown;
  let best = -1, bestSlot = -1;
  state.slots.places[state.medium].forEach((slot, i) => {
    if (slot < 0 || isHidden(state, slot)) return;
    if (best < 0 || weights[slot] > weights[bestSlot]) [best, bestSlot] = [i, slot];
  });
  if (best < 0) return "";
  const at = Math.floor(best / (rows * cols)), inFrame = best % (rows * cols);
  const when = times_s ? ` of frame ${at + 1} at ${clockTenths(times_s[at])}` : "";
  const place = `row ${Math.floor(inFrame / cols)}, column ${inFrame % cols}${when}`;
  return `, strongest with ${smallPercent(weights[bestSlot])} in ${place}`;
}

/**
 * What there is without a running model.
 * @param {State} state
 */
export function aloneWords({ details, words }) {
  /** @type {Map<string, number[]>} */
  const told = new Map();
  for (const { source, tokens } of details) told.set(source, [...(told.get(source) || []), ...tokens]);
  const lists = [...told].map(([source, numbers]) => {
    const name = titleOf(source).replace(/^[A-Z](?![A-Z])/, (letter) => letter.toLowerCase());
    if (source === "vision") return `${name} for ${numbers.length} ${numbers.length === 1 ? "patch" : "patches"}`;
    if (numbers.length === words.length) return `${name} for every token`;
    return `${name} for ${numbers.map((number) => `token ${number + 1}, ${quoted(words[number])}`).join("; ")}`;
  });
  return ["Without a running model there is the mean of layers for every token", ...lists].join(", and ") + ".";
}

/**
 * Why what is shown is not what was chosen.
 * @param {State} state
 */
export function noteWords(state) {
  const { source, shown, token, words, patch, canAsk } = state, isVision = source === "vision";
  if (!state.media.length) {
    const from = state.split ? "sound and text" : "text alone";
    return `This answer saw no picture, so there is nothing to paint: its words were written from ${from}.`;
  }
  if (source === "mean" || shown.source === source || state.hover !== null) return "";
  if (isVision && !patch) {
    return "Choose a patch: the vision encoder shows where it looked within its own frame. "
      + "Until then this is the mean of layers.";
  }
  if (isVision && patchSlot(state) < 0) {
    return "This patch was removed after the vision encoder. Choose one that was kept; "
      + "until then this is the mean of layers.";
  }
  const problem = state.problems.get(`${source} ${mapsFrom(state)}`);
  const whose = isVision ? "this patch" : quoted(words[token]), name = titleOf(source);
  if (problem) return `${/[.!?]$/.test(problem) ? problem : `${problem}.`} Shown is the mean of layers.`;
  if (!canAsk) return `${name} is not here for ${whose}. Shown is the mean of layers.`;
  return `${name} for ${whose} is being computed. Until it is here, this is the mean of layers.`;
}

/**
 * @param {State} state
 * @param {Read} read
 */
export function patchWords({ patch, media, words }, read) {
  if (!media.length) return "";
  if (!patch) return "Click a patch, or move these: the tokens are tinted by how much they read it.";
  const of = media[patch.medium].times_s ? ` of frame ${patch.frame + 1}` : "";
  const name = `Row ${patch.row}, column ${patch.col}${of}`;
  if (!read) return `${name} was removed by the pruner: no token could read it.`;
  const best = most(words.length, (index) => read.values[index]);
  return `${name} was read most by token ${best + 1}, ${quoted(words[best])}: ${smallPercent(read.top)} (${read.by}).`;
}

/**
 * What tint and line of the tokens mean.
 * @param {State} state
 * @param {Read} read
 */
export function tintWords({ media, where }, read) {
  if (!media.length) return "";
  if (!read) return `Line under a token: its share of attention on the ${where}.`;
  return `Tint: share of a token's attention on the chosen patch, ${read.by}. Line: on the whole ${where}.`;
}

/**
 * @param {State} state
 * @param {number} index
 * @param {Read} read
 */
export function tokenName(state, index, read) {
  const word = state.words[index], share = state.media.length ? percent(wordShare(state, index)) : "";
  const onMedia = share && ` · ${share} of its attention on the ${state.where}`;
  const toIt = read ? ` · ${smallPercent(read.values[index])} on the chosen patch` : "";
  return `Token ${index + 1}, ${tokenText(word)}${word ? "" : ", no text of its own"}${onMedia}${toIt}`;
}

/**
 * @param {State} state
 * @param {{layer: number, head: number}} cell
 */
export function cellWords(state, { layer, head }) {
  return `layer ${layer}, head ${head}: ${percent(shareAt(state, state.shown.word, layer, head))}`;
}

/** @param {State} state */
export function frameRows({ media, slots, totals, shown }) {
  /** @type {(string | number)[][]} */
  const rows = [];
  media.forEach(({ frames, times_s, rows: down, cols }, m) => {
    for (let f = 0; f < frames; f++) {
      const removed = slots.removedIn(m, f);
      rows.push([...(media.length > 1 ? [m + 1] : []), f + 1, times_s ? clockTenths(times_s[f]) : "–",
        smallPercent(totals[slots.starts[m] + f]), down * cols - removed, removed]);
    }
  });
  const head = ["Frame", "Time", `Share of ${MEASURES[shown.source]}`, "Kept", "Removed"];
  return [[...(media.length > 1 ? ["Picture"] : []), ...head], ...rows];
}

/** @param {State} state */
export function wordRows(state) {
  const { media, where, words, split } = state, read = readOfPatch(state);
  const heard = (/** @type {number} */ index) => (split ? [split[3 * index], split[3 * index + 2]].map(percent) : []);
  const head = ["Number", "Word", ...(media.length ? [`On the ${where}`] : []),
    ...(split ? ["On sound", "On words"] : [])];
  const rows = words.map((word, index) => [index + 1, tokenText(word),
    ...(media.length ? [percent(wordShare(state, index))] : []), ...heard(index),
    ...(read ? [smallPercent(read.values[index])] : [])]);
  return [[...head, ...(read ? ["On the chosen patch"] : [])], ...rows];
}
