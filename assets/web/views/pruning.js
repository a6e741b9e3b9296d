// @ts-check
// What the pruner removes, under any threshold.

import { button, fieldOf, make } from "../shared/dom.js";
import { clockTenths, count, percent, short } from "../shared/format.js";
import { drawer, framesOf, picture, ratioOf } from "./canvas.js";
import { cividis, scaleBar, swatch, viridis } from "./colours.js";
import { choice, radios, slider, table } from "./controls.js";
import { BRIGHT_LEVELS, DARK_LEVELS, paintBars, paintCurve, paintFrame } from "./pruning_canvas.js";
import { NUDGE, PLACEHOLDER, pruner, stepAt, STEPS, thresholdAt } from "./pruning_rule.js";

/**
 * @typedef {import("./mount.js").Emit} Emit
 * @typedef {import("./pruning_rule.js").PruningData} PruningData
 * @typedef {import("./pruning_rule.js").Rule} Rule
 * @typedef {ReturnType<typeof newState>} State
 * @typedef {object} View
 * @property {State} state
 * @property {ReturnType<typeof partsOf>} parts
 * @property {HTMLElement} root
 * @property {ReturnType<typeof drawer>} drawing
 * @property {Emit} [emit]
 * @property {number} timer of playing
 */

const TOO_LONG = "This clip has too many frames";
const FRAME_MS = 125; // of each frame while the clip is played

/**
 * @param {Element} el
 * @param {PruningData} data
 * @param {Emit} [emit]
 */
export function pruningView(el, data, emit) {
  const state = newState(data);
  const view = /** @type {View} */ ({ state, emit, timer: 0 });
  view.parts = partsOf(view);
  view.root = rootOf(view);
  el.replaceChildren(view.root);
  view.drawing = drawer(view.root, () => draw(view));
  const shortcut = (/** @type {KeyboardEvent} */ event) => thresholdKey(view, event);
  document.addEventListener("keydown", shortcut);
  state.drawFrame = framesOf(data.sheet, () => view.drawing.ask());
  refresh(view);
  released(view);
  return {
    shown() {
      const { threshold, mode, keep } = state.chosen;
      return { threshold, mode, keep, frame: state.frame };
    },
    /** @param {Record<string, any>} changes */
    follow(changes) {
      if ("used" in changes) use(view, changes.used);
      if ("frame" in changes) state.frame = Math.min(Math.max(0, changes.frame), data.frames - 1);
      refresh(view);
    },
    destroy() {
      clearInterval(view.timer);
      document.removeEventListener("keydown", shortcut);
      view.drawing.end();
    },
  };
}

/** @param {PruningData} data */
function newState(data) {
  const rule = pruner(data), used = data.used;
  const isUnknown = !rule.knowsPairs && used?.mode === "last_kept"; // the model's rule cannot be followed here
  const chosen = { ...data.defaults, ...used, ...(isUnknown && { mode: data.defaults.mode }) };
  return {
    data, rule, used, isUnknown, chosen,
    isImage: data.times_s === null,
    applied: /** @type {Rule | null} */ (null),
    frame: Math.min(data.frame || 0, data.frames - 1),
    layer: "removed",
    decision: rule.decide(chosen),
    curve: /** @type {number[] | null} */ (null), // share kept at every NUDGE of the threshold, once it was drawn
    drawFrame: /** @type {import("./canvas.js").DrawFrame} */ (() => {}),
  };
}

/** @param {View} view */
function partsOf(view) {
  const { state } = view, { data, rule } = state, done = () => released(view);
  const modes = data.modes.filter(([mode]) => mode !== "last_kept" || rule.knowsPairs);
  return {
    readout: make("p", { class: "readout" }),
    spoken: make("p", { class: "spoken", "aria-live": "polite" }),
    badge: make("span", { class: "badge" }),
    apply: button("Apply to next answer", () => applyNow(view), { class: "apply" }),
    note: make("p", { class: "words" }),
    canvas: make("canvas", { role: "img", class: "frame", style: `--ratio: ${ratioOf(data.sheet)}` }),
    legend: make("p", { class: "legend" }),
    play: button("Play", () => toggle(view), { class: "play" }),
    frame: slider("Frame", data.frames - 1, (index) => goTo(view, index), done),
    layers: radios("Show", [["removed", "Removed"], ["heat", "Heat of change"],
      ["drift", "Drift", rule.knowsPairs ? false : TOO_LONG], ["off", "Off"]], state.layer, (layer) => {
      state.layer = layer;
      refresh(view);
      released(view);
    }),
    levels: make("output", { class: "levels" }),
    threshold: slider("Threshold", STEPS, (step) => choose(view, { threshold: thresholdAt(step) }), done),
    mode: choice("Compare with", modes, state.chosen.mode, (mode) => {
      choose(view, { mode });
      released(view);
    }),
    side: choice("Of two alike", data.sides, state.chosen.keep, (keep) => {
      choose(view, { keep });
      released(view);
    }),
    bars: picture("height: 108px", (...args) => paintBars(state, ...args),
      { class: "bars", onclick: (/** @type {MouseEvent} */ event) => pickBar(view, event) }),
    line: picture("height: 150px", (...args) => paintCurve(state, ...args)),
    perFrame: table("Show as table", "Kept patches of every frame", () => rows(state)),
  };
}

