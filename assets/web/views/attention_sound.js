// @ts-check
// How a word shared its attention between sound, picture and words, and where in the sound it listened.

import { make } from "../shared/dom.js";
import { percent, smallPercent } from "../shared/format.js";
import { SHOWN_DECADES } from "./attention_canvas.js";
import { weightsOf } from "./attention_maps.js";
import { cividis, scaleBar } from "./colours.js";
import { soundView } from "./sound.js";
import { heatOf } from "./sound_scale.js";
import { unpack } from "./unpack.js";

/**
 * @typedef {{strip: import("./sound.js").SoundData, spans: string, tops: string, levels: string}} Listened
 * @typedef {ReturnType<typeof listenedTo>} Listening
 */

const PARTS = /** @type {const} */ ([
  ["sound", "var(--look-accent)"], ["picture", cividis(0.8)], ["words", "var(--look-faint)"],
]);

/**
 * The part of the view that is about sound; null for an answer that heard none.
 * @param {Listened[]} sounds
 * @param {Float32Array | null} split shares of every word
 */
export function listenedTo(sounds, split) {
  if (!split) return null;
  const bars = PARTS.map(([, colour]) => make("i", { style: `background: ${colour}` }));
  const bar = make("div", { class: "stages split", role: "img" }, ...bars);
  const values = PARTS.map(() => make("b", {}));
  const legend = make("p", { class: "legend" }, ...PARTS.map(([name, colour], i) =>
    make("span", { class: "swatch" }, make("i", { style: `background: ${colour}` }), make("span", {}, name),
      values[i])));
  const strips = sounds.map((sound) => stripOf(sound));
  const node = make("div", { class: "heard" },
    make("h3", {}, "Share of attention on sound, picture and words, mean of all layers and heads"), bar, legend,
    ...strips.map((strip) => strip.node));
  return {
    node,
    /** @param {number} word */
    words: (word) => PARTS.map(([name], i) => `${name} ${percent(split[3 * word + i])}`).join(", "),
    /** @param {number} word */
    follow(word) {
      const said = PARTS.map(([name], i) => {
        const share = split[3 * word + i];
        bars[i].style.flex = `${(100 * share).toFixed(3)} 0 0`;
        values[i].textContent = percent(share);
        return `${name} ${percent(share)}`;
      });
      bar.setAttribute("aria-label", said.join(", "));
      for (const strip of strips) strip.follow(word);
    },
    destroy() {
      for (const strip of strips) strip.destroy();
    },
  };
}

/** @param {Listened} sound */
function stripOf({ strip, spans, tops, levels }) {
  const times = unpack(spans, Float32Array), slots = times.length / 2;
  const weights = weightsOf({ tops, levels, first: 0, slots });
  const place = make("div", {}), legend = make("p", { class: "legend" });
  const view = soundView(place, { ...strip, heat: [] });
  return {
    node: make("div", { class: "listened" }, make("p", { class: "words" }, strip.source), place, legend),
    /** @param {number} word */
    follow(word) {
      const { heat, top } = heatOf(times, (step) => weights.at(word, step), SHOWN_DECADES);
      view.follow({ heat });
      legend.replaceChildren(scaleBar(cividis, smallPercent(top / 10 ** SHOWN_DECADES),
        `${smallPercent(top)}, logarithmic`, "Weight on the sound"));
    },
    destroy: () => view.destroy(),
  };
}
