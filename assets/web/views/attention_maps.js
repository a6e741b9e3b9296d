// @ts-check
// Maps of attention as they travel (bytes on a logarithmic scale, with the largest weight of each map), and
// where the visual tokens lie that they are about. Nothing here draws.

import { unpack } from "./unpack.js";

/**
 * @typedef {import("./canvas.js").Sheet} Sheet
 * @typedef {{tops: string, levels: string, first: number, slots: number}} PackedWeights
 * @typedef {PackedWeights & {source: string, tokens: number[], layers: number[] | null, heads: number[] | null,
 *   sinks: number[]}} PackedMaps of vl3/viz/attention.py
 * @typedef {{source: string, token: number, problem: string}} Refused
 * @typedef {{source: string, times_s: number[] | null, frames: number, rows: number, cols: number, slots: string,
 *   sheet: Sheet}} Medium
 * @typedef {{medium: number, frame: number, row: number, col: number}} Place of a patch
 * @typedef {ReturnType<typeof weightsOf>} Weights
 * @typedef {Weights & {rows: number[], sinks: Set<number>, bytes: number}} KeptMaps rows: one for each head
 * @typedef {ReturnType<typeof slotsOf>} Slots
 */

const DECADES = 5, LEVEL_STEPS = 254; // of vl3/viz/attention.py
const SHARE_OF_TOP = Float64Array.from({ length: 256 },
  (_, level) => (level ? 10 ** (DECADES * ((level - 1) / LEVEL_STEPS - 1)) : 0));

/**
 * The weights of some maps: at(row, slot), and their mean over rows, for every slot there is.
 * @param {PackedWeights} packed
 */
export function weightsOf({ tops, levels, first, slots }) {
  const top = unpack(tops, Float32Array), level = unpack(levels, Uint8Array);
  /** @type {(row: number, slot: number) => number} */
  const at = (row, slot) => top[row] * SHARE_OF_TOP[level[row * slots + slot - first]];
  /** @type {(rows: number[], length: number) => Float32Array} */
  const mean = (rows, length) => {
    const sum = new Float32Array(length);
    for (const row of rows) {
      for (let i = 0; i < slots; i++) sum[first + i] += (top[row] * SHARE_OF_TOP[level[row * slots + i]]) / rows.length;
    }
    return sum;
  };
  /** @type {(slot: number) => boolean} */
  const reaches = (slot) => slot >= first && slot < first + slots;
  return { at, mean, reaches };
}

/**
 * Maps that were asked for, of a source, a token and (where it has them) a layer. The oldest go first.
 * @param {number} limit in bytes
 */
export function mapStore(limit) {
  /** @type {Map<string, KeptMaps>} */
  const kept = new Map();
  let bytes = 0;
  /** @type {(source: string, token: number, layer?: number) => string} */
  const name = (source, token, layer) =>
    `${source} ${token} ${source === "language" || source === "vision" ? layer : ""}`;

  /** @param {PackedMaps} maps */
  function put(maps) {
    const read = weightsOf(maps), heads = maps.heads || [0], tokens = maps.tokens;
    (maps.layers || [0]).forEach((layer, i) => tokens.forEach((token, q) => {
      const key = name(maps.source, token, layer);
      const rows = heads.map((_, h) => (i * heads.length + h) * tokens.length + q);
      bytes += rows.length * maps.slots - (kept.get(key)?.bytes || 0);
      kept.delete(key);
      kept.set(key, { ...read, rows, sinks: new Set(maps.sinks), bytes: rows.length * maps.slots });
    }));
    for (const [key, old] of kept) {
      if (bytes <= limit) break;
      kept.delete(key);
      bytes -= old.bytes;
    }
  }

  /**
   * @param {string} source
   * @param {number} token
   * @param {number} [layer]
   */
  function get(source, token, layer) {
    const key = name(source, token, layer), found = kept.get(key);
    if (!found) return undefined;
    kept.delete(key);
    kept.set(key, found);
    return found;
  }
  return { put, get, name };
}

/**
 * Where the visual tokens (slots) lie. Frames are numbered over all media: those of medium m begin at starts[m].
 * Slots of a frame follow each other, from spans[number][0] to before spans[number][1]; frames that a connector
 * joins have the same, and all cells of a token have its slot.
 * @param {Medium[]} media
 */
export function slotsOf(media) {
  const places = media.map(({ slots }) => unpack(slots, Int32Array));
  const starts = [0], spans = /** @type {[number, number][]} */ ([]);
  /** @type {(m: number, frame: number) => Int32Array} */
  const ofFrame = (m, frame) => {
    const each = media[m].rows * media[m].cols;
    return places[m].subarray(frame * each, (frame + 1) * each);
  };
  media.forEach(({ frames }, m) => {
    starts.push(starts[m] + frames);
    for (let f = 0; f < frames; f++) {
      const kept = ofFrame(m, f).filter((slot) => slot >= 0), before = spans.length ? spans[spans.length - 1][1] : 0;
      spans.push(kept.length ? [Math.min(...kept), Math.max(...kept) + 1] : [before, before]);
    }
  });
  /** @type {(place: Place) => number} the slot of a patch; negative where it was removed */
  const at = ({ medium, frame, row, col }) => {
    const { rows, cols } = media[medium];
    return places[medium][(frame * rows + row) * cols + col];
  };
  /** @type {(place: Place, frame: number) => [number, number, number, number] | null} of the token of a place its rows
   * from, to and columns from, to in a frame, the ends outside; null where it does not stand for that frame */
  const extentOf = (place, frame) => {
    const slot = at(place), { medium, row, col } = place, { cols } = media[medium];
    if (slot < 0) return frame === place.frame ? [row, row + 1, col, col + 1] : null;
    const inFrame = ofFrame(medium, frame), first = inFrame.indexOf(slot), last = inFrame.lastIndexOf(slot);
    return first < 0 ? null : [Math.floor(first / cols), Math.floor(last / cols) + 1, first % cols, (last % cols) + 1];
  };
  /** @type {(m: number, frame: number) => number} */
  const removedIn = (m, frame) => ofFrame(m, frame).filter((slot) => slot < 0).length;
  /** @type {(number: number) => number} */
  const mediumOf = (number) => media.findLastIndex((_, m) => starts[m] <= number);
  return { places, starts, spans, numFrames: starts[media.length], at, extentOf, removedIn, mediumOf };
}

/**
 * The number with the largest value, the first of them.
 * @param {number} number
 * @param {(index: number) => number} value
 */
export function most(number, value) {
  const values = Array.from({ length: number }, (_, i) => value(i));
  return Math.max(0, values.indexOf(Math.max(...values)));
}

/**
 * @param {number} number
 * @param {(index: number) => number} value
 */
export function meanOf(number, value) {
  let sum = 0;
  for (let i = 0; i < number; i++) sum += value(i);
  return sum / (number || 1);
}

/**
 * The index, or the nearest that there is.
 * @param {number | null | undefined} index
 * @param {number} number of them
 */
export function clamp(index, number) {
  return Math.max(0, Math.min(index || 0, number - 1));
}
