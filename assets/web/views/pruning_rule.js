// @ts-check
// The pruner: exactly what vl3/vision/prune.py decides, for any threshold. Nothing here draws.

import { unpack } from "./unpack.js";

/**
 * @typedef {{mode: string, threshold: number, min_tokens: number, keep: string}} Rule
 * @typedef {import("./canvas.js").Sheet} Sheet
 * @typedef {{view: "pruning", source: string, times_s: number[] | null, frames: number, tokens: number,
 *   token_rows: number, token_cols: number, boxes: number[][], sheet: Sheet, steps: Record<string, string>,
 *   pairs: string | null, unit: number, values: number, levels: Record<string, number>, used: Rule | null,
 *   modes: [string, string][], sides: [string, string][], defaults: Rule, frame: number}} PruningData
 *   of vl3/viz/pruning.py
 * @typedef {object} Decision
 * @property {Uint8Array} state of every token, REMOVED, KEPT or PLACEHOLDER
 * @property {Float32Array} change what was compared with the threshold
 * @property {number[]} kept tokens of each frame
 * @property {number} total
 * @property {boolean} later whether the later of two alike is kept
 */

// States of a patch, as vl3/viz/compare.py writes them.
export const REMOVED = 0;
export const PLACEHOLDER = 2;
const KEPT = 1;

/** @param {Pick<PruningData, "frames" | "tokens" | "steps" | "pairs" | "unit" | "values" | "levels">} data */
export function pruner(data) {
  const { frames, tokens } = data;
  /** @type {Record<string, Float32Array>} */
  const steps = {};
  for (const [mode, text] of Object.entries(data.steps)) steps[mode] = unpack(text, Float32Array);
  const pairs = data.pairs === null ? null : pairsOf(data.pairs, data.unit, data.values);
  const difference = (/** @type {number} */ a, /** @type {number} */ b, /** @type {number} */ token) => {
    const [early, late] = a < b ? [a, b] : [b, a];
    return /** @type {Float32Array} */ (pairs)[((late * (late - 1)) / 2 + early) * tokens + token];
  };

  /**
   * @param {Rule} rule
   * @returns {Decision}
   */
  function decide({ mode, threshold, min_tokens, keep }) {
    const later = keep === "later", limit = Math.fround(threshold), step = steps[mode];
    const state = new Uint8Array(frames * tokens), change = new Float32Array(frames * tokens);
    const kept = new Array(frames), reference = new Int32Array(tokens);
    for (let turn = 0; turn < frames; turn++) {
      const frame = later ? frames - 1 - turn : turn, start = frame * tokens;
      const offset = later ? start + tokens : start; // differences look the same from both sides
      let stay = 0;
      for (let token = 0; token < tokens; token++) {
        const value = turn === 0 ? Infinity : step ? step[offset + token] : difference(reference[token], frame, token);
        change[start + token] = value;
        if (turn > 0 && !(value > limit)) continue;
        state[start + token] = KEPT;
        reference[token] = frame;
        stay++;
      }
      for (let token = 0, few = stay < min_tokens; few && token < Math.min(min_tokens, tokens); token++) {
        if (state[start + token] !== REMOVED) continue;
        state[start + token] = PLACEHOLDER;
        stay++;
      }
      kept[frame] = stay;
    }
    return { state, change, kept, total: kept.reduce((sum, each) => sum + each, 0), later };
  }

  /**
   * Difference in grey levels of every removed token of a frame from its last kept version; 0 where it is kept.
   * @param {Decision} decision
   * @param {number} frame
   */
  function drift({ state, later }, frame) {
    const values = new Float32Array(tokens), back = later ? 1 : -1;
    for (let token = 0; token < tokens; token++) {
      let from = frame;
      while (state[from * tokens + token] === REMOVED) from += back;
      if (from !== frame) values[token] = difference(from, frame, token) * data.levels.last_kept;
    }
    return values;
  }

  return { decide, drift, knowsPairs: pairs !== null };
}

/**
 * Differences of every token between any two frames, in the unit of the threshold.
 * @param {string} text sums of 24 bits
 * @param {number} unit
 * @param {number} values of a token
 */
function pairsOf(text, unit, values) {
  const bytes = unpack(text, Uint8Array);
  return Float32Array.from({ length: bytes.length / 3 }, (_, i) =>
    ((bytes[3 * i] + 256 * bytes[3 * i + 1] + 65536 * bytes[3 * i + 2]) * unit) / values);
}

// The slider's steps: LOW to HIGH, a hundred in each decade.

export const LOW = 0.01;
export const HIGH = 100;
export const NUDGE = 5;
const STEPS_PER_DECADE = 100;
export const STEPS = STEPS_PER_DECADE * Math.log10(HIGH / LOW);

/** @param {number} step */
export function thresholdAt(step) {
  return Number((LOW * 10 ** (step / STEPS_PER_DECADE)).toPrecision(3));
}

/** @param {number} threshold */
export function stepAt(threshold) {
  return Math.min(STEPS, Math.max(0, Math.round(STEPS_PER_DECADE * Math.log10(threshold / LOW))));
}

/**
 * Where a value lies between two others, on a logarithmic scale.
 * @param {number} low
 * @param {number} high
 * @param {number} value
 */
export function logShare(low, high, value) {
  return value > 0 ? Math.log10(value / low) / Math.log10(high / low) : 0;
}
