// @ts-check
// What the attention view shows of its state: each function writes one part of it to the screen.

import { make } from "../shared/dom.js";
import { clockTenths, count, percent, smallPercent } from "../shared/format.js";
import { paintFrame, paintHead, SHOWN_DECADES } from "./attention_canvas.js";
import { most } from "./attention_maps.js";
import { headShares, isLayered, patchPlace, readOfPatch, sizeOf, topOf, wordShare } from "./attention_state.js";
import { cellWords, noteWords, patchWords, strongestWords, summary, tintWords, tokenName } from "./attention_text.js";
import { ratioOf } from "./canvas.js";
import { cividis, scaleBar, swatch, viridis } from "./colours.js";

/**
 * @typedef {import("./attention_state.js").State} State
 * @typedef {import("./controls.js").Slider} Slider
 * @typedef {object} View
 * @property {State} state
 * @property {import("./attention_parts.js").Actions} act
 * @property {import("./attention_parts.js").Parts} parts
 * @property {HTMLElement} root
 * @property {ReturnType<typeof import("./canvas.js").drawer>} drawing
 * @property {import("./canvas.js").DrawFrame[]} drawFrame of every medium
 * @property {import("./mount.js").Emit} [emit]
 * @property {number} timer of playing
 * @property {{name: string, time: number} | null} asked the question that has no answer yet
 */

/** @param {View} view */
export function refresh(view) {
  const { state, parts } = view, { media, medium, frame, slots, shown } = state;
  parts.readout.textContent = summary(state);
  parts.note.textContent = noteWords(state);
  markTokens(view);
  parts.heard?.follow(shown.word);
  if (!media.length) return;
  const { frames, rows, cols, times_s, sheet } = media[medium];
  parts.canvas.style.setProperty("--ratio", ratioOf(sheet));
  const when = times_s ? ` · ${clockTenths(times_s[frame])}` : "";
  setSlider(parts.frame, frame, frames - 1, `${frame + 1} of ${frames}${when}`);
  const frameRow = /** @type {HTMLElement} */ (parts.frame.input.parentElement);
  frameRow.hidden = slots.numFrames < 2;
  parts.scale.hidden = frames < 2;
  if (parts.medium) parts.medium.select.value = String(medium);
  parts.opacity.input.setAttribute("aria-valuetext", percent(state.opacity));
  parts.source.select.value = state.source;
  refreshLayer(view);
  parts.sinks.disabled = shown.sinks.size === 0;
  parts.sinkWords.textContent = `Hide sinks (${shown.sinks.size ? count(shown.sinks.size) : "none found"})`;
  parts.sinkWords.title = "Patches that draw attention whatever the word";
  const at = patchPlace(state), { patch } = state;
  setSlider(parts.row, at.row, rows - 1, patch ? `row ${patch.row}` : "no patch chosen");
  setSlider(parts.col, at.col, cols - 1, patch ? `column ${patch.col}` : "no patch chosen");
  parts.noPatch.disabled = !patch;
  view.drawing.ask();
}

/**
 * @param {Slider} slider
 * @param {number} value
 * @param {number} max
 * @param {string} words
 */
function setSlider({ input }, value, max, words) {
  input.max = String(max);
  input.value = String(value);
  input.disabled = max < 1;
  input.setAttribute("aria-valuetext", words);
}

/** @param {View} view */
function refreshLayer(view) {
  const { state, parts } = view, layer = state.layers[state.source];
  const box = /** @type {HTMLElement} */ (parts.layer.label.parentElement);
  box.hidden = parts.heads.hidden = !isLayered(state);
  if (!isLayered(state)) return;
  const number = sizeOf(state, "layers") || 1;
  setSlider(parts.layer, layer, number - 1, `layer ${layer}`);
  parts.layerWords.textContent = `${layer} (0 to ${number - 1})`;
  refreshHeads(view);
}

/**
 * The heads of the layer, those with most of the picture first; sorted anew for a word, not for a preview.
 * @param {View} view
 */
function refreshHeads(view) {
  const { state, parts } = view, { source, hover, heads } = state, box = parts.heads;
  const shares = headShares(state), active = /** @type {HTMLElement} */ (document.activeElement);
  const focused = box.contains(active) ? active.dataset.head : undefined;
  const order = shares.map((_, head) => head).sort((a, b) => shares[b] - shares[a]);
  if (box.dataset.of !== source || box.children.length !== order.length + 1) {
    box.dataset.of = source;
    box.replaceChildren(...[null, ...order].map((head) => headButton(view, head)));
  }
  const buttons = /** @type {HTMLElement[]} */ ([...box.children]);
  const nodes = new Map(buttons.map((node) => [node.dataset.head, node]));
  if (hover === null) {
    const wanted = ["mean", ...order.map(String)];
    if (wanted.some((head, i) => buttons[i].dataset.head !== head)) {
      for (const head of wanted) box.append(/** @type {Node} */ (nodes.get(head)));
    }
    if (focused !== undefined) nodes.get(focused)?.focus({ preventScroll: true });
  }
  const isKnown = source === "language" || state.shown.source === source;
  for (const [head, node] of nodes) {
    node.setAttribute("aria-pressed", String(head === String(heads[source] ?? "mean")));
    const label = /** @type {Element} */ (node.querySelector("span"));
    if (head !== "mean") label.textContent = `Head ${head}${isKnown ? `\n${percent(shares[Number(head)])}` : ""}`;
  }
}

