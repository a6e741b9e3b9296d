// Pieces that every view of look.js is made of: words, controls, canvases, tables, colour scales.

export const NO_BREAK = "\u00a0";
export const count = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, NO_BREAK);
export const short = (number) => (number === 0 ? "0" : Number(number.toPrecision(3)).toString());

export function percent(share) {
  const whole = Math.round(100 * share);
  if (whole === 0 && share > 0) return `under${NO_BREAK}1${NO_BREAK}%`;
  if (whole === 100 && share < 1) return `over${NO_BREAK}99${NO_BREAK}%`;
  return `${whole}${NO_BREAK}%`;
}

export function clock(time_s) {
  const tenths = Math.floor(Math.abs(time_s) * 10 + 1e-6), two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(tenths / 36_000), Math.floor(tenths / 600)];
  const sign = time_s <= -0.1 ? "\u2212" : "", seconds = `${two(Math.floor((tenths % 600) / 10))}.${tenths % 10}`;
  if (hours >= 100) return `${sign}${count(Math.floor(hours / 24))}${NO_BREAK}d${NO_BREAK}${two(hours % 24)}:${two(minutes % 60)}:${seconds}`;
  return hours ? `${sign}${hours}:${two(minutes % 60)}:${seconds}` : `${sign}${minutes}:${seconds}`;
}

export function unpack(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Kind(bytes.buffer);
}

export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== undefined && child !== null));
  return node;
}

let made = 0;

// A labelled slider over whole numbers; moved(value) while it moves, released() when it is let go.
export function slider(label, max, moved, released, attributes = {}) {
  const id = `look-${++made}`;
  const input = make("input", { type: "range", id, min: 0, max, step: 1, ...attributes,
    oninput: () => moved(Number(input.value)), onchange: released });
  return { input, label: make("label", { for: id }, label) };
}

export function choice(label, options, chosen, changed) {
  const id = `look-${++made}`;
  const select = make("select", { id, onchange: () => changed(select.value) },
    ...options.map(([value, text]) => make("option", { value }, text)));
  select.value = chosen;
  return make("p", { class: "choice" }, make("label", { for: id }, label), select);
}

export function radios(legend, options, chosen, changed) {
  const name = `look-${++made}`;
  const items = options.map(([value, text, off]) => {
    const input = make("input", { type: "radio", name, value, disabled: off, onchange: () => changed(value) });
    input.checked = value === chosen;
    return make("label", { title: off }, input, make("span", {}, text));
  });
  return make("fieldset", { class: "radios" }, make("legend", {}, legend), ...items);
}

export function button(text, pressed, attributes = {}) {
  return make("button", { type: "button", onclick: pressed, ...attributes }, text);
}

// A canvas with its text in words; paint(context, width, height, colours) draws in CSS pixels.
// size: its style, a height or an aspect ratio.
export function picture(size, paint, attributes = {}) {
  const canvas = make("canvas", { role: "img", style: size, ...attributes });
  const draw = () => {
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width || !height) return;
    const scale = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    paint(context, width, height, colours(canvas));
  };
  return { canvas, draw };
}

export function colours(node) {
  const style = getComputedStyle(node);
  const read = (name) => style.getPropertyValue(`--look-${name}`).trim();
  return { text: read("text"), faint: read("faint"), line: read("line"), accent: read("accent"), soft: read("soft"), onAccent: read("on-accent"),
    font: `12px ${style.fontFamily}` };
}

// What a picture shows, as a table; filled when it is opened and after each release while it is open.
export function table(summary, title, rows) {
  const box = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title });
  const node = make("details", { class: "table", ontoggle: () => fill() }, make("summary", {}, summary), box);
  function fill() {
    if (!node.open) return;
    const [head, ...body] = rows();
    box.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, ...body.map((cells) => make("tr", {}, ...cells.map((text) => make("td", {}, String(text))))))));
  }
  return { node, fill };
}

