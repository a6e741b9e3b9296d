// @ts-check
// A question waits while a file is on its way: it is about that file, not about the one before.

import { find, make } from "../shared/dom.js";
import { toAnswer } from "./conversation.js";

/** @typedef {"upload" | "example" | "recall"} Kind by what a file was chosen */

const PATIENCE_MS = 120_000;

const state = {
  coming: /** @type {Map<Kind, string>} */ (new Map()), // names
  uploading: 0,
  wasSent: false,
  due: 0, // next videos that the server has and has said nothing about
  later: /** @type {FileList | null} */ (null), // files to upload after the one that is being uploaded
  waiting: /** @type {(() => void) | null} */ (null), // sends the question that waits
  notice: "",
};

/**
 * @param {Kind} kind
 * @param {string} name
 */
export function comes(kind, name) {
  state.coming.set(kind, name);
  tell("");
  if (kind !== "upload") giveUp(kind);
}

/**
 * A server that never says whether it took the file must not hold questions back for ever.
 * @param {Kind} kind
 */
function giveUp(kind) {
  const name = state.coming.get(kind);
  setTimeout(() => {
    if (!name || state.coming.get(kind) !== name) return;
    if (kind === "upload") state.due = 0;
    arrived(kind, false);
  }, PATIENCE_MS);
}

/**
 * The server's word that it has taken what was chosen, or has refused it.
 * @param {Kind} kind
 * @param {boolean} isThere
 */
export function answered(kind, isThere) {
  if (kind === "upload") {
    state.due = Math.max(0, state.due - 1);
    if (!state.wasSent) return; // it is about the file before
  }
  arrived(kind, isThere);
}

/**
 * @param {Kind} kind
 * @param {boolean} isThere
 */
function arrived(kind, isThere) {
  if (kind === "upload" && (state.uploading || state.due)) return; // another one follows
  state.coming.delete(kind);
  if (!isThere && state.waiting) {
    state.waiting = null;
    state.notice = "The question was not sent, since its file could not be read.";
  }
  release();
}

function isComing() {
  return state.coming.size > 0 || state.uploading > 0 || state.later !== null;
}

function release() {
  showHeld();
  const send = state.waiting;
  if (isComing() || !send) return;
  state.waiting = null;
  showHeld();
  setTimeout(send, 60); // what arrived is drawn first
}

/** @param {string} text */
export function tell(text) {
  state.notice = text;
  showHeld();
}

function showHeld() {
  const root = find(".vl3-held");
  if (!root) return;
  const parts = heldParts();
  if (root.textContent !== parts.map((part) => part.textContent).join("")) root.replaceChildren(...parts);
}

function heldParts() {
  const names = [...state.coming.values()].join(", ") || "the files";
  const line = (/** @type {string} */ text) => make("span", {}, text);
  if (state.waiting) {
    const drop = () => {
      state.waiting = null;
      showHeld();
    };
    return [line(`Your question waits for ${names}, then it is sent.`),
      make("button", { class: "link", onclick: drop }, "Do not send")];
  }
  if (state.later) return [line(state.notice)];
  if (state.uploading) return [line(`Uploading ${names}.`)];
  return state.notice ? [line(state.notice)] : [];
}

/** @type {import("./widget.js").Widget} */
export function held(root) {
  root.setAttribute("role", "status");
  showHeld();
}

/**
 * Whether the event sends a question that has to wait; then it goes no further.
 * @param {MouseEvent | KeyboardEvent} event
 */
export function holds(event) {
  const field = find("#ask textarea");
  if (!sends(event, field) || !field.value.trim()) return false;
  if (!isComing()) {
    toAnswer();
    return false;
  }
  event.preventDefault();
  event.stopImmediatePropagation();
  state.waiting = () => find("#ask .submit-button")?.click();
  showHeld();
  return true;
}

/**
 * @param {MouseEvent | KeyboardEvent} event
 * @param {Element} field
 */
function sends(event, field) {
  if (event instanceof KeyboardEvent) {
    return event.target === field && event.key === "Enter" && !event.shiftKey && !event.isComposing;
  }
  return event.isTrusted && Boolean(/** @type {Element} */ (event.target).closest?.("#ask .submit-button"));
}

/**
 * The next video; while one is uploaded there is no place to put another, so it comes afterwards.
 * @param {FileList} files
 */
export function replaceBy(files) {
  const input = find("#drop input[type=file]");
  state.later = input ? null : files;
  if (input) return give(input, files);
  tell(`${files[0].name} comes after the file that is being uploaded.`);
  setTimeout(() => { if (state.later === files) replaceBy(files); }, 150);
}

/**
 * @param {HTMLInputElement | null} input
 * @param {FileList} files
 */
export function give(input, files) {
  if (!input) return;
  input.files = files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

export function chooseFile() {
  find("#drop input[type=file]")?.click();
}

export function watchUploads() {
  document.addEventListener("change", ({ target }) => {
    if (!(target instanceof HTMLInputElement) || !target.matches("#drop input[type=file]")) return;
    if (!target.files?.length) return;
    comes("upload", target.files[0].name);
    // A file of another kind is refused without being sent.
    setTimeout(() => { if (!state.uploading && !state.wasSent) arrived("upload", false); }, 1500);
    state.wasSent = false;
  }, true);
  const fetching = window.fetch.bind(window);
  window.fetch = (address, options) => {
    const url = address instanceof Request ? address.url : String(address);
    const isUpload = options?.method === "POST" && /\/upload(\?|$)/.test(url);
    return isUpload ? watched(fetching(address, options)) : fetching(address, options);
  };
}

/**
 * An upload that was begun.
 * @param {Promise<Response>} sending
 */
async function watched(sending) {
  const isNext = state.coming.has("upload") && !state.wasSent; // and no attachment of a question
  state.uploading += 1;
  state.wasSent = true;
  showHeld();
  let isThere = false;
  try {
    const answer = await sending;
    isThere = answer.ok;
    return answer;
  } finally {
    state.uploading -= 1;
    if (isNext && isThere) state.due += 1;
    giveUp("upload");
    // What comes after an upload that worked takes its turn first.
    setTimeout(() => (isThere ? release() : arrived("upload", false)), 200);
  }
}
