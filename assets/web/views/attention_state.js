// @ts-check
// What the attention view knows and has chosen, and what follows from that: which weights are shown.

import { clamp, mapStore, meanOf, most, slotsOf, weightsOf } from "./attention_maps.js";
import { unpack } from "./unpack.js";

/**
 * @typedef {import("./attention_maps.js").Medium} Medium
 * @typedef {import("./attention_maps.js").PackedMaps} PackedMaps
 * @typedef {import("./attention_maps.js").PackedWeights} PackedWeights
 * @typedef {import("./attention_maps.js").Place} Place
 * @typedef {{tokens: number, slots: number, layers: number, heads: number, vision_layers: number,
 *   vision_heads: number}} Sizes
 * @typedef {{view: "attention", words: string[], media: Medium[], sizes: Sizes, share: PackedWeights, mean: PackedMaps,
 *   details: PackedMaps[], token: number | null, medium: number, frame: number, split: string | null,
 *   sounds: import("./attention_sound.js").Listened[]}} AttentionData of vl3/viz/attention.py
 * @typedef {object} Shown the weights that are looked at
 * @property {string} source that they are of: the chosen one, or "mean" while its maps are not there
 * @property {number} word
 * @property {Float32Array} weights of every slot
 * @property {Set<number>} sinks
 * @property {(slot: number) => boolean} reaches
 * @property {Float32Array[]} [perHead]
 * @property {Float32Array} [joint] the mean of perHead
 * @typedef {ReturnType<typeof newState>} State
 */

const KEPT_BYTES = 48 << 20; // of maps that were asked for

/** @type {(readonly [string, string])[]} */
export const SOURCES = [
  ["language", "LLM layer"],
  ["mean", "Mean of layers"],
  ["rollout", "Rollout"],
  ["relevancy", "Gradient relevancy"],
  ["vision", "Vision encoder"],
];

/**
 * @param {AttentionData} data
 * @param {boolean} canAsk whether maps that are not there can be had
 */
export function newState(data, canAsk) {
  const { words, sizes, media } = data;
  const store = mapStore(canAsk ? KEPT_BYTES : Infinity);
  data.details.forEach(store.put);
  const offered = new Set(SOURCES.map(([name]) => name).filter((name) =>
    name === "mean" || data.details.some((one) => one.source === name)
    || (canAsk && (name !== "vision" || sizes.vision_layers))));
  const medium = clamp(data.medium, media.length);
  const state = {
    words, sizes, media, canAsk, details: data.details, store, offered, sounds: data.sounds,
    split: data.split ? unpack(data.split, Float32Array) : null, // on sound, picture and words, of every token
    mean: { ...weightsOf(data.mean), sinks: new Set(data.mean.sinks) },
    share: weightsOf({ ...data.share, first: 0, slots: sizes.layers * sizes.heads }),
    shares: /** @type {number[]} */ ([]), // of every token on all media, once it was asked for
    slots: slotsOf(media),
    where: media.length !== 1 ? "pictures" : media[0].times_s ? "video" : "image",
    problems: /** @type {Map<string, string>} */ (new Map()), // why there are no maps, by source and token
    source: "mean",
    hover: /** @type {number | null} */ (null),
    token: 0,
    medium,
    frame: clamp(data.frame, media[medium]?.frames || 1),
    layers: /** @type {Record<string, number>} */ ({ vision: Math.max(0, sizes.vision_layers - 1) }),
    heads: /** @type {Record<string, number | null>} */ ({ language: null, vision: null }),
    patch: /** @type {Place | null} */ (null),
    hidesSinks: false,
    scaledBy: "clip",
    opacity: 0.65,
    shown: /** @type {Shown} */ ({}),
    totals: new Float64Array(0), // of every frame over all media
  };
  state.token = clamp(data.token ?? most(words.length, (index) => wordShare(state, index)), words.length);
  state.layers.language = most(sizes.layers, (layer) => layerShare(state, state.token, layer));
  look(state);
  return state;
}

/**
 * Chooses the weights that are wanted, or the mean of layers while they are not there.
 * @param {State} state
 */
export function look(state) {
  state.shown = wanted(state);
  state.totals = frameSums(state, state.shown.weights);
}

/**
 * @param {State} state
 * @returns {Shown}
 */
function wanted(state) {
  const { source, sizes, mean } = state, word = state.hover ?? state.token;
  const from = source === "vision" ? (state.hover === null ? patchSlot(state) : -1) : word;
  const maps = source === "mean" || from < 0 ? undefined : state.store.get(source, from, state.layers[source]);
  if (!maps) {
    const weights = mean.mean([word], sizes.slots);
    return { source: "mean", word, weights, sinks: mean.sinks, reaches: mean.reaches };
  }
  const perHead = maps.rows.map((one) => maps.mean([one], sizes.slots));
  const joint = perHead.length === 1 ? perHead[0] : maps.mean(maps.rows, sizes.slots);
  const weights = perHead[state.heads[source] ?? -1] || joint;
  return { source, word, weights, sinks: maps.sinks, reaches: maps.reaches, perHead, joint };
}

