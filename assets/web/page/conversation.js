// @ts-check
// The conversation: captions, copies, and the way to the answer.

import { find, make } from "../shared/dom.js";

/** On a narrow window the conversation is below the video: whoever asks is taken to the answer. */
export function toAnswer() {
  const chat = find("#chat"), { top, bottom } = chat.getBoundingClientRect();
  const seen = Math.min(bottom, innerHeight) - Math.max(top, 0);
  if (seen > 0.6 * Math.min(chat.clientHeight, innerHeight)) return;
  (matchMedia("(max-width: 900px)").matches ? find("#ask") : chat).scrollIntoView({ block: "start" });
}

/** Captions travel with the answer and stand under the pictures of the question. */
export function caption() {
  /** @type {Element[]} */
  let pictures = [];
  for (const row of document.querySelectorAll("#chat .user-row, #chat .bot-row")) {
    if (row.classList.contains("user-row")) {
      pictures.push(...row.querySelectorAll(".image-container, .minimal-audio-player"));
      continue;
    }
    row.querySelectorAll(".attached").forEach((from, i) => {
      if (pictures[i]) captionOf(pictures[i], from.textContent || "");
    });
    pictures = [];
  }
  // The raw Markdown as a name would be read out in place of the text.
  for (const message of document.querySelectorAll("#chat [data-testid][aria-label]")) {
    message.removeAttribute("aria-label");
  }
}

/**
 * @param {Element} picture
 * @param {string} text
 */
function captionOf(picture, text) {
  let line = picture.parentElement?.querySelector(":scope > .caption");
  if (!line) picture.after(line = make("p", { class: "caption" }));
  if (line.textContent !== text) line.textContent = text;
  picture.querySelector("button:has(img)")?.setAttribute("aria-label", `Show ${text}`);
}

/** What is copied is what is read: no invisible characters, no addresses of links, no footers. */
export function cleanCopies() {
  const { clipboard } = navigator;
  if (!clipboard) return;
  const write = clipboard.writeText.bind(clipboard);
  clipboard.writeText = (text) => write(asRead(text));
}

/** @param {string} text Markdown of an answer */
export function asRead(text) {
  return text
    .replace(/\s*\[Show box(es)?\]\(#boxes=[^)]*\)/g, "")
    .replace(/\[([^\]]*)\]\(#t=[^)]*\)/g, "$1")
    .replace(/<span class="attached">.*?<\/span>/gs, "")
    .replace(/\s*<span class="(foot|event)">.*$/s, "")
    .replace(/\u200b/g, "").trim();
}
