import { button, choice, cividis, clock, count, DIMMED, disc, drawer, fitCells, framesOf, hatch, make, percent, picture, radios, scaleBar, short, slider, stroke, table, unpack, viridis } from "./look_parts.js";

// The pruner: exactly what vl3/vision/prune.py decides, for any threshold.

const REMOVED = 0, KEPT = 1, PLACEHOLDER = 2;

export function pruner(data) {
  const { frames, tokens } = data;
  const steps = Object.fromEntries(Object.entries(data.steps).map(([mode, text]) => [mode, unpack(text, Float32Array)]));
  const pairs = data.pairs === null ? null : readPairs(data);
  const difference = (a, b, token) => pairs[(a < b ? (b * (b - 1)) / 2 + a : (a * (a - 1)) / 2 + b) * tokens + token];

  // state: of every token, REMOVED, KEPT or PLACEHOLDER; change: what was compared; kept: tokens of each frame
  function decide({ mode, threshold, min_tokens, keep }) {
    const later = keep === "later", limit = Math.fround(threshold), step = steps[mode];
    const state = new Uint8Array(frames * tokens), change = new Float32Array(frames * tokens);
    const kept = new Array(frames), reference = new Int32Array(tokens);
    for (let turn = 0; turn < frames; turn++) {
      const frame = later ? frames - 1 - turn : turn, start = frame * tokens;
      const offset = later ? start + tokens : start; // differences look the same from both sides
      let stay = 0;
      for (let token = 0; token < tokens; token++) {
        const value = turn === 0 ? Infinity : step ? step[offset + token] : difference(reference[token], frame, token);
        change[start + token] = value;
        if (turn > 0 && !(value > limit)) continue;
        state[start + token] = KEPT;
        reference[token] = frame;
        stay++;
      }
      if (stay < min_tokens) {
        for (let token = 0; token < Math.min(min_tokens, tokens); token++) {
          if (state[start + token] === REMOVED) { state[start + token] = PLACEHOLDER; stay++; }
        }
      }
      kept[frame] = stay;
    }
    return { state, change, kept, total: kept.reduce((sum, each) => sum + each, 0), later };
  }

  // Difference in grey levels of every removed token of a frame from its last kept version; 0 where it is kept.
  function drift({ state, later }, frame) {
    const values = new Float32Array(tokens), back = later ? 1 : -1;
    for (let token = 0; token < tokens; token++) {
      let from = frame;
      while (state[from * tokens + token] === REMOVED) from += back;
      if (from !== frame) values[token] = difference(from, frame, token) * data.levels.last_kept;
    }
    return values;
  }

  return { decide, drift, knowsPairs: Boolean(pairs) };
}

function readPairs({ pairs, unit, values }) {
  const bytes = unpack(pairs, Uint8Array);
  return Float32Array.from({ length: bytes.length / 3 },
    (_, i) => ((bytes[3 * i] + 256 * bytes[3 * i + 1] + 65536 * bytes[3 * i + 2]) * unit) / values);
}

const LOW = 0.01, HIGH = 100, STEPS_PER_DECADE = 100, NUDGE = 5;
const STEPS = STEPS_PER_DECADE * Math.log10(HIGH / LOW);
const thresholdAt = (step) => Number((LOW * 10 ** (step / STEPS_PER_DECADE)).toPrecision(3));
const stepAt = (threshold) => Math.min(STEPS, Math.max(0, Math.round(STEPS_PER_DECADE * Math.log10(threshold / LOW))));
const logShare = (low, high, value) => (value > 0 ? Math.log10(value / low) / Math.log10(high / low) : 0);
const shareAt = (value) => logShare(LOW, HIGH, value);
const DARK_LEVELS = 0.1, BRIGHT_LEVELS = 100; // ends of the colours, in grey levels whatever the rule's unit

