// @ts-check
// A sound under its player: its waveform and log-mel picture, where the player stands, and where words listened.

import { make } from "../shared/dom.js";
import { clockTenths } from "../shared/format.js";
import { contextOf, picture } from "./canvas.js";
import { cividis } from "./colours.js";
import { peaksOf, placeOf, timeAt } from "./sound_scale.js";
import { unpack } from "./unpack.js";

/**
 * @typedef {import("./canvas.js").Context} Context
 * @typedef {import("./canvas.js").Ink} Ink
 * @typedef {import("./mount.js").Emit} Emit
 * @typedef {import("./sound_scale.js").Heat} Heat
 * @typedef {{view: "sound", source: string, start_s: number, end_s: number, axis_s: [number, number],
 *   columns: number, peaks: string, bank: {url: string, rows: number}, time_s?: number,
 *   heat?: Heat[] | null}} SoundData of vl3/viz/sound.py
 */

const WAVE_PX = 44, BANK_PX = 48, GAP_PX = 3, HEAT_PX = 10;
const STEP_S = 1; // of an arrow key

/**
 * @param {Element} el
 * @param {SoundData} data
 * @param {Emit} [emit]
 */
export function soundView(el, data, emit) {
  const state = { time_s: data.time_s ?? null, heat: data.heat ?? null, bank: /** @type {Bank | null} */ (null) };
  const peaks = unpack(data.peaks, Int8Array);
  const height = WAVE_PX + GAP_PX + BANK_PX + (data.heat === undefined ? 0 : HEAT_PX + GAP_PX);
  const { canvas, draw } = picture(`height: ${height}px`, (context, width, _, ink) => {
    paintWave(context, data, peaks, width, ink);
    if (state.bank) paintBank(context, data, state.bank, width);
    if (state.heat) paintHeat(context, data, state.heat, width, ink);
    if (state.time_s !== null) paintMoment(context, data, state.time_s, width, height, ink);
  }, attributesOf(data, emit !== undefined));
  const tell = () => {
    if (!emit || state.time_s === null) return;
    canvas.setAttribute("aria-valuenow", state.time_s.toFixed(1));
    canvas.setAttribute("aria-valuetext", clockTenths(state.time_s));
  };
  if (emit) listen(canvas, data, emit, () => state.time_s ?? data.axis_s[0]);
  const source = new Image();
  source.onload = () => {
    state.bank = coloured(source);
    draw();
  };
  source.src = data.bank.url;
  const watcher = new ResizeObserver(draw);
  el.replaceChildren(make("section", { class: "vl3-look sound", "aria-label": "Sound" }, canvas));
  watcher.observe(canvas);
  tell();
  return {
    /** @param {Record<string, any>} changes */
    follow(changes) {
      Object.assign(state, changes);
      tell();
      draw();
    },
    destroy() {
      watcher.disconnect();
    },
  };
}

/** @typedef {HTMLCanvasElement} Bank */

/**
 * @param {SoundData} data
 * @param {boolean} isSlider whether it moves a player
 */
function attributesOf({ axis_s: [from_s, to_s], start_s, end_s }, isSlider) {
  const words = `Waveform and log-mel picture, ${clockTenths(start_s)} to ${clockTenths(end_s)}`;
  if (!isSlider) return { "aria-label": words };
  return { role: "slider", tabindex: 0, "aria-label": words, "aria-valuemin": from_s.toFixed(1),
    "aria-valuemax": to_s.toFixed(1), "aria-valuenow": from_s.toFixed(1), "aria-valuetext": clockTenths(from_s) };
}

/**
 * A press, a drag or an arrow key moves the player.
 * @param {HTMLCanvasElement} canvas
 * @param {SoundData} data
 * @param {Emit} emit
 * @param {() => number} now
 */
function listen(canvas, data, emit, now) {
  const goTo = (/** @type {PointerEvent} */ event) => {
    const { left, width } = canvas.getBoundingClientRect();
    emit("time", timeAt(data, event.clientX - left, width));
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    goTo(event);
  });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons & 1) goTo(event); });
  canvas.addEventListener("keydown", (event) => {
    const [from_s, to_s] = data.axis_s;
    const to = { ArrowLeft: now() - STEP_S, ArrowRight: now() + STEP_S, Home: from_s, End: to_s }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation(); // the page has other uses for these keys
    emit("time", Math.min(to_s, Math.max(from_s, to)));
  });
}

/**
 * @param {Context} context
 * @param {SoundData} data
 * @param {Int8Array} peaks
 * @param {number} width
 * @param {Ink} ink
 */
function paintWave(context, data, peaks, width, ink) {
  const middle = WAVE_PX / 2;
  context.fillStyle = ink.line;
  context.fillRect(0, middle - 0.5, width, 1);
  context.fillStyle = ink.accent;
  peaksOf(data, peaks, Math.round(width)).forEach((peak, x) => {
    if (!peak) return;
    const [low, high] = peak.map((level) => middle - level * (middle - 1));
    context.fillRect(x, high, 1, Math.max(1, low - high));
  });
}

/**
 * @param {Context} context
 * @param {SoundData} data
 * @param {Bank} bank
 * @param {number} width
 */
function paintBank(context, data, bank, width) {
  const left = placeOf(data, data.start_s, width), right = placeOf(data, data.end_s, width);
  context.imageSmoothingEnabled = bank.width > right - left;
  context.drawImage(bank, left, WAVE_PX + GAP_PX, right - left, BANK_PX);
}

/**
 * @param {Context} context
 * @param {SoundData} data
 * @param {Heat[]} heat
 * @param {number} width
 * @param {Ink} ink
 */
function paintHeat(context, data, heat, width, ink) {
  const top = WAVE_PX + BANK_PX + 2 * GAP_PX;
  context.fillStyle = ink.line;
  context.fillRect(0, top + HEAT_PX - 1, width, 1);
  for (const { start_s, end_s, share } of heat) {
    const left = placeOf(data, start_s, width), right = placeOf(data, end_s, width);
    context.fillStyle = cividis(share);
    context.fillRect(left, top, Math.max(1, right - left), HEAT_PX);
  }
}

/**
 * @param {Context} context
 * @param {SoundData} data
 * @param {number} time_s
 * @param {number} width
 * @param {number} height
 * @param {Ink} ink
 */
function paintMoment(context, data, time_s, width, height, ink) {
  const x = Math.min(width - 1, Math.max(1, placeOf(data, time_s, width)));
  context.fillStyle = ink.soft;
  context.fillRect(x - 2, 0, 4, height); // seen on dark and light columns alike
  context.fillStyle = ink.text;
  context.fillRect(x - 1, 0, 2, height);
}

/**
 * The grey picture in colours.
 * @param {HTMLImageElement} source
 * @returns {Bank}
 */
function coloured(source) {
  const canvas = make("canvas", { width: source.width, height: source.height });
  const context = contextOf(canvas);
  context.drawImage(source, 0, 0);
  const pixels = context.getImageData(0, 0, source.width, source.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    pixels.data.set(cividis.rgb(pixels.data[at] / 255), at);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}