/** @param {View} view */
function rootOf(view) {
  const { state, parts, emit } = view, { isImage, data } = state;
  const imageWords = "An image is never pruned: there is no earlier frame to repeat. "
    + `The model sees all ${count(data.tokens)} patches.`;
  const playRow = make("div", { class: "row" }, parts.play, parts.frame.label, parts.frame.input);
  return make("section", { class: "vl3-look pruning", "aria-label": "Pruning",
    onkeydown: (/** @type {KeyboardEvent} */ event) => frameKey(view, event) },
  make("div", { class: "top" }, parts.readout, parts.badge, emit ? parts.apply : null),
  parts.note, parts.spoken,
  make("div", { class: "halves" },
    make("div", { class: "main" }, parts.canvas, parts.legend, isImage ? null : playRow),
    isImage ? make("div", { class: "side" }, make("p", { class: "words" }, imageWords)) : sideHalf(view)),
  isImage ? null : parts.perFrame.node);
}

/** @param {View} view */
function sideHalf(view) {
  const { parts } = view;
  /** @type {(sign: string, direction: number, name: string, key: string) => HTMLButtonElement} */
  const nudger = (sign, direction, name, key) =>
    button(sign, () => nudge(view, direction), { "aria-label": name, title: `${name} (${key})` });
  return make("div", { class: "side" }, parts.layers,
    make("div", { class: "threshold" }, parts.threshold.label, parts.levels,
      make("div", { class: "row" }, nudger("−", -1, "Lower threshold", "["), parts.threshold.input,
        nudger("+", 1, "Higher threshold", "]"))),
    make("div", { class: "choices" }, parts.mode.node, parts.side.node),
    make("h3", {}, "Kept in each frame"), parts.bars.canvas,
    make("h3", {}, "Kept at each threshold"), parts.line.canvas);
}

// What a person does

/**
 * @param {View} view
 * @param {Partial<Rule>} changes
 */
function choose(view, changes) {
  const { state } = view;
  state.chosen = { ...state.chosen, ...changes };
  if (!("threshold" in changes)) state.curve = null;
  state.decision = state.rule.decide(state.chosen);
  refresh(view);
}

/**
 * Other settings are used now; who had not moved away from those before goes along.
 * @param {View} view
 * @param {Rule | null} used
 */
function use(view, used) {
  const { state } = view;
  const goesAlong = !differs(state) && used && (used.mode in state.data.steps || state.rule.knowsPairs);
  [state.used, state.applied] = [used, null];
  if (goesAlong) choose(view, { ...state.data.defaults, ...used });
}

/**
 * @param {View} view
 * @param {number} direction
 */
function nudge(view, direction) {
  const step = stepAt(view.state.chosen.threshold) + direction * NUDGE;
  choose(view, { threshold: thresholdAt(Math.min(STEPS, Math.max(0, step))) });
  released(view);
}

/**
 * @param {View} view
 * @param {number} index
 */
function goTo(view, index) {
  const { state } = view;
  if (index === state.frame || index < 0 || index >= state.data.frames) return;
  state.frame = index;
  refresh(view);
  view.emit?.("frame", index);
}

/**
 * @param {View} view
 * @param {MouseEvent} event
 */
function pickBar(view, { offsetX }) {
  const { frames } = view.state.data, share = offsetX / view.parts.bars.canvas.clientWidth;
  goTo(view, Math.min(frames - 1, Math.max(0, Math.floor(share * frames))));
  released(view);
}

/** @param {View} view */
function applyNow(view) {
  const { state } = view, { threshold, mode, keep } = state.chosen;
  state.applied = state.chosen;
  refresh(view);
  view.emit?.("apply", { threshold, mode, keep });
}

/**
 * @param {View} view
 * @param {KeyboardEvent} event
 */
function frameKey(view, event) {
  const direction = { ",": -1, ".": 1 }[event.key];
  if (!direction || /** @type {Element} */ (event.target).matches("input, select, summary")) return;
  event.stopPropagation(); // the page would move its player as well, which then moves this
  goTo(view, view.state.frame + direction);
  released(view);
}

/**
 * The threshold has keys of its own wherever the focus is, as long as the view can be seen.
 * @param {View} view
 * @param {KeyboardEvent} event
 */
function thresholdKey(view, event) {
  const direction = { "[": -1, "]": 1 }[event.key];
  if (!direction || fieldOf(event.target) || view.state.isImage) return;
  if (event.ctrlKey || event.metaKey || !view.root.offsetParent) return;
  event.preventDefault();
  nudge(view, direction);
}

/** @param {View} view */
function toggle(view) {
  const runs = view.timer !== 0, { frames } = view.state.data;
  clearInterval(view.timer);
  view.timer = runs ? 0 : window.setInterval(() => goTo(view, (view.state.frame + 1) % frames), FRAME_MS);
  view.parts.play.textContent = runs ? "Play" : "Pause";
  released(view);
}

