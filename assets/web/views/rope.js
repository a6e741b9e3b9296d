// @ts-check
// Angles of 2D-RoPE as vl3/vision/rope2d.py has them, and how alike they make two patches. Nothing here draws.

import { unpack } from "./unpack.js";

/**
 * @typedef {{view: "positions", source: string, times_s: number[] | null, frames: number, rows: number, cols: number,
 *   merge: number, frequencies: string, row_angles: string, col_angles: string, order: string, frame: number,
 *   language: {tokens: number, steps: number[], before: string, after: string} | null}} PositionsData
 *   of vl3/viz/positions.py
 */

/** @param {Pick<PositionsData, "rows" | "cols" | "row_angles" | "col_angles" | "frequencies">} data */
export function rope(data) {
  const rowAngles = unpack(data.row_angles, Float32Array), colAngles = unpack(data.col_angles, Float32Array);
  const frequencies = unpack(data.frequencies, Float32Array), number = frequencies.length;

  /** @type {(angles: Float32Array, a: number, b: number) => number} */
  const alike = (angles, a, b) => {
    let sum = 0;
    for (let f = 0; f < number; f++) sum += Math.cos(angles[a * number + f] - angles[b * number + f]);
    return sum / number;
  };

  /**
   * Mean cosine of the angles between one patch and every other, row after row.
   * @param {number} row
   * @param {number} col
   */
  const similarity = (row, col) => {
    const down = Array.from({ length: data.rows }, (_, other) => alike(rowAngles, row, other));
    const across = Array.from({ length: data.cols }, (_, other) => alike(colAngles, col, other));
    return down.map((each) => across.map((other) => (each + other) / 2));
  };

  /** @type {(frequency: number) => number} patches until the angle is the same again */
  const wavelength = (frequency) => (2 * Math.PI) / frequencies[frequency];
  return { rowAngles, colAngles, frequencies, similarity, wavelength };
}

/**
 * Positions of the tokens in the language model, with every patch (before) and as they are (after); negative
 * where a token was removed. They come step after step: a step is a frame, or the frames that a connector joins.
 * @param {NonNullable<PositionsData["language"]>} language
 */
export function languageOf({ tokens, steps, before, after }) {
  const all = { before: unpack(before, Int32Array), after: unpack(after, Int32Array) };

  /**
   * First and last position of a frame's tokens, and their number; null where all of them were removed.
   * @param {"before" | "after"} which
   * @param {number} frame
   */
  function extent(which, frame) {
    const step = steps[frame];
    const held = all[which].subarray(step * tokens, (step + 1) * tokens).filter((position) => position >= 0);
    return held.length ? { first: held[0], last: held[held.length - 1], number: held.length } : null;
  }

  /** @param {number} frame */
  function wordsBefore(frame) {
    const first = steps[frame] * tokens;
    return all.before[first] - (first ? all.before[first - 1] + 1 : 0);
  }
  return { ...all, tokens, steps, extent, wordsBefore,
    reach: { first: Math.max(0, all.before[0] - 20), last: all.before[all.before.length - 1] + 1 } };
}
