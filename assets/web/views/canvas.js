// @ts-check
// Drawing: canvases in CSS pixels, the frames of a clip, and the marks that several views put on them.

import { make } from "../shared/dom.js";

/**
 * @typedef {CanvasRenderingContext2D} Context
 * @typedef {{text: string, faint: string, line: string, accent: string, soft: string, onAccent: string,
 *   font: string}} Ink the colours of the theme
 * @typedef {(context: Context, width: number, height: number, ink: Ink) => void} Paint
 * @typedef {{canvas: HTMLCanvasElement, draw(): void}} Picture
 * @typedef {readonly [number, number, number, number]} Box left, top, width, height
 * @typedef {{url: string, columns: number, pitch: number[], width: number, height: number}} Sheet of vl3/viz/pack.py
 * @typedef {(context: Context, index: number, left: number, top: number, width: number, height: number) => void
 *   } DrawFrame
 */

const DIMMED = 0.28; // brightness of a removed patch

export function pixelRatio() {
  return window.devicePixelRatio || 1;
}

/**
 * A canvas with its text in words, drawn in CSS pixels.
 * @param {string} size its style, a height or an aspect ratio
 * @param {Paint} paint
 * @param {Record<string, any>} attributes
 * @returns {Picture}
 */
export function picture(size, paint, attributes = {}) {
  const canvas = make("canvas", { role: "img", style: size, ...attributes });
  const draw = () => {
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width || !height) return;
    const scale = pixelRatio();
    resize(canvas, Math.round(width * scale), Math.round(height * scale));
    const context = contextOf(canvas);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    paint(context, width, height, inkOf(canvas));
  };
  return { canvas, draw };
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {CanvasRenderingContext2DSettings} [settings]
 */
export function contextOf(canvas, settings) {
  return /** @type {Context} */ (canvas.getContext("2d", settings));
}

/**
 * Setting a size clears a canvas, so only where it changes.
 * @param {HTMLCanvasElement} canvas
 * @param {number} width
 * @param {number} height
 */
export function resize(canvas, width, height) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
}

/**
 * The colours of the theme.
 * @param {Element} node
 * @returns {Ink}
 */
function inkOf(node) {
  const style = getComputedStyle(node);
  const read = (/** @type {string} */ name) => style.getPropertyValue(`--look-${name}`).trim();
  return { text: read("text"), faint: read("faint"), line: read("line"), accent: read("accent"), soft: read("soft"),
    onAccent: read("on-accent"), font: `12px ${style.fontFamily}` };
}

/**
 * Draws at most once per screen refresh, and again when the width or the theme changes.
 * @param {Element} root
 * @param {() => void} draw
 */
export function drawer(root, draw) {
  let asked = 0;
  const ask = () => {
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      draw();
    });
  };
  const resized = new ResizeObserver(ask);
  resized.observe(root);
  const themed = new MutationObserver(ask);
  const attributeFilter = ["class", "data-theme", "data-jp-theme-light"];
  for (const node of [document.documentElement, document.body]) themed.observe(node, { attributeFilter });
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", ask);
  const end = () => {
    cancelAnimationFrame(asked);
    resized.disconnect();
    themed.disconnect();
    dark.removeEventListener("change", ask);
  };
  return { ask, end };
}

/**
 * The frames of one sheet, drawn by number.
 * @param {Sheet} sheet
 * @param {() => void} ready called once they can be drawn
 * @returns {DrawFrame}
 */
export function framesOf(sheet, ready) {
  /** @type {ImageBitmap | null} */
  let bitmap = null;
  const image = new Image();
  image.onload = async () => {
    bitmap = await createImageBitmap(image); // decoded once, however often a frame is drawn
    ready();
  };
  image.src = sheet.url;
  return (context, index, ...box) => {
    const { columns, pitch, width, height } = sheet;
    const [left, top] = [(index % columns) * pitch[0], Math.floor(index / columns) * pitch[1]];
    if (bitmap) context.drawImage(bitmap, left, top, width, height, ...box);
  };
}

/** @param {{width: number, height: number}} sheet */
export function ratioOf({ width, height }) {
  return (height / width).toFixed(5);
}

/**
 * Gives a canvas whole pixels for each cell of a grid, so that no cell bleeds into the next.
 * @param {HTMLCanvasElement} canvas
 * @param {number} rows
 * @param {number} cols
 * @param {number} ratio height by width
 */
export function fitCells(canvas, rows, cols, ratio) {
  const across = Math.max(1, Math.round((canvas.clientWidth * pixelRatio()) / cols));
  const width = across * cols;
  const height = Math.max(1, Math.round((width * ratio) / rows)) * rows;
  resize(canvas, width, height);
  return { width, height };
}