const DEFAULTS = { mode: "official", threshold: 0.1, min_tokens: 1, keep: "earlier" };
const MODES = [
  ["official", "Official: the frame before"],
  ["rlt", "RLT: the frame before, other unit"],
  ["last_kept", "Last kept: the last kept version"],
];
const SIDES = [["earlier", "Keep the earlier"], ["later", "Keep the later"]];
const TOO_LONG = "This clip has too many frames";

export function pruningView(el, data, emit) {
  const rule = pruner(data), { frames, tokens } = data, isImage = data.times_s === null;
  let used = data.used;
  const isUnknown = !rule.knowsPairs && used?.mode === "last_kept"; // the model's rule cannot be followed here
  let chosen = { ...DEFAULTS, ...used, ...(isUnknown && { mode: "official" }) };
  let applied = null;
  let frame = Math.min(data.frame || 0, frames - 1), layer = "removed";
  let decision = rule.decide(chosen);
  let curve = null;
  let timer = 0; // of playing

  // Parts

  const readout = make("p", { class: "readout" });
  const spoken = make("p", { class: "spoken", "aria-live": "polite" });
  const badge = make("span", { class: "badge" });
  const apply = button("Apply to next answer", applyNow, { class: "apply" });
  const ratio = (data.sheet.height / data.sheet.width).toFixed(5);
  const canvas = make("canvas", { role: "img", class: "frame", style: `--ratio: ${ratio}` });
  const legend = make("p", { class: "legend" });
  const frameSlider = slider("Frame", frames - 1, (index) => goTo(index), released);
  const play = button("Play", toggle, { class: "play" });
  const levels = make("output", { class: "levels" });
  const threshold = slider("Threshold", STEPS, (step) => choose({ threshold: thresholdAt(step) }), released);
  const bars = picture("height: 108px", paintBars, { class: "bars", onclick: pickBar });
  const line = picture("height: 150px", paintCurve);
  const perFrame = table("Show as table", "Kept patches of every frame", rows);
  const modes = MODES.filter(([mode]) => mode !== "last_kept" || rule.knowsPairs);
  const noDrift = rule.knowsPairs ? false : TOO_LONG;
  const note = make("p", { class: "words" });

  const root = make("section", { class: "vl3-look pruning", "aria-label": "Pruning", onkeydown: keyed },
    make("div", { class: "top" }, readout, badge, emit ? apply : null),
    note, spoken,
    make("div", { class: "halves" },
      make("div", { class: "main" }, canvas, legend,
        isImage ? null : make("div", { class: "row" }, play, frameSlider.label, frameSlider.input)),
      isImage ? make("div", { class: "side" }, make("p", { class: "words" },
        `An image is never pruned: there is no earlier frame to repeat. The model sees all ${count(tokens)} patches.`))
        : make("div", { class: "side" },
          radios("Show", [["removed", "Removed"], ["heat", "Heat of change"], ["drift", "Drift", noDrift], ["off", "Off"]], layer,
            (value) => { layer = value; refresh(); released(); }),
          make("div", { class: "threshold" }, threshold.label, levels,
            make("div", { class: "row" }, button("−", () => nudge(-1), { "aria-label": "Lower threshold", title: "Lower threshold ([)" }),
              threshold.input, button("+", () => nudge(1), { "aria-label": "Higher threshold", title: "Higher threshold (])" }))),
          make("div", { class: "choices" },
            choice("Compare with", modes, chosen.mode, (mode) => { choose({ mode }); released(); }),
            choice("Of two alike", SIDES, chosen.keep, (keep) => { choose({ keep }); released(); })),
          make("h3", {}, "Kept in each frame"), bars.canvas,
          make("h3", {}, "Kept at each threshold"), line.canvas)),
    isImage ? null : perFrame.node);
  el.replaceChildren(root);

  const drawing = drawer(root, draw);
  document.addEventListener("keydown", shortcut);
  const drawFrame = framesOf(data.sheet, () => drawing.ask());
  refresh();
  released();

  // What a person does

  function choose(changes) {
    chosen = { ...chosen, ...changes };
    if (!("threshold" in changes)) curve = null;
    decision = rule.decide(chosen);
    refresh();
  }

  // Other settings are used now; who had not moved away from those before goes along.
  function use(changed) {
    const goesAlong = !differs() && changed && (changed.mode in data.steps || rule.knowsPairs);
    [used, applied] = [changed, null];
    if (goesAlong) choose({ ...DEFAULTS, ...changed });
  }

  function nudge(direction) {
    choose({ threshold: thresholdAt(Math.min(STEPS, Math.max(0, stepAt(chosen.threshold) + direction * NUDGE))) });
    released();
  }

  function goTo(index) {
    if (index === frame || index < 0 || index >= frames) return;
    frame = index;
    refresh();
    emit?.("frame", frame);
  }

  function applyNow() {
    applied = chosen;
    refresh();
    emit("apply", { threshold: chosen.threshold, mode: chosen.mode, keep: chosen.keep });
  }

  function keyed(event) {
    if (event.target.matches("input, select, summary")) return;
    const direction = { ",": -1, ".": 1 }[event.key];
    if (!direction) return;
    event.stopPropagation(); // the page would move its player as well, which then moves this
    goTo(frame + direction);
    released();
  }

  // The threshold has keys of its own wherever the focus is, as long as the view can be seen.
  function shortcut(event) {
    const direction = { "[": -1, "]": 1 }[event.key];
    const typing = event.target.closest?.("textarea, [contenteditable], input:not([type=range], [type=radio], [type=checkbox])");
    if (!direction || typing || isImage || event.ctrlKey || event.metaKey || !root.offsetParent) return;
    event.preventDefault();
    nudge(direction);
  }

  function toggle() {
    const runs = Boolean(timer);
    clearInterval(timer);
    timer = runs ? 0 : setInterval(() => goTo((frame + 1) % frames), 125);
    play.textContent = runs ? "Play" : "Pause";
    released();
  }

  // What it says

  function differs() {
    return !used || ["mode", "threshold", "keep"].some((name) => chosen[name] !== ({ ...DEFAULTS, ...used })[name]);
  }

  function when(index) {
    return data.times_s ? ` · ${clock(data.times_s[index])}` : "";
  }

  function about() {
    const grey = chosen.threshold * data.levels[chosen.mode];
    return `about ${short(grey)} grey ${grey === 1 ? "level" : "levels"}`;
  }

  function summary() {
    const { kept, total } = decision, all = frames * tokens;
    if (isImage) return `Image · ${count(tokens)} patches, all kept`;
    return `Frame ${frame + 1} of ${frames} · kept ${count(kept[frame])} of ${count(tokens)} · clip ${count(total)} of ${count(all)} (${percent(total / all)})`;
  }

  function refresh() {
    readout.textContent = summary();
    frameSlider.input.value = frame;
    frameSlider.input.setAttribute("aria-valuetext", `${frame + 1} of ${frames}${when(frame)}`);
    threshold.input.value = stepAt(chosen.threshold);
    threshold.input.setAttribute("aria-valuetext", `${chosen.threshold}, ${about()}`);
    levels.textContent = `${chosen.threshold} · ${about()}`;
    const preview = !isImage && differs();
    note.textContent = isImage ? "" : !used ? "Pruning is off: the model sees every patch."
      : isUnknown ? `${TOO_LONG} to show the model's rule, last kept.` : "";
    badge.textContent = !preview ? "" : applied === chosen ? "Used from the next answer on" : "Preview – not used yet";
    apply.disabled = !preview || applied === chosen;
    apply.hidden = isImage;
    drawing.ask();
  }

  // On release and not while something is dragged: what a picture shows, for those who hear it.
  function released() {
    const words = summary(), placeholders = placeholderCount();
    spoken.textContent = words;
    const noted = placeholders ? `, ${placeholders} of them placeholders` : "";
    canvas.setAttribute("aria-label", `${data.source || "Clip"}: ${words}${noted}${when(frame)}`);
    bars.canvas.setAttribute("aria-label", `Kept patches of every frame, between ${Math.min(...decision.kept)} and ${Math.max(...decision.kept)} of ${tokens}`);
    line.canvas.setAttribute("aria-label", `Share kept at every threshold; at ${chosen.threshold} it is ${percent(decision.total / (frames * tokens))}`);
    explain();
    perFrame.fill();
  }

  function placeholderCount() {
    let found = 0;
    for (let token = 0; token < tokens; token++) found += decision.state[frame * tokens + token] === PLACEHOLDER;
    return found;
  }

  function explain() {
    const swatch = (kind, text) => make("span", { class: "swatch" }, make("i", { class: kind }), make("span", {}, text));
    const marks = [swatch("removed", "removed"), swatch("placeholder", "placeholder, kept so that no frame is empty")];
    const bar = (scale, title) => scaleBar(scale, DARK_LEVELS, `${BRIGHT_LEVELS} grey levels`, title);
    const alone = decision.change[frame * tokens] === Infinity;
    const scale = { heat: alone ? make("span", {}, "This frame comes first: there is nothing to compare it with.") : bar(cividis, "Change"),
      drift: bar(viridis, "From the last kept version") }[layer];
    legend.replaceChildren(...(isImage || layer === "off" ? [] : scale ? [scale, ...marks] : marks));
  }

  function rows() {
    const head = ["Frame", ...(data.times_s ? ["Time"] : []), "Kept", "Removed", "Placeholders"];
    const body = decision.kept.map((kept, index) => {
      const placeholders = decision.state.subarray(index * tokens, (index + 1) * tokens).filter((state) => state === PLACEHOLDER).length;
      return [index + 1, ...(data.times_s ? [clock(data.times_s[index])] : []), kept, tokens - kept, placeholders];
    });
    return [head, ...body];
  }

  // Pictures

  function draw() {
    paintFrame();
    if (isImage) return;
    bars.draw();
    line.draw();
  }

  function paintFrame() {
    const scale = window.devicePixelRatio || 1;
    const { width, height } = fitCells(canvas, data.token_rows, data.token_cols, ratio);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    drawFrame(context, frame, 0, 0, width, height);
    if (layer === "off" || isImage) return;
    const state = decision.state.subarray(frame * tokens, (frame + 1) * tokens);
    const boxes = data.boxes.map(([x0, y0, x1, y1]) => {
      const [left, top] = [Math.round(x0 * width), Math.round(y0 * height)];
      return [left, top, Math.round(x1 * width) - left, Math.round(y1 * height) - top];
    });
    const removed = new Path2D();
    boxes.forEach((box, token) => { if (state[token] === REMOVED) removed.rect(...box); });
    if (layer === "removed") {
      context.fillStyle = `rgb(0 0 0 / ${1 - DIMMED})`;
      context.fill(removed);
    } else {
      paintValues(context, boxes);
    }
    context.fillStyle = hatch(context, Math.round(7 * scale));
    context.fill(removed);
    context.lineWidth = Math.max(2, Math.round(2 * scale));
    boxes.forEach((box, token) => { if (state[token] === PLACEHOLDER) outline(context, box); });
  }

  function paintValues(context, boxes) {
    const values = layer === "heat" ? decision.change.subarray(frame * tokens, (frame + 1) * tokens) : rule.drift(decision, frame);
    const scale = layer === "heat" ? cividis : viridis, levels = layer === "heat" ? data.levels[chosen.mode] : 1;
    context.globalAlpha = 0.82;
    boxes.forEach((box, token) => {
      const value = values[token];
      if (value === Infinity || (layer === "drift" && decision.state[frame * tokens + token] !== REMOVED)) return;
      context.fillStyle = scale(logShare(DARK_LEVELS, BRIGHT_LEVELS, value * levels));
      context.fillRect(...box);
    });
    context.globalAlpha = 1;
  }

  function paintBars(context, width, height, colour) {
    const top = 4, bottom = height - 28, each = width / frames, gap = each > 4 ? 1 : 0;
    context.fillStyle = colour.soft;
    context.fillRect(0, top, width, bottom - top);
    decision.kept.forEach((kept, index) => {
      const tall = Math.max(1, ((bottom - top) * kept) / tokens);
      context.fillStyle = index === frame ? colour.accent : colour.faint;
      context.fillRect(index * each, bottom - tall, Math.max(1, each - gap), tall);
    });
    context.fillStyle = colour.accent; // a mark below, seen where the bar itself is very low or thin
    const middle = (frame + 0.5) * each;
    context.beginPath();
    context.moveTo(middle, bottom + 2);
    context.lineTo(middle - 4, bottom + 8);
    context.lineTo(middle + 4, bottom + 8);
    context.fill();
    write(context, colour, width, height, `${tokens} patches in a frame`, data.times_s ? clock(data.times_s[frame]) : "");
  }

  function write(context, colour, width, height, left, right) {
    context.font = colour.font;
    context.fillStyle = colour.faint;
    context.textBaseline = "bottom";
    context.textAlign = "left";
    context.fillText(left, 0, height);
    context.textAlign = "right";
    context.fillText(right, width, height);
  }

  function pickBar(event) {
    goTo(Math.min(frames - 1, Math.max(0, Math.floor((event.offsetX / bars.canvas.clientWidth) * frames))));
    released();
  }

  function paintCurve(context, width, height, colour) {
    curve ||= Array.from({ length: STEPS / NUDGE + 1 }, (_, i) => rule.decide({ ...chosen, threshold: thresholdAt(i * NUDGE) }).total / (frames * tokens));
    const left = 42, top = 8, right = width - 8, bottom = height - 20;
    const x = (value) => left + Math.min(1, Math.max(0, shareAt(value))) * (right - left), y = (share) => bottom - share * (bottom - top);
    context.font = colour.font;
    context.textBaseline = "middle";
    context.strokeStyle = colour.line;
    context.fillStyle = colour.faint;
    context.lineWidth = 1;
    for (const share of [0, 0.5, 1]) {
      context.textAlign = "right";
      context.fillText(`${100 * share} %`, left - 6, y(share));
      stroke(context, [[left, y(share)], [right, y(share)]]);
    }
    context.textBaseline = "bottom";
    for (const value of [0.01, 0.1, 1, 10, 100]) {
      context.textAlign = value === LOW ? "left" : value === HIGH ? "right" : "center";
      context.fillText(String(value), x(value), height);
    }
    if (used) {
      context.setLineDash([3, 3]);
      context.strokeStyle = colour.faint;
      stroke(context, [[x(used.threshold), top], [x(used.threshold), bottom]]);
      context.setLineDash([]);
    }
    context.strokeStyle = colour.text;
    context.lineWidth = 2;
    stroke(context, curve.map((share, i) => [x(thresholdAt(i * NUDGE)), y(share)]));
    const [cursorX, cursorY] = [x(chosen.threshold), y(decision.total / (frames * tokens))];
    context.strokeStyle = context.fillStyle = colour.accent;
    stroke(context, [[cursorX, top], [cursorX, bottom]]);
    disc(context, cursorX, cursorY, 5);
  }

  return {
    shown: () => ({ threshold: chosen.threshold, mode: chosen.mode, keep: chosen.keep, frame }),
    follow(changes) {
      if ("used" in changes) use(changes.used);
      if ("frame" in changes) frame = Math.min(Math.max(0, changes.frame), frames - 1);
      refresh();
    },
    destroy() {
      clearInterval(timer);
      document.removeEventListener("keydown", shortcut);
      drawing.end();
    },
  };
}

// Dashes of amber on black, which show on any picture.
export function outline(context, [left, top, width, height]) {
  const inset = context.lineWidth / 2;
  const box = [left + inset, top + inset, width - 2 * inset, height - 2 * inset];
  context.strokeStyle = "#000";
  context.strokeRect(...box);
  context.setLineDash([3 * context.lineWidth, 2 * context.lineWidth]);
  context.strokeStyle = "#ffb000";
  context.strokeRect(...box);
  context.setLineDash([]);
}
