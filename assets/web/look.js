// Views that look inside: what the pruner removes, and where positions put a patch.
//
//   const view = mount(el, data, emit)      draws data (made by vl3/viz) into el
//   view.update({ frame: 3 })               follows the page: frame, used, or other data
//   view.destroy()
//
// emit(name, detail) tells the page what a person did: "frame", "apply". Without it the view stands
// alone and offers nothing to apply. Text of people and files only ever becomes textContent.
//
// vl3/viz/export.py joins these files into one module: names are unique, imports are one line each.

import { positionsView } from "./look_positions.js";
import { pruningView } from "./look_pruning.js";

const VIEWS = { pruning: pruningView, positions: positionsView };
const FOLLOWED = ["frame", "used"]; // what a view can take over without being built anew

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
    destroy() {
      view.destroy();
      el.replaceChildren();
    },
  };
}
