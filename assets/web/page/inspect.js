// @ts-check
// Inspect: tabs, each with a panel that shows what the server made for it. A view's data come from a file,
// since they are large; the panel's value says only where that lies.

import { find, make } from "../shared/dom.js";
import { mount } from "../views/mount.js";
import { frame, framesNow, goTo, nearest } from "./film_strip.js";
import { store, stored } from "./storage.js";

/**
 * @typedef {import("./film_strip.js").Frames} Frames
 * @typedef {import("./widget.js").Root} Root
 * @typedef {import("./widget.js").Server} Server
 * @typedef {import("./widget.js").Trigger} Trigger
 * @typedef {import("./widget.js").Widget} Widget
 */

/** @type {Record<string, string>} */
export const TABS = {
  pruning: "Pruning", positions: "Positions", attention: "Attention", compare: "Compare", run: "Run details",
};
const SAVED = [["png", "PNG", "This frame as a picture"], ["gif", "GIF", "The clip as an animation"],
  ["mp4", "MP4", "The clip as a video"], ["npz", "Mask", "The mask as a NumPy archive"]];
const WORDS = "Look inside: what the pruner removes, where positions put every patch, where each word of an answer "
  + "looked, and what made it.";

/** @returns {HTMLElement[]} */
function tabButtons() {
  return [...document.querySelectorAll("#tabs [role=tab]")].filter((node) => node instanceof HTMLElement);
}

/** @type {Widget} */
export function tabs(root, value, trigger) {
  if (root.firstChild || !value.tabs) return;
  const buttons = value.tabs.map((/** @type {string} */ name, /** @type {number} */ i) => {
    const pressed = () => {
      openTab(name);
      trigger("open", { tab: name });
    };
    return make("button", { role: "tab", id: `tab-${name}`, "data-tab": name, "aria-selected": "false",
      "aria-controls": `panel-${name}`, onclick: pressed, tabindex: i ? -1 : 0 }, TABS[name]);
  });
  const along = (/** @type {KeyboardEvent} */ event) => alongTabs(event, buttons);
  root.replaceChildren(make("h2", {}, "Inspect"),
    make("div", { role: "tablist", "aria-label": "Inspect", onkeydown: along }, ...buttons),
    make("button", { class: "link", title: "The opened views in one file that needs no server",
      onclick: () => trigger("whole", {}) }, "Save as HTML"),
    make("p", { class: "hint" }, WORDS));
  const last = stored("sessionStorage", "vl3-tab");
  if (last && value.tabs.includes(last)) openTab(last); // the server hears of it from remembered()
}

/** @param {string} name */
function openTab(name) {
  find("#inspect").dataset.open = name;
  store("sessionStorage", "vl3-tab", name);
  for (const tab of tabButtons()) {
    const isOpen = tab.dataset.tab === name, panel = find(`#panel-${tab.dataset.tab}`);
    tab.setAttribute("aria-selected", String(isOpen));
    tab.tabIndex = isOpen ? 0 : -1;
    panel?.setAttribute("role", "tabpanel");
    panel?.setAttribute("aria-labelledby", tab.id);
  }
}

/**
 * @param {KeyboardEvent} event
 * @param {HTMLElement[]} buttons
 */
function alongTabs(event, buttons) {
  const at = buttons.findIndex((button) => button === event.target);
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: buttons.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const button = buttons[(to + buttons.length) % buttons.length];
  button.focus();
  button.click();
}

/**
 * @param {number} number counted from 1
 * @returns {boolean} whether there is such a tab
 */
export function goToTab(number) {
  const button = tabButtons()[number - 1];
  if (!button) return false;
  button.click();
  button.focus();
  find("#inspect").scrollIntoView({ block: "start" });
  return true;
}

/**
 * A panel with one view: the file that its value names, followed by frame and settings.
 * @type {Widget}
 */
export function panel(root, value, trigger, server) {
  if (!root.body) {
    root.body = make("div", {});
    root.note = make("p", { class: "note", role: "status" });
    root.told = make("p", { class: "told" });
    root.replaceChildren(root.note, root.body, root.told);
    root.end = () => {};
  }
  root.value = value;
  root.note.textContent = value.note || (value.url ? "" : "One moment.");
  root.told.textContent = value.told || "";
  if (root.url !== value.url) fetchView(root, trigger, server);
  else if (root.view && value.used !== undefined) root.view.update({ used: value.used });
}

/**
 * @param {Root} root
 * @param {Trigger} trigger
 * @param {Server | null} server
 */
async function fetchView(root, trigger, server) {
  const { url } = root.value;
  root.end();
  root.end = () => {};
  root.view = null;
  root.url = url;
  root.body.replaceChildren();
  if (!url) return;
  root.note.textContent = "Fetching what to draw.";
  const answer = await fetch(url);
  const data = answer.ok ? await answer.json() : null;
  if (root.url !== url) return; // there is another one by now
  root.note.textContent = data ? "" : "What was made for this tab is gone. Open the tab again.";
  if (!data) root.url = null;
  else showView(root, data, trigger, server);
}

/**
 * @param {Root} root
 * @param {Record<string, any>} data
 * @param {Trigger} trigger
 * @param {Server | null} server
 */
function showView(root, data, trigger, server) {
  const place = make("div", {}), { media, used } = root.value, of = root.url;
  let medium = data.medium || 0; // of several videos, the one in view
  // Its times, while the player shows the same video.
  const times = () => (find(".vl3-player")?.dataset.key === media[medium]?.key ? media[medium].times_s : null);
  const frameNow = (/** @type {number} */ index, /** @type {Frames} */ { times_s }) =>
    (times() && index >= 0 ? nearest(times(), times_s[index]) : null);
  /** @type {Record<string, (detail: any) => void>} */
  const told = {
    apply: (rule) => trigger("adopt", rule),
    need: async (wanted) => {
      const maps = await server?.need({ ...wanted, of }).catch(() => null); // it asks again where nothing comes
      if (maps && root.url === of) root.view.update({ maps });
    },
    medium: (index) => { medium = index; },
    frame: (index) => { if (times()) goTo(times()[index]); },
  };
  root.body.replaceChildren(place);
  const view = mount(place, { ...data, used, frame: frameNow(frame.index, framesNow()) ?? 0 },
    (name, detail) => told[name]?.(detail));
  root.view = view;
  const unsubscribe = frame.subscribe((index, known) => {
    const at = frameNow(index, known);
    if (at !== null) view.update({ frame: at });
  });
  root.end = () => {
    unsubscribe();
    view.destroy();
  };
  if (data.view === "pruning") root.body.append(savers(view, Boolean(data.times_s), trigger));
}

/**
 * Ways to save the pruning of a clip or an image.
 * @param {import("../views/mount.js").Mounted} view
 * @param {boolean} isVideo
 * @param {Trigger} trigger
 */
function savers(view, isVideo, trigger) {
  const kinds = SAVED.filter(([kind]) => isVideo || kind === "png" || kind === "npz");
  return make("p", { class: "save" }, make("span", {}, "Save"), ...kinds.map(([kind, label, title]) =>
    make("button", { title, onclick: () => trigger("save", { kind, ...view.shown() }) }, label)));
}