/**
 * @param {Context} context
 * @param {(readonly [number, number])[]} points
 */
export function stroke(context, points) {
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}

/**
 * @param {Context} context
 * @param {number} x
 * @param {number} y
 * @param {number} radius
 */
export function disc(context, x, y, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

/**
 * One pixel for each place of a grid, to be drawn large without smoothing.
 * @param {number} rows
 * @param {number} cols
 * @param {(row: number, col: number) => number[]} rgbAt
 */
export function raster(rows, cols, rgbAt) {
  const canvas = make("canvas", { width: cols, height: rows }), context = contextOf(canvas);
  const pixels = context.createImageData(cols, rows);
  for (let i = 0; i < rows * cols; i++) pixels.data.set([...rgbAt(Math.floor(i / cols), i % cols), 255], 4 * i);
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/**
 * What lies over removed patches: their picture in the dark, or the colours over it, and thin lines of light.
 * @param {Context} context
 * @param {Path2D} removed
 * @param {boolean} isDimmed
 */
export function coverRemoved(context, removed, isDimmed = true) {
  const lines = hatch(context, Math.round(7 * pixelRatio()));
  for (const style of isDimmed ? [`rgb(0 0 0 / ${1 - DIMMED})`, lines] : [lines]) {
    context.fillStyle = style;
    context.fill(removed);
  }
}

/**
 * @param {Context} context
 * @param {number} size
 */
function hatch(context, size) {
  const tile = make("canvas", { width: size, height: size }), ink = contextOf(tile);
  ink.strokeStyle = "rgb(255 255 255 / .3)";
  ink.lineWidth = Math.max(1, size / 8);
  for (const shift of [-size, 0, size]) stroke(ink, [[shift, size], [shift + size, 0]]);
  return /** @type {CanvasPattern} */ (context.createPattern(tile, "repeat"));
}

/**
 * Dashes of amber on black, which show on any picture: around a placeholder.
 * @param {Context} context with its line width
 * @param {Box} box
 */
export function outline(context, [left, top, width, height]) {
  const inset = context.lineWidth / 2;
  const box = /** @type {const} */ ([left + inset, top + inset, width - 2 * inset, height - 2 * inset]);
  context.strokeStyle = "#000";
  context.strokeRect(...box);
  context.setLineDash([3 * context.lineWidth, 2 * context.lineWidth]);
  context.strokeStyle = "#ffb000";
  context.strokeRect(...box);
  context.setLineDash([]);
}

/**
 * White on black, around what was chosen.
 * @param {Context} context
 * @param {Box} box
 * @param {number} scale
 */
export function frameChosen(context, box, scale = 1) {
  for (const [ink, thick] of /** @type {const} */ ([["#000", 4], ["#fff", 2]])) {
    context.lineWidth = thick * scale;
    context.strokeStyle = ink;
    context.strokeRect(...box);
  }
}

/**
 * A mark below the bars, seen where the bar itself is very low or thin.
 * @param {Context} context
 * @param {Ink} ink
 * @param {number} middle
 * @param {number} bottom of the bars
 */
export function markBelow(context, ink, middle, bottom) {
  context.fillStyle = ink.accent;
  context.beginPath();
  context.moveTo(middle, bottom + 2);
  context.lineTo(middle - 4, bottom + 8);
  context.lineTo(middle + 4, bottom + 8);
  context.fill();
}

/**
 * Bars of how many patches each frame keeps, up to the number it has.
 * @param {Context} context
 * @param {Ink} ink
 * @param {Box} box
 * @param {{kept: number[], tokens: number, frame: number}} shown
 */
export function paintKeptBars(context, ink, [left, top, width, high], { kept, tokens, frame }) {
  const each = width / kept.length, gap = each > 4 ? 1 : 0, bottom = top + high;
  context.fillStyle = ink.soft;
  context.fillRect(left, top, width, high);
  kept.forEach((value, index) => {
    const tall = Math.max(1, (high * value) / tokens);
    context.fillStyle = index === frame ? ink.accent : ink.faint;
    context.fillRect(left + index * each, bottom - tall, Math.max(1, each - gap), tall);
  });
  markBelow(context, ink, left + (frame + 0.5) * each, bottom);
}

/**
 * Words below a picture, at its left and at its right.
 * @param {Context} context
 * @param {Ink} ink
 * @param {number} width
 * @param {number} height
 * @param {string} left
 * @param {string} right
 */
export function writeBelow(context, ink, width, height, left, right) {
  context.font = ink.font;
  context.fillStyle = ink.faint;
  context.textBaseline = "bottom";
  context.textAlign = "left";
  context.fillText(left, 0, height);
  context.textAlign = "right";
  context.fillText(right, width, height);
}
