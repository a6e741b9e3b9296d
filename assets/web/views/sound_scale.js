// @ts-check
// Where on a strip of sound a time stands, and which peaks a pixel shows.

/**
 * @typedef {{start_s: number, end_s: number, axis_s: [number, number], columns: number}} Scaled of vl3/viz/sound.py
 * @typedef {{start_s: number, end_s: number, share: number}} Heat of a token of sound, share of the strongest
 */

/**
 * @param {Scaled} data
 * @param {number} time_s
 * @param {number} width
 */
export function placeOf({ axis_s: [from_s, to_s] }, time_s, width) {
  return to_s > from_s ? (width * (time_s - from_s)) / (to_s - from_s) : 0;
}

/**
 * The time at a place, within the strip.
 * @param {Scaled} data
 * @param {number} place
 * @param {number} width
 */
export function timeAt({ axis_s: [from_s, to_s] }, place, width) {
  const share = width > 0 ? Math.min(1, Math.max(0, place / width)) : 0;
  return from_s + share * (to_s - from_s);
}

/**
 * Least and largest peak of each pixel, null where there is no sound.
 * @param {Scaled} data
 * @param {Int8Array} peaks two of each column
 * @param {number} width
 * @returns {([number, number] | null)[]} from -1 to 1
 */
export function peaksOf(data, peaks, width) {
  const { start_s, end_s, columns } = data, perColumn_s = (end_s - start_s) / columns;
  return Array.from({ length: width }, (_, x) => {
    const from_s = timeAt(data, x, width), to_s = timeAt(data, x + 1, width);
    if (to_s <= start_s || from_s >= end_s) return null;
    const first = Math.max(0, Math.floor((from_s - start_s) / perColumn_s));
    const end = Math.min(columns, Math.max(first + 1, Math.ceil((to_s - start_s) / perColumn_s)));
    let low = 127, high = -127;
    for (let i = Math.min(first, columns - 1); i < end; i++) {
      low = Math.min(low, peaks[2 * i]);
      high = Math.max(high, peaks[2 * i + 1]);
    }
    return [low / 127, high / 127];
  });
}

/**
 * The heat of every step of a sound, by its weight on a scale of so many decades below the largest.
 * @param {Float32Array} spans start and end of each, in seconds
 * @param {(step: number) => number} weight
 * @param {number} decades
 * @returns {{heat: Heat[], top: number}}
 */
export function heatOf(spans, weight, decades) {
  const weights = Array.from({ length: spans.length / 2 }, (_, step) => weight(step)), top = Math.max(0, ...weights);
  const heat = weights.map((each, step) => ({ start_s: spans[2 * step], end_s: spans[2 * step + 1],
    share: each > 0 ? Math.max(0, 1 + Math.log10(each / top) / decades) : 0 }));
  return { heat, top };
}
