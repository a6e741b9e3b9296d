// @ts-check
// Links of an answer, and pictures of a question, that move the player: #boxes=... and #t=12&v=key.

import { readBoxes, showBoxes } from "./boxes.js";
import { askWithout } from "./moment.js";
import { seek } from "./player.js";

/** @param {MouseEvent} event */
export function clicked(event) {
  const follow = actionOf(/** @type {Element} */ (event.target));
  if (!follow) return;
  event.preventDefault();
  event.stopPropagation();
  follow();
}

/**
 * @param {Element} target
 * @returns {(() => void) | null}
 */
function actionOf(target) {
  const boxes = /** @type {HTMLAnchorElement | null} */ (target.closest?.('a[href^="#boxes="]'));
  if (boxes) return () => showBoxes(readBoxes(boxes));
  const other = /** @type {HTMLAnchorElement | null} */ (target.closest?.('a[href^="#without="]'));
  if (other) {
    const of = new URLSearchParams(other.hash.slice(1));
    return () => askWithout(of.get("without"), Number(of.get("turn")));
  }
  const link = /** @type {HTMLAnchorElement | null} */ (target.closest?.('a[href*="#t="]'));
  if (link) {
    const to = new URLSearchParams(link.hash.slice(1));
    return () => seek(Number(to.get("t")), to.get("v"));
  }
  const picture = target.closest?.("#chat .user-row .image-container");
  const key = picture?.querySelector("img")?.src.match(/([0-9a-f]{12})\.jpg$/)?.[1];
  return key ? () => seek(0, key) : null;
}
