// @ts-check
// Elements. Text of people, files and models only ever becomes textContent or an attribute, never markup.

/**
 * The first element that a selector finds, or null; its kind is known to whoever asks.
 * @param {string} selector
 * @returns {any}
 */
export function find(selector) {
  return document.querySelector(selector);
}

/**
 * A new element. Attributes named on... are listeners; those that are undefined, null or false are left out,
 * like such children.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, any>} attributes
 * @param {...(Node | string | null | undefined)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value);
  }
  for (const child of children) if (child !== undefined && child !== null) node.append(child);
  return node;
}

/**
 * @param {string} text
 * @param {(event: MouseEvent) => void} pressed
 * @param {Record<string, any>} attributes
 */
export function button(text, pressed, attributes = {}) {
  return make("button", { type: "button", onclick: pressed, ...attributes }, text);
}

/**
 * Whether what happened there is typing, so that keys and drops are not for the page.
 * @param {EventTarget | null} target
 * @returns {Element | null}
 */
export function fieldOf(target) {
  const fields = "textarea, [contenteditable], input:not([type=range], [type=radio], [type=checkbox])";
  return target instanceof Element ? target.closest(fields) : null;
}
