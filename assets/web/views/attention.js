// @ts-check
// Where every token of an answer looked, painted on what it looked at.

import { cellAt, frameAt, paintTotals } from "./attention_canvas.js";
import { clamp, most } from "./attention_maps.js";
import { partsOf, rootOf } from "./attention_parts.js";
import { draw, refresh, refreshTokens, released } from "./attention_render.js";
import { look, mapsFrom, newState } from "./attention_state.js";
import { cellWords, weightWords } from "./attention_text.js";
import { drawer, framesOf } from "./canvas.js";

/**
 * @typedef {import("./attention_maps.js").PackedMaps} PackedMaps
 * @typedef {import("./attention_maps.js").Place} Place
 * @typedef {import("./attention_maps.js").Refused} Refused
 * @typedef {import("./attention_parts.js").Actions} Actions
 * @typedef {import("./attention_state.js").AttentionData} AttentionData
 * @typedef {import("./attention_state.js").State} State
 * @typedef {import("./mount.js").Emit} Emit
 * @typedef {import("./attention_render.js").View} View
 */

const LOST_MS = 30_000; // after which a question without an answer no longer holds up the next
const WORD_MS = 700; // of each word while the answer is played

/**
 * @param {Element} el
 * @param {AttentionData} data
 * @param {Emit} [emit]
 */
export function attentionView(el, data, emit) {
  const state = newState(data, Boolean(emit));
  const view = /** @type {View} */ ({ state, emit, timer: 0, asked: null });
  const act = view.act = actionsOf(view);
  view.parts = partsOf(state, act);
  view.root = rootOf(state, view.parts, act);
  el.replaceChildren(view.root);
  view.drawing = drawer(view.root, () => draw(view));
  view.drawFrame = state.media.map(({ sheet }) => framesOf(sheet, () => view.drawing.ask()));
  const keys = (/** @type {KeyboardEvent} */ event) => keyed(view, event);
  document.addEventListener("keydown", keys);
  view.parts.opacity.input.value = String(100 * state.opacity);
  changed(view);
  released(view);
  return {
    shown() {
      const { source, layers, heads, token, medium, frame } = state;
      return { source, layer: layers[source], head: heads[source], token, medium, frame };
    },
    /** @param {Record<string, any>} changes */
    follow: (changes) => follow(view, changes),
    destroy() {
      stop(view);
      document.removeEventListener("keydown", keys);
      view.drawing.end();
      view.parts.heard?.destroy();
    },
  };
}

/**
 * @param {View} view
 * @returns {Actions}
 */
function actionsOf(view) {
  const { state } = view;
  const setLooks = (/** @type {Partial<State>} */ changes) => {
    Object.assign(state, changes);
    refresh(view);
  };
  return {
    lock: (index) => lock(view, index),
    preview: (index) => preview(view, index),
    play: () => toggle(view),
    goTo: (frame, medium) => goTo(view, frame, medium),
    goToStrongest: () => goToStrongest(view),
    pickTotal: (event) => pickTotal(view, event),
    choosePatch: (place) => choosePatch(view, place),
    pickPatch: (event) => pickPatch(view, event),
    pointAt: (event) => {
      view.parts.under.textContent = event ? weightWords(state, patchUnder(view, event)) : "";
    },
    pickCell: (event) => pickCell(view, event),
    pointAtCell: (event) => {
      const { canvas } = view.parts.matrix;
      canvas.title = cellWords(state, cellAt(state, canvas, event));
    },
    set: (changes) => {
      Object.assign(state, changes);
      changed(view);
    },
    setLooks,
    setLayer: (layer) => {
      state.layers[state.source] = layer;
      changed(view);
    },
    setHead: (head) => {
      state.heads[state.source] = head;
      changed(view);
      released(view);
    },
    released: () => released(view),
    paintTotals: (...args) => paintTotals(state, view.drawFrame, ...args),
  };
}

/**
 * @param {View} view
 * @param {Record<string, any>} changes
 */
function follow(view, changes) {
  const { state } = view, { media, words } = state;
  if ("maps" in changes) take(view, changes.maps);
  if ("token" in changes) state.token = clamp(changes.token, words.length);
  if ("medium" in changes) [state.medium, state.frame] = [clamp(changes.medium, media.length), 0];
  if ("frame" in changes) state.frame = clamp(changes.frame, media[state.medium]?.frames || 1);
  changed(view);
}

/**
 * Asks for the maps that are wanted and not there; one question at a time, the latest wish next.
 * @param {View} view
 */
function ask(view) {
  const { state, emit } = view, { source, store, layers } = state;
  if (!emit || source === "mean" || !state.media.length) return;
  const from = mapsFrom(state);
  if (from < 0 || store.get(source, from, layers[source]) || state.problems.has(`${source} ${from}`)) return;
  const name = store.name(source, from, layers[source]), now = performance.now();
  if (view.asked && (view.asked.name === name || now - view.asked.time < LOST_MS)) return;
  view.asked = { name, time: now };
  emit("need", { source, token: from, layer: layers[source] ?? 0 });
}

/**
 * @param {View} view
 * @param {PackedMaps | Refused} maps
 */
function take(view, maps) {
  const { state } = view;
  view.asked = null;
  if ("problem" in maps) state.problems.set(`${maps.source} ${maps.token}`, maps.problem);
  else state.store.put(maps);
  ask(view); // what was wanted meanwhile
  refreshTokens(view);
  relook(view);
  released(view);
}