/**
 * What maps of the chosen source are of: a word, or a visual token; -1 where there is none.
 * @param {State} state
 */
export function mapsFrom(state) {
  return state.source === "vision" ? patchSlot(state) : state.token;
}

/** @param {State} state */
export function patchSlot({ patch, slots }) {
  return patch ? slots.at(patch) : -1;
}

/**
 * @param {State} state
 * @param {number} slot
 */
export function isHidden({ hidesSinks, shown }, slot) {
  return hidesSinks && shown.sinks.has(slot);
}

/**
 * @param {State} state
 * @param {Float32Array} weights
 */
function frameSums(state, weights) {
  const { spans, numFrames } = state.slots;
  return Float64Array.from({ length: numFrames }, (_, number) => {
    let sum = 0;
    for (let slot = spans[number][0]; slot < spans[number][1]; slot++) {
      if (!isHidden(state, slot)) sum += weights[slot];
    }
    return sum;
  });
}

/**
 * The largest weight, which the colours reach up to: of this frame, or of the whole medium.
 * @param {State} state
 * @param {Float32Array} weights
 */
export function topOf(state, weights) {
  const { starts, spans } = state.slots, here = frameNumber(state);
  const [from, to] = state.scaledBy === "frame" ? [here, here + 1] : [starts[state.medium], starts[state.medium + 1]];
  let top = 0;
  for (let slot = spans[from][0]; slot < spans[to - 1][1]; slot++) {
    if (weights[slot] > top && !isHidden(state, slot)) top = weights[slot];
  }
  return top;
}

/**
 * The number of the shown frame over all media.
 * @param {State} state
 */
export function frameNumber({ slots, medium, frame }) {
  return slots.starts[medium] + frame;
}

/** @param {State} state */
export function isLayered({ source }) {
  return source === "language" || source === "vision";
}

/**
 * How many layers or heads the chosen source has.
 * @param {State} state
 * @param {"layers" | "heads"} kind
 */
export function sizeOf({ source, sizes }, kind) {
  return source === "vision" ? sizes[`vision_${kind}`] : sizes[kind];
}

/**
 * Share of a word's attention on all media, in one layer and head.
 * @param {State} state
 * @param {number} index
 * @param {number} layer
 * @param {number} head
 */
export function shareAt({ share, sizes }, index, layer, head) {
  return share.at(index, layer * sizes.heads + head);
}

/**
 * @param {State} state
 * @param {number} index
 * @param {number} layer
 */
function layerShare(state, index, layer) {
  return meanOf(state.sizes.heads, (head) => shareAt(state, index, layer, head));
}

/**
 * The same in the mean of all layers and heads.
 * @param {State} state
 * @param {number} index
 */
export function wordShare(state, index) {
  return (state.shares[index] ??= meanOf(state.sizes.layers, (layer) => layerShare(state, index, layer)));
}

/**
 * Share of every head of the chosen source on all media; 0 where its maps are not there.
 * @param {State} state
 */
export function headShares(state) {
  const { source, shown, token, layers } = state;
  return Array.from({ length: sizeOf(state, "heads") }, (_, head) => {
    if (source === "language") return shareAt(state, token, layers.language, head);
    if (shown.source !== source) return 0;
    return shown.perHead?.[head]?.reduce((sum, each) => sum + each, 0) ?? 0;
  });
}

/**
 * What every word read of the chosen patch: by rollout where it is the source and here, else by the mean of
 * layers. null without a patch that was kept.
 * @param {State} state
 */
export function readOfPatch(state) {
  const { store, mean, words } = state, slot = patchSlot(state);
  if (slot < 0) return null;
  const rolled = state.source === "rollout" && words.every((_, index) => store.get("rollout", index));
  const values = words.map((_, index) => {
    const maps = rolled ? store.get("rollout", index) : undefined;
    return maps ? maps.at(maps.rows[0], slot) : mean.at(index, slot);
  });
  return { values, by: rolled ? "rollout" : "mean of layers", top: Math.max(...values) };
}

/**
 * The chosen patch, or where the sliders stand without one, within the shown frame.
 * @param {State} state
 * @returns {Place}
 */
export function patchPlace({ media, medium, frame, patch }) {
  const { rows, cols } = media[medium];
  return { medium, frame, row: clamp(patch?.row ?? Math.floor(rows / 2), rows),
    col: clamp(patch?.col ?? Math.floor(cols / 2), cols) };
}