// Draws at most once per screen refresh, and again when the width or the theme changes.
export function drawer(root, draw) {
  let asked = 0;
  const ask = () => { asked ||= requestAnimationFrame(() => { asked = 0; draw(); }); };
  const resized = new ResizeObserver(ask);
  resized.observe(root);
  const themed = new MutationObserver(ask);
  for (const node of [document.documentElement, document.body]) themed.observe(node, { attributeFilter: ["class", "data-theme", "data-jp-theme-light"] });
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

// Colour scales: perceptually even, readable without seeing red or green; twilight begins as it ends.

const SCALES = {
  cividis: "00224e 123570 3b496c 575d6d 707173 8a8678 a59c74 c3b369 e1cc55 fee838",
  viridis: "440154 482475 414487 355f8d 2a788e 21918c 22a884 44bf70 7ad151 bddf26 fde725",
  twilight: "e2d9e2 9ebbc9 6785be 5e43a5 421257 471340 8e2c50 ba6657 ceac94 e2d9e2",
};

export function colourScale(name) {
  const keys = SCALES[name].split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const steps = Array.from({ length: 256 }, (_, i) => {
    const place = (i / 255) * (keys.length - 1), low = Math.min(Math.floor(place), keys.length - 2);
    return keys[low].map((from, c) => Math.round(from + (place - low) * (keys[low + 1][c] - from)));
  });
  const at = (share) => `rgb(${at.rgb(share).join(" ")})`;
  at.rgb = (share) => steps[Math.round(255 * Math.min(1, Math.max(0, share)))];
  at.css = `linear-gradient(90deg, ${SCALES[name].split(" ").map((hex) => `#${hex}`).join(", ")})`;
  return at;
}

export const cividis = colourScale("cividis"), viridis = colourScale("viridis"), twilight = colourScale("twilight");

export function scaleBar(scale, low, high, title) {
  return make("span", { class: "bar" }, make("span", {}, `${title} ${low}`), make("i", { style: `background: ${scale.css}` }), make("span", {}, high));
}

export function stroke(context, points) {
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}

export function disc(context, x, y, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

// One pixel for each place of a grid, to be drawn large without smoothing.
export function raster(rows, cols, rgbAt) {
  const canvas = make("canvas", { width: cols, height: rows }), context = canvas.getContext("2d");
  const pixels = context.createImageData(cols, rows);
  for (let i = 0; i < rows * cols; i++) pixels.data.set([...rgbAt(Math.floor(i / cols), i % cols), 255], 4 * i);
  context.putImageData(pixels, 0, 0);
  return canvas;
}

// The frames of one sheet (made by vl3/viz/pack.py), drawn by number; ready() is called once they can be.
export function framesOf(sheet, ready) {
  let bitmap = null;
  const image = new Image();
  image.onload = async () => {
    bitmap = await createImageBitmap(image); // decoded once, however often a frame is drawn
    ready();
  };
  image.src = sheet.url;
  return (context, index, ...box) => {
    const { columns, pitch, width, height } = sheet;
    if (bitmap) context.drawImage(bitmap, (index % columns) * pitch[0], Math.floor(index / columns) * pitch[1], width, height, ...box);
  };
}

// Gives a canvas whole pixels for each cell of a grid, so that no cell bleeds into the next.
export function fitCells(canvas, rows, cols, ratio) {
  const across = Math.max(1, Math.round((canvas.clientWidth * (window.devicePixelRatio || 1)) / cols));
  const width = across * cols;
  const height = Math.max(1, Math.round((width * ratio) / rows)) * rows;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  return { width, height };
}

// What lies over removed patches: thin lines of light.
export function hatch(context, size) {
  const tile = make("canvas", { width: size, height: size }), ink = tile.getContext("2d");
  ink.strokeStyle = "rgb(255 255 255 / .3)";
  ink.lineWidth = Math.max(1, size / 8);
  for (const shift of [-size, 0, size]) stroke(ink, [[shift, size], [shift + size, 0]]);
  return context.createPattern(tile, "repeat");
}

export const DIMMED = 0.28; // brightness of a removed patch