/**
 * Other weights are wanted.
 * @param {View} view
 */
function changed(view) {
  view.state.hover = null;
  ask(view);
  refreshTokens(view);
  relook(view);
}

/** @param {View} view */
function relook(view) {
  look(view.state);
  refresh(view);
}

// What a person does

/**
 * @param {View} view
 * @param {number} index
 */
function lock(view, index) {
  const { state } = view;
  if (index < 0 || index >= state.words.length) return;
  const isNew = index !== state.token;
  state.token = index;
  state.problems.clear();
  changed(view);
  released(view);
  if (isNew) view.emit?.("token", index);
}

/**
 * @param {View} view
 * @param {number | null} index
 */
function preview(view, index) {
  const { state } = view, next = index === state.token ? null : index;
  if (next === state.hover) return;
  state.hover = next;
  relook(view);
}

/**
 * @param {View} view
 * @param {number} direction
 */
function step(view, direction) {
  const { strip, tokens } = view.parts, inStrip = strip.contains(document.activeElement);
  lock(view, view.state.token + direction);
  const node = tokens[view.state.token];
  if (inStrip) node.focus({ preventScroll: true });
  const [top, bottom] = [node.offsetTop, node.offsetTop + node.offsetHeight];
  if (top < strip.scrollTop || bottom > strip.scrollTop + strip.clientHeight) strip.scrollTop = top;
}

/** @param {View} view */
function toggle(view) {
  const { state } = view, runs = view.timer !== 0, last = state.words.length - 1;
  stop(view);
  if (runs) return;
  if (state.token === last) lock(view, 0);
  view.parts.play.textContent = "Pause";
  view.timer = window.setInterval(() => (state.token < last ? step(view, 1) : stop(view)), WORD_MS);
}

/** @param {View} view */
function stop(view) {
  clearInterval(view.timer);
  view.timer = 0;
  view.parts.play.textContent = "Play";
}

/**
 * Words have the arrow keys wherever the focus is, as long as nothing there needs them itself.
 * @param {View} view
 * @param {KeyboardEvent} event
 */
function keyed(view, event) {
  const { root, state } = view, target = /** @type {Element} */ (event.target), inside = root.contains(target);
  if (event.ctrlKey || event.metaKey || event.altKey || !root.offsetParent) return;
  if (!inside && target !== document.body) return;
  if (target.matches("input, select, textarea, .scroll")) return;
  const words = { ArrowLeft: -1, ArrowRight: 1 }[event.key], frames = inside && { ",": -1, ".": 1 }[event.key];
  if (!words && !frames) return;
  event.preventDefault();
  event.stopPropagation(); // the page would move its player as well, which then moves this
  if (words) return step(view, words);
  goTo(view, state.frame + Number(frames));
  released(view);
}

/**
 * @param {View} view
 * @param {number} index
 * @param {number} which medium
 */
function goTo(view, index, which = view.state.medium) {
  const { state } = view, isOther = which !== state.medium;
  if ((index === state.frame && !isOther) || index < 0 || index >= state.media[which].frames) return;
  [state.medium, state.frame] = [which, index];
  refresh(view);
  if (isOther) view.emit?.("medium", which);
  view.emit?.("frame", index);
}

/** @param {View} view */
function goToStrongest(view) {
  const { totals, slots } = view.state, number = most(totals.length, (index) => totals[index]);
  const which = slots.mediumOf(number);
  goTo(view, number - slots.starts[which], which);
  released(view);
}

/**
 * @param {View} view
 * @param {MouseEvent} event
 */
function pickTotal(view, event) {
  const { medium, frame } = frameAt(view.state, event.offsetX, view.parts.totals.canvas.clientWidth);
  goTo(view, frame, medium);
  released(view);
}

/**
 * @param {View} view
 * @param {MouseEvent} event
 * @returns {Place}
 */
function patchUnder({ state, parts }, { offsetX, offsetY }) {
  const { medium, frame } = state, { rows, cols } = state.media[medium], { clientWidth, clientHeight } = parts.canvas;
  return { medium, frame, row: clamp(Math.floor((offsetY / clientHeight) * rows), rows),
    col: clamp(Math.floor((offsetX / clientWidth) * cols), cols) };
}

/**
 * A click on the chosen patch chooses none.
 * @param {View} view
 * @param {MouseEvent} event
 */
function pickPatch(view, event) {
  const at = patchUnder(view, event), { patch } = view.state;
  const names = /** @type {const} */ (["medium", "frame", "row", "col"]);
  const isSame = patch && names.every((name) => at[name] === patch[name]);
  choosePatch(view, isSame ? null : at);
  released(view);
}

/**
 * @param {View} view
 * @param {Place | null} at
 */
function choosePatch(view, at) {
  view.state.patch = at;
  view.state.problems.clear();
  changed(view);
}

/**
 * @param {View} view
 * @param {MouseEvent} event
 */
function pickCell(view, event) {
  const { state } = view, { layer, head } = cellAt(state, view.parts.matrix.canvas, event);
  if (!state.offered.has("language")) return;
  state.source = "language";
  [state.layers.language, state.heads.language] = [layer, head];
  state.problems.clear();
  changed(view);
  released(view);
}
