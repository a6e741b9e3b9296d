// @ts-check
// The player: a video, an image or a sound, its film strip, what it is; and links that move it.

import { find, make } from "../shared/dom.js";
import { drawBoxes, showWantedBoxes } from "./boxes.js";
import { filmStrip, followFrame } from "./film_strip.js";
import { offerMoment } from "./moment.js";
import { followSound, soundStrip } from "./sound_strip.js";
import { chooseFile, comes } from "./uploads.js";
import { keepClock, setTime, setTimeOnceLoaded } from "./video_time.js";
import { dotted } from "./widget.js";

/** @typedef {import("./widget.js").Value} Value */

/** @type {import("./widget.js").Widget} */
export function player(root, value, trigger) {
  root.removeEventListener("recall", root.onrecall);
  root.onrecall = (/** @type {CustomEvent} */ event) => {
    comes("recall", "the earlier video");
    trigger("recall", event.detail);
  };
  root.addEventListener("recall", root.onrecall, { once: true });
  if (root.dataset.url !== (value.url || "")) {
    root.dataset.url = value.url || "";
    root.dataset.key = value.key || "";
    const below = ["sound-strip", "strip", "probe"].map((name) => make("div", { class: name }));
    root.replaceChildren(...(value.url ? [screenOf(value), ...below] : []));
  }
  soundStrip(root, value.sound);
  filmStrip(root, value.strip);
  const line = root.querySelector(".probe");
  if (!line) return;
  const badge = value.badge ? make("span", { class: "badge", role: "status" }, value.badge) : null;
  line.replaceChildren(make("p", { class: "facts" }, ...dotted(value.facts), badge),
    make("button", { class: "link", onclick: chooseFile }, "Replace"));
  offerMoment();
  showWantedBoxes(root.dataset.key);
}

/** @param {Value} value */
function screenOf(value) {
  const frame = make("div", { class: "screen" }), [fact] = value.facts || [];
  if (value.kind === "image") {
    frame.append(make("img", { src: value.url, alt: fact || "Image" }));
    return frame;
  }
  const isSound = value.kind === "audio";
  const video = make(isSound ? "audio" : "video", { src: value.url, controls: "", preload: "metadata",
    playsinline: isSound ? null : "", "aria-label": fact || "Video" });
  if (isSound) frame.classList.add("sound");
  keepClock(/** @type {import("./video_time.js").Video} */ (video), value.key || "", value.clock);
  video.addEventListener("error", async () => {
    const line = make("p", { class: "unplayable" });
    frame.append(line);
    const answer = await fetch(value.url, { headers: { Range: "bytes=0-0" } }).catch(() => null);
    line.textContent = answer?.ok ? "This browser cannot play the file. Questions about it work all the same."
      : "The file is not on the server any more. Upload it again.";
  });
  frame.append(video);
  return frame;
}

/**
 * Moves the player, which may have to fetch the video first.
 * @param {number} time_s
 * @param {string | null} key of the video
 */
export function seek(time_s, key) {
  const root = find(".vl3-player");
  const video = root?.querySelector("video, audio");
  if (video && (!key || root.dataset.key === key)) {
    setTime(video, time_s);
    video.scrollIntoView({ block: "nearest" });
  } else if (root && key) {
    setTimeOnceLoaded(key, time_s);
    root.dispatchEvent(new CustomEvent("recall", { detail: { key } }));
  }
}

export function followPlayer() {
  const moved = () => {
    offerMoment();
    drawBoxes();
    followFrame();
    followSound();
  };
  for (const name of ["play", "pause", "seeked", "timeupdate", "loadedmetadata"]) {
    document.addEventListener(name, moved, true);
  }
}
