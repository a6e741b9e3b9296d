// @ts-check
// Colour scales: perceptually even, readable without seeing red or green; twilight begins as it ends.

import { make } from "../shared/dom.js";

/**
 * @typedef {number[]} Rgb red, green and blue, 0 to 255
 * @typedef {{(share: number): string, rgb(share: number): Rgb, css: string}} Scale
 *   a share of 0 to 1 as a CSS colour and as numbers; css: the whole scale from left to right
 */

const SCALES = {
  cividis: "00224e 123570 3b496c 575d6d 707173 8a8678 a59c74 c3b369 e1cc55 fee838",
  viridis: "440154 482475 414487 355f8d 2a788e 21918c 22a884 44bf70 7ad151 bddf26 fde725",
  twilight: "e2d9e2 9ebbc9 6785be 5e43a5 421257 471340 8e2c50 ba6657 ceac94 e2d9e2",
};

/**
 * @param {keyof typeof SCALES} name
 * @returns {Scale}
 */
function colourScale(name) {
  const hexes = SCALES[name].split(" ");
  const keys = hexes.map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const steps = Array.from({ length: 256 }, (_, i) => {
    const place = (i / 255) * (keys.length - 1), low = Math.min(Math.floor(place), keys.length - 2);
    return keys[low].map((from, c) => Math.round(from + (place - low) * (keys[low + 1][c] - from)));
  });
  const rgb = (/** @type {number} */ share) => steps[Math.round(255 * Math.min(1, Math.max(0, share)))];
  const css = `linear-gradient(90deg, ${hexes.map((hex) => `#${hex}`).join(", ")})`;
  return Object.assign((/** @type {number} */ share) => `rgb(${rgb(share).join(" ")})`, { rgb, css });
}

export const cividis = colourScale("cividis");
export const viridis = colourScale("viridis");
export const twilight = colourScale("twilight");

/**
 * The scale with the words at its ends.
 * @param {Scale} scale
 * @param {string | number} low
 * @param {string} high
 * @param {string} title
 */
export function scaleBar(scale, low, high, title) {
  return make("span", { class: "bar" }, make("span", {}, `${title} ${low}`),
    make("i", { style: `background: ${scale.css}` }), make("span", {}, high));
}

/**
 * What a mark of a picture stands for.
 * @param {string} kind
 * @param {string} text
 */
export function swatch(kind, text) {
  return make("span", { class: "swatch" }, make("i", { class: kind }), make("span", {}, text));
}
