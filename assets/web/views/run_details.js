// @ts-check
// How an answer was made: where its time went, the prompt as the model read it, how to repeat it.

import { button, make } from "../shared/dom.js";
import { clockTenths, count, duration, percent } from "../shared/format.js";
import { cividis } from "./colours.js";
import { table } from "./controls.js";

/**
 * @typedef {import("./mount.js").Emit} Emit
 * @typedef {{name: string, time_s: number}} Stage
 * @typedef {{kind: string, text: string, tokens: number, clip: number, frame: number, frames: number,
 *   time_s: number | null}} Piece
 *   of the prompt
 * @typedef {{view: "run", stages: Stage[], total_s: number, pieces: Piece[], prompt: string, prompt_tokens: number,
 *   kept_tokens: number, sound_tokens: number, new_tokens: number, reused_tokens: number, reused_clips: number,
 *   first_token_s: number,
 *   tokens_per_s: number | null, seed: number | null, stopped: boolean, truncated: boolean, notes: string[],
 *   rows: [string, string][], blocks: {title: string, text: string}[], frame?: number | null
 *   }} RunData of vl3/viz/run.py
 */

const COPIED_MS = 1500;

/**
 * @param {Element} el
 * @param {RunData} data
 * @param {Emit} [emit]
 */
export function runDetailsView(el, data, emit) {
  const mark = (/** @type {number | null} */ frame) => markChips(el, frame);
  const goTo = emit && ((/** @type {number} */ frame) => {
    mark(frame);
    emit("frame", frame);
  });
  const chips = data.pieces.map((piece) => pieceOf(piece, goTo));
  const visual = `${count(data.prompt_tokens)} tokens, ${count(data.kept_tokens)} of them visual${ofSound(data)}`;
  const reused = data.reused_tokens ? ` · ${count(data.reused_tokens)} kept from the answer before` : "";
  const all = table("Show as table", "Tokens and times", () =>
    [["", ""], ...data.stages.map(({ name, time_s }) => [name, duration(time_s)]), ...data.rows]);
  const blocks = data.blocks.map(({ title, text }) => make("div", {}, heading(title, "", text),
    make("pre", { tabindex: 0, role: "region", "aria-label": title }, text)));
  el.replaceChildren(make("section", { class: "vl3-look run", "aria-label": "Run details" },
    make("div", { class: "top" }, make("p", { class: "readout" }, headline(data))),
    ...noteWords(data).map((text) => make("p", { class: "words" }, text)),
    make("h3", {}, "Time"), ...stageBar(data), all.node,
    heading("Prompt", visual + reused, data.prompt),
    make("div", { class: "prompt", tabindex: 0, role: "region", "aria-label": "Prompt" }, ...chips),
    make("div", { class: "blocks" }, ...blocks)));
  mark(data.frame ?? null);
  return {
    /** @param {Record<string, any>} changes */
    follow(changes) {
      if ("frame" in changes) mark(changes.frame);
    },
    destroy() {},
  };
}

/**
 * The stages as one bar, and as a list with their times.
 * @param {RunData} data
 */
function stageBar({ stages, total_s }) {
  const parts = stages.map(({ name, time_s }, index) => {
    const share = total_s > 0 ? time_s / total_s : 0, isRest = index === stages.length - 1;
    const colour = isRest ? "var(--look-line)" : cividis((index + 0.5) / (stages.length - 1));
    return { name, time: duration(time_s), share, colour, words: `${name} ${duration(time_s)}, ${percent(share)}` };
  });
  const bar = make("div", { class: "stages", role: "img",
    "aria-label": `${duration(total_s)} in all. ${parts.map(({ words }) => words).join("; ")}` },
  ...parts.map(({ share, colour, words }) =>
    make("i", { style: `flex: ${(100 * share).toFixed(3)} 0 0; background: ${colour}`, title: words })));
  const list = make("ol", { class: "parts" }, ...parts.map(({ name, time, share, colour }) => make("li", {},
    make("i", { style: `background: ${colour}` }), make("span", {}, name), make("b", {}, time),
    make("span", { class: "share" }, percent(share)))));
  return [bar, list];
}

/** @param {RunData} data */
function headline({ new_tokens, total_s, first_token_s, tokens_per_s }) {
  const speed = tokens_per_s ? ` · ${tokens_per_s.toFixed(tokens_per_s < 10 ? 1 : 0)} tokens/s` : "";
  const tokens = `${count(new_tokens)} ${new_tokens === 1 ? "token" : "tokens"}`;
  return `${tokens} in ${duration(total_s)} · first after ${duration(first_token_s)}${speed}`;
}

/** @param {RunData} data */
function noteWords({ seed, reused_clips, stopped, truncated, notes }) {
  const clips = reused_clips === 1 ? "The video was in memory already: there was nothing to read or encode."
    : "Videos that were in memory already were not read or encoded again.";
  const greedy = "Greedy: the most likely token each time, so the seed has no part in it.";
  return [
    seed === null ? greedy : `Sampled with seed ${seed}.`,
    reused_clips ? clips : "",
    stopped ? "Stopped before its end." : "",
    truncated ? "Cut off at the longest answer allowed." : "",
    ...notes,
  ].filter(Boolean);
}

/** @param {RunData} data */
function ofSound({ sound_tokens }) {
  return sound_tokens ? ` and ${count(sound_tokens)} of sound` : "";
}

/**
 * A piece of the prompt: its text, or the visual tokens of a frame, on a page that listens as a way to the frame.
 * @param {Piece} piece
 * @param {(frame: number) => void} [goTo]
 */
function pieceOf({ kind, text, tokens, clip, frame, frames, time_s }, goTo) {
  if (kind === "special") return make("span", { class: "special" }, text);
  if (kind === "sound") return make("span", { class: "chip sound" }, `${count(tokens)} of sound`);
  if (kind !== "slots") return text;
  const words = `${count(tokens)} visual ${tokens === 1 ? "token" : "tokens"}`;
  const which = frames > 1 ? `frames ${frame + 1} to ${frame + frames}` : `frame ${frame + 1}`;
  const place = time_s === null ? `Image ${clip + 1}` : `Clip ${clip + 1}, ${which}, ${clockTenths(time_s)}`;
  const attributes = { class: "chip", title: place, "data-frame": clip === 0 ? frame : null,
    "data-frames": clip === 0 ? frames : null };
  if (goTo && clip === 0 && time_s !== null) return button(words, () => goTo(frame), attributes);
  return make("span", attributes, words);
}

/**
 * @param {Element} el
 * @param {number | null} frame
 */
function markChips(el, frame) {
  for (const chip of /** @type {NodeListOf<HTMLElement>} */ (el.querySelectorAll(".chip"))) {
    const first = Number(chip.dataset.frame ?? NaN), end = first + Number(chip.dataset.frames);
    if (frame !== null && first <= frame && frame < end) chip.setAttribute("aria-current", "true");
    else chip.removeAttribute("aria-current");
  }
}

/**
 * A title with a button that copies what stands below it.
 * @param {string} title
 * @param {string} after
 * @param {string} text
 */
function heading(title, after, text) {
  const copy = button("Copy", async () => {
    await navigator.clipboard.writeText(text);
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, COPIED_MS);
  }, { class: "copy", "aria-label": `Copy ${title}` });
  return make("div", { class: "heading" }, make("h3", {}, title), after ? make("span", {}, after) : null,
    navigator.clipboard ? copy : null);
}
