// @ts-check
// Views that look inside: what the pruner removes, where positions put a patch, where words looked.
//
//   const view = mount(el, data, emit)      draws data (made by vl3/viz) into el
//   view.update({ frame: 3 })               follows the page: frame, used, token, medium, maps, time_s, heat,
//                                        or other data
//   view.shown()                            what can be chosen in the view, as it is now
//   view.destroy()
//
// emit(name, detail) tells the page what a person did: "frame", "apply", "token", "medium", "time"; or what the
// view lacks: "need", answered by update({ maps }). Without it the view stands alone, offers nothing to
// apply and shows what its data holds. Text of people and files only ever becomes textContent.

import { attentionView } from "./attention.js";
import { compareView } from "./compare.js";
import { positionsView } from "./positions.js";
import { pruningView } from "./pruning.js";
import { runDetailsView } from "./run_details.js";
import { soundView } from "./sound.js";

/**
 * @typedef {(name: string, detail: any) => void} Emit
 * @typedef {{follow(changes: Record<string, any>): void, shown?(): Record<string, any>, destroy(): void}} View
 * @typedef {{update(changes: Record<string, any>): void, shown(): Record<string, any> | undefined,
 *   destroy(): void}} Mounted
 */

/** @type {Record<string, (el: Element, data: any, emit?: Emit) => View>} */
const VIEWS = {
  pruning: pruningView, positions: positionsView, attention: attentionView, compare: compareView, run: runDetailsView,
  sound: soundView,
};
// what a view can take over without being built anew
const FOLLOWED = ["frame", "used", "token", "medium", "maps", "time_s", "heat"];

/**
 * @param {Element} el
 * @param {Record<string, any>} data its `view` names the view
 * @param {Emit} [emit]
 * @returns {Mounted}
 */
export function mount(el, data, emit) {
  let shown = data;
  const start = () => VIEWS[shown.view](el, shown, emit);
  let view = start();
  return {
    update(changes) {
      shown = { ...shown, ...changes };
      if (Object.keys(changes).every((name) => FOLLOWED.includes(name))) return view.follow(changes);
      view.destroy();
      view = start();
    },
    shown: () => view.shown?.(),
    destroy() {
      view.destroy();
      el.replaceChildren();
    },
  };
}