// What it says

/** @param {State} state */
function differs({ data, used, chosen }) {
  const now = { ...data.defaults, ...used };
  return !used || chosen.mode !== now.mode || chosen.threshold !== now.threshold || chosen.keep !== now.keep;
}

/** @param {State} state */
function when({ data, frame }) {
  return data.times_s ? ` · ${clockTenths(data.times_s[frame])}` : "";
}

/** @param {State} state */
function greyWords({ data, chosen }) {
  const grey = chosen.threshold * data.levels[chosen.mode];
  return `about ${short(grey)} grey ${grey === 1 ? "level" : "levels"}`;
}

/** @param {State} state */
function summary({ data, decision, isImage, frame }) {
  const { frames, tokens } = data, { kept, total } = decision, all = frames * tokens;
  if (isImage) return `Image · ${count(tokens)} patches, all kept`;
  const clip = `clip ${count(total)} of ${count(all)} (${percent(total / all)})`;
  return `Frame ${frame + 1} of ${frames} · kept ${count(kept[frame])} of ${count(tokens)} · ${clip}`;
}

/** @param {State} state */
function noteWords({ isImage, used, isUnknown }) {
  if (isImage) return "";
  if (!used) return "Pruning is off: the model sees every patch.";
  return isUnknown ? `${TOO_LONG} to show the model's rule, last kept.` : "";
}

/** @param {View} view */
function refresh(view) {
  const { state, parts } = view, { chosen, applied, isImage, frame, data } = state;
  parts.readout.textContent = summary(state);
  parts.frame.input.value = String(frame);
  parts.frame.input.setAttribute("aria-valuetext", `${frame + 1} of ${data.frames}${when(state)}`);
  parts.threshold.input.value = String(stepAt(chosen.threshold));
  parts.threshold.input.setAttribute("aria-valuetext", `${chosen.threshold}, ${greyWords(state)}`);
  parts.levels.textContent = `${chosen.threshold} · ${greyWords(state)}`;
  parts.note.textContent = noteWords(state);
  const isPreview = !isImage && differs(state), isApplied = applied === chosen;
  const badge = isApplied ? "Used from the next answer on" : "Preview – not used yet";
  parts.badge.textContent = isPreview ? badge : "";
  parts.apply.disabled = !isPreview || isApplied;
  parts.apply.hidden = isImage;
  view.drawing.ask();
}

/**
 * What pictures show, for those who hear it: on release and not while something is dragged.
 * @param {View} view
 */
function released({ state, parts }) {
  const words = summary(state), { data, decision, chosen, frame } = state, { frames, tokens } = data;
  const placeholders = placeholdersIn(state, frame);
  const noted = placeholders ? `, ${placeholders} of them placeholders` : "";
  parts.spoken.textContent = words;
  const say = (/** @type {Element} */ node, /** @type {string} */ text) => node.setAttribute("aria-label", text);
  say(parts.canvas, `${data.source || "Clip"}: ${words}${noted}${when(state)}`);
  const [least, best] = [Math.min(...decision.kept), Math.max(...decision.kept)];
  say(parts.bars.canvas, `Kept patches of every frame, between ${least} and ${best} of ${tokens}`);
  const share = percent(decision.total / (frames * tokens));
  say(parts.line.canvas, `Share kept at every threshold; at ${chosen.threshold} it is ${share}`);
  parts.legend.replaceChildren(...marks(state));
  parts.perFrame.fill();
}

/**
 * @param {State} state
 * @param {number} frame
 */
function placeholdersIn({ data, decision }, frame) {
  const states = decision.state.subarray(frame * data.tokens, (frame + 1) * data.tokens);
  return states.filter((state) => state === PLACEHOLDER).length;
}

/**
 * The legend of the frame.
 * @param {State} state
 */
function marks({ isImage, layer, decision, data, frame }) {
  if (isImage || layer === "off") return [];
  const marks = [swatch("removed", "removed"), swatch("placeholder", "placeholder, kept so that no frame is empty")];
  if (layer === "removed") return marks;
  const high = `${BRIGHT_LEVELS} grey levels`;
  if (layer === "drift") return [scaleBar(viridis, DARK_LEVELS, high, "From the last kept version"), ...marks];
  const alone = decision.change[frame * data.tokens] === Infinity;
  const scale = alone ? make("span", {}, "This frame comes first: there is nothing to compare it with.")
    : scaleBar(cividis, DARK_LEVELS, high, "Change");
  return [scale, ...marks];
}

/** @param {State} state */
function rows(state) {
  const { data, decision } = state, { times_s, tokens } = data;
  const head = ["Frame", ...(times_s ? ["Time"] : []), "Kept", "Removed", "Placeholders"];
  const body = decision.kept.map((kept, index) => [index + 1, ...(times_s ? [clockTenths(times_s[index])] : []),
    kept, tokens - kept, placeholdersIn(state, index)]);
  return [head, ...body];
}

/** @param {View} view */
function draw({ state, parts }) {
  paintFrame(state, parts.canvas);
  if (state.isImage) return;
  parts.bars.draw();
  parts.line.draw();
}
