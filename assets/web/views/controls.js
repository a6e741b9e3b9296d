// @ts-check
// Controls that the views are made of: sliders, choices, tables.

import { make } from "../shared/dom.js";

/**
 * @typedef {{input: HTMLInputElement, label: HTMLLabelElement}} Slider
 * @typedef {{node: HTMLDetailsElement, fill(): void}} Table
 */

let made = 0;

function newId() {
  made += 1;
  return `look-${made}`;
}

/**
 * A labelled slider over whole numbers.
 * @param {string} label
 * @param {number} max
 * @param {(value: number) => void} moved while it moves
 * @param {() => void} released when it is let go
 * @returns {Slider}
 */
export function slider(label, max, moved, released) {
  const id = newId();
  const input = make("input", { type: "range", id, min: 0, max, step: 1,
    oninput: () => moved(Number(input.value)), onchange: released });
  return { input, label: make("label", { for: id }, label) };
}

/**
 * @param {Slider} slider
 * @param {string} kind
 */
export function sliderRow({ label, input }, kind = "row") {
  return make("div", { class: kind }, label, input);
}

/**
 * @param {string} label
 * @param {(readonly [string | number, string])[]} options values and their texts
 * @param {string | number} chosen
 * @param {(value: string) => void} changed
 */
export function choice(label, options, chosen, changed) {
  const id = newId();
  const select = make("select", { id, onchange: () => changed(select.value) },
    ...options.map(([value, text]) => make("option", { value }, text)));
  select.value = String(chosen);
  return { node: make("p", { class: "choice" }, make("label", { for: id }, label), select), select };
}

/**
 * @param {string} legend
 * @param {(readonly [string, string, (string | false)?])[]} options values, texts, and why one is off
 * @param {string} chosen
 * @param {(value: string) => void} changed
 */
export function radios(legend, options, chosen, changed) {
  const name = newId();
  const items = options.map(([value, text, off]) => {
    const input = make("input", { type: "radio", name, value, disabled: off, onchange: () => changed(value) });
    input.checked = value === chosen;
    return make("label", { title: off }, input, make("span", {}, text));
  });
  return make("fieldset", { class: "radios" }, make("legend", {}, legend), ...items);
}

/**
 * What a picture shows, as a table; filled when it is opened and after each release while it is open.
 * @param {string} summary
 * @param {string} title
 * @param {() => (string | number)[][]} rows the first is the head
 * @returns {Table}
 */
export function table(summary, title, rows) {
  const box = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title });
  const node = make("details", { class: "table", ontoggle: fill }, make("summary", {}, summary), box);
  function fill() {
    if (!node.open) return;
    const [head, ...body] = rows();
    const heads = head.map((text) => make("th", { scope: "col" }, String(text)));
    const lines = body.map((cells) => make("tr", {}, ...cells.map((text) => make("td", {}, String(text)))));
    box.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...lines)));
  }
  return { node, fill };
}
