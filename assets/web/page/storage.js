// @ts-check
// What survives a reload: the name of this tab's conversation, its open view, and this browser's settings.
// Private windows may refuse storage; everything then lasts for this page.

import { find } from "../shared/dom.js";

/** @typedef {"sessionStorage" | "localStorage"} Storage */

const server = { defaults: /** @type {Record<string, any> | null} */ (null) };

/**
 * @param {Storage} storage
 * @param {string} name
 * @returns {string | null}
 */
export function stored(storage, name) {
  try {
    return window[storage].getItem(name);
  } catch {
    return null;
  }
}

/**
 * @param {Storage} storage
 * @param {string} name
 * @param {string | null} text null forgets it
 */
export function store(storage, name, text) {
  try {
    if (text === null) window[storage].removeItem(name);
    else window[storage].setItem(name, text);
  } catch { /* see above */ }
}

/** What the server hears of this browser when a page is opened. */
export function remembered() {
  const address = new URL(location.href);
  const link = address.searchParams.get("run");
  address.searchParams.delete("run");
  if (link) history.replaceState(null, "", address);
  return { link, name: stored("sessionStorage", "vl3-run"), settings: storedSettings(),
    theme: stored("localStorage", "vl3-theme"), tab: stored("sessionStorage", "vl3-tab") };
}

function storedSettings() {
  try {
    return JSON.parse(stored("localStorage", "vl3-settings") ?? "null");
  } catch {
    return null;
  }
}

/**
 * The widget that carries the conversation's name.
 * @param {Element} root
 * @param {Record<string, any>} value
 */
export function memory(root, value) {
  if (!value.name) return;
  store("sessionStorage", "vl3-run", value.name);
  server.defaults = value.defaults;
}

/**
 * Keeps the fields that are not as the server has them.
 * @param {any[]} fields in the order of the defaults
 */
export function keep(fields) {
  if (!server.defaults) return;
  const names = Object.keys(server.defaults), values = Object.values(server.defaults);
  const changed = names.flatMap((name, i) => (fields[i] === values[i] ? [] : [[name, fields[i]]]));
  store("localStorage", "vl3-settings", changed.length ? JSON.stringify(Object.fromEntries(changed)) : null);
}

/** A page with nothing on it is not asked for again. */
export function forgetEmpty() {
  if (!find("#chat .user-row") && !find(".vl3-player")?.dataset.url) store("sessionStorage", "vl3-run", null);
}
