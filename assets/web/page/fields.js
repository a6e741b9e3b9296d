// @ts-check
// What stands beside the fields: faults, what a question will cost, examples.

import { make } from "../shared/dom.js";
import { toAnswer } from "./conversation.js";
import { comes } from "./uploads.js";

/**
 * @typedef {import("./widget.js").Widget} Widget
 * @typedef {{title: string, url: string, questions?: string[]}} Clip
 */

const LABELS = {
  start: "From", end: "To", fps: "Frames per s", max_frames: "Max frames", budget_tokens: "Token budget",
  temperature: "Temperature", top_p: "Top-p", max_new_tokens: "Max new tokens",
  repetition_penalty: "Repetition penalty", seed: "Seed", threshold: "Threshold",
};

/** @type {Widget} */
export function faults(root, value) {
  const found = value.faults || {};
  root.replaceChildren(...Object.values(found).map((text) => make("p", { role: "alert" }, text)));
  const labels = [...document.querySelectorAll("#reading label, #settings label")];
  for (const [name, label] of Object.entries(LABELS)) {
    const of = labels.find((each) => each.querySelector("[data-testid=block-info]")?.textContent?.trim() === label);
    const field = of?.querySelector("input, textarea");
    if (name in found) field?.setAttribute("aria-invalid", "true");
    else field?.removeAttribute("aria-invalid");
  }
}

/** @type {Widget} */
export function budget(root, value) {
  const state = value.state || "empty";
  root.className = `vl3-budget ${state}`;
  if (state === "empty") return root.replaceChildren();
  const percent = Math.round(100 * (value.filled || 0));
  const bar = make("div", { class: "bar", role: "meter", "aria-label": "Share of the token limit",
    "aria-valuenow": percent, "aria-valuemin": 0, "aria-valuemax": 100 },
  make("b", { style: `width: ${Math.max(percent, 1)}%` }));
  const pruned = value.pruned ? make("span", {}, ` (${value.pruned})`) : null;
  const notes = (value.notes || []).map((/** @type {string} */ note) => make("p", { class: "remark" }, note));
  root.replaceChildren(...(state === "refused" ? [] : [bar]),
    make("div", { "aria-live": "polite" }, make("p", {}, value.text || "", pruned), ...notes));
}

/** @type {Widget} */
export function gallery(root, value, trigger) {
  /** @type {Clip[]} */
  const clips = value.clips || [];
  if (!clips.length) return root.replaceChildren();
  const cards = clips.map(({ title, url }, index) => {
    const chosen = () => {
      comes("example", title);
      trigger("example", { index });
    };
    return make("button", { class: "card", "aria-pressed": String(index === value.selected), title, onclick: chosen },
      make("img", { src: url, alt: "", loading: "lazy" }), make("span", {}, title));
  });
  const questions = (clips[value.selected]?.questions || []).map((question, number) => {
    const asked = () => {
      toAnswer();
      trigger("question", { index: value.selected, number });
    };
    return make("button", { class: "question", onclick: asked }, question);
  });
  root.replaceChildren(make("h2", {}, "Examples"), make("div", { class: "cards" }, ...cards),
    make("div", { class: "questions" }, ...questions));
}
