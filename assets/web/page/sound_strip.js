// @ts-check
// The strip of sound below the player: what there is to hear, and where the player stands in it.

import { mount } from "../views/mount.js";
import { playing, setTime, timeOf } from "./video_time.js";

/** @typedef {import("../views/mount.js").Mounted} Mounted */

const shown = { url: "", view: /** @type {Mounted | null} */ (null), frame: 0 };

/**
 * Draws the strip that lies at the address; none without one.
 * @param {import("./widget.js").Root} root of the player
 * @param {string | null | undefined} url
 */
export async function soundStrip(root, url) {
  const box = root.querySelector(".sound-strip");
  if (!box || (shown.url === (url || "") && box.firstChild)) return;
  shown.url = url || "";
  shown.view?.destroy();
  shown.view = null;
  if (!url) return;
  const answer = await fetch(url).catch(() => null);
  const data = answer?.ok ? await answer.json() : null;
  if (!data || shown.url !== url || !box.isConnected || shown.view) return; // another one came meanwhile
  shown.view = mount(box, data, (name, detail) => {
    if (name === "time") setTime(playing(), detail);
  });
  followSound();
}

/** Once a picture while it plays: a line that jumps four times a second is hard to follow. */
export function followSound() {
  cancelAnimationFrame(shown.frame);
  const player = playing();
  if (!shown.view || !player) return;
  shown.view.update({ time_s: timeOf(player) });
  if (!player.paused && !player.ended) shown.frame = requestAnimationFrame(followSound);
}