/**
 * @param {View} view
 * @param {number | null} head null for the mean of all
 */
function headButton(view, head) {
  const { rows, cols } = view.state.media[view.state.medium];
  const small = make("canvas", { "aria-hidden": "true", width: cols, height: rows });
  const pressed = () => view.act.setHead(head);
  return make("button", { type: "button", class: "head", "data-head": head ?? "mean", onclick: pressed },
    small, make("span", {}, "Mean of heads"));
}

/** @param {View} view */
export function refreshTokens({ state, parts }) {
  const read = readOfPatch(state), seesPictures = state.media.length > 0;
  parts.tokens.forEach((node, index) => {
    const name = tokenName(state, index, read);
    if (node.title !== name) {
      node.title = name;
      node.setAttribute("aria-label", name);
    }
    node.style.setProperty("--share", `${(100 * (seesPictures ? wordShare(state, index) : 0)).toFixed(1)}%`);
    node.style.setProperty("--tint", `${read && read.top ? ((48 * read.values[index]) / read.top).toFixed(1) : 0}%`);
  });
  parts.tinted.textContent = tintWords(state, read);
  parts.patchWords.textContent = patchWords(state, read);
}

/** @param {View} view */
function markTokens({ state, parts }) {
  for (const [index, node] of parts.tokens.entries()) {
    const isIt = index === state.token;
    if (node.classList.contains("previewed") !== (index === state.hover)) node.classList.toggle("previewed");
    if ((node.tabIndex === 0) === isIt && node.ariaPressed) continue;
    node.setAttribute("aria-pressed", String(isIt));
    node.tabIndex = isIt ? 0 : -1;
  }
}

/**
 * What pictures show, for those who hear it: on release and not while something is dragged.
 * @param {View} view
 */
export function released({ state, parts }) {
  if (state.hover !== null) return;
  const { media, medium, slots, totals, sizes, token } = state, seesPictures = media.length > 0;
  const strong = seesPictures ? strongestWords(state) : "";
  const heard = parts.heard ? `Attention on ${parts.heard.words(token)}` : "";
  const patch = state.patch ? parts.patchWords.textContent : "";
  const said = [summary(state) + strong, heard, patch, parts.note.textContent];
  parts.spoken.textContent = said.filter(Boolean).join(". ");
  parts.perWord.fill();
  if (!seesPictures) return;
  const removed = slots.removedIn(medium, state.frame);
  const without = removed ? `${count(removed)} patches of this frame were removed and have no value`
    : "no patch of this frame was removed";
  const say = (/** @type {Element} */ node, /** @type {string} */ text) => node.setAttribute("aria-label", text);
  say(parts.canvas, `${media[medium].source || "Picture"}: ${summary(state)}${strong}; ${without}`);
  const best = most(totals.length, (index) => totals[index]);
  say(parts.totals.canvas,
    `Share of every frame, highest in number ${best + 1} of ${totals.length} with ${smallPercent(totals[best])}`);
  const cell = most(sizes.layers * sizes.heads, (index) => state.share.at(token, index));
  const widest = cellWords(state, { layer: Math.floor(cell / sizes.heads), head: cell % sizes.heads });
  say(parts.matrix.canvas, `Share of attention on the ${state.where} by layer and head, highest: ${widest}`);
  parts.matrixScale.replaceChildren(scaleBar(viridis, "0", percent(state.share.at(token, cell)), "Share"));
  explain(state, parts.legend);
  parts.perFrame.fill();
}

/**
 * @param {State} state
 * @param {Element} legend
 */
function explain(state, legend) {
  const { slots, medium, hidesSinks, shown } = state, top = topOf(state, shown.weights);
  legend.replaceChildren(
    scaleBar(cividis, smallPercent(top / 10 ** SHOWN_DECADES), `${smallPercent(top)}, logarithmic`, "Weight"),
    ...(slots.places[medium].some((slot) => slot < 0) ? [swatch("removed", "removed, no value")] : []),
    ...(hidesSinks && shown.sinks.size ? [swatch("sink", "hidden sink")] : []));
}

/** @param {View} view */
export function draw({ state, parts, drawFrame }) {
  if (!state.media.length) return;
  paintFrame(state, parts.canvas, drawFrame[state.medium]);
  parts.totals.draw();
  parts.matrix.draw();
  if (parts.heads.hidden) return;
  for (const node of parts.heads.children) {
    const head = /** @type {HTMLElement} */ (node).dataset.head;
    const small = /** @type {HTMLCanvasElement} */ (node.querySelector("canvas"));
    paintHead(state, small, head === "mean" ? null : Number(head));
  }
}
