import { button, choice, cividis, clock, count, DIMMED, drawer, fitCells, framesOf, hatch, make, NO_BREAK, percent, picture, radios, scaleBar, short, slider, table, unpack, viridis } from "./look_parts.js";
import { mapsKept, weightsOf } from "./look_maps.js";

// Where every token of an answer looked, painted on what it looked at.

const SHOWN_DECADES = 2; // between the ends of the colours
const KEPT_BYTES = 48 << 20; // of maps that were asked for
const LOST_MS = 30_000; // after which a question without an answer no longer holds up the next
const GAP = 10; // between the frames of two media, in pixels
const WORD_MS = 700; // of each word while the answer is played

const SOURCES = [
  ["language", "LLM layer"],
  ["mean", "Mean of layers"],
  ["rollout", "Rollout"],
  ["relevancy", "Gradient relevancy"],
  ["vision", "Vision encoder"],
];
const MEASURES = { language: "attention", mean: "attention", rollout: "rollout", relevancy: "relevancy", vision: "attention" };

export function attentionView(el, data, emit) {
  const { words, sizes, media } = data, asking = emit || null;
  const mean = { ...weightsOf(data.mean), sinks: new Set(data.mean.sinks) };
  const share = weightsOf({ ...data.share, first: 0, slots: sizes.layers * sizes.heads });
  const shares = []; // of every token on all media, once it was asked for
  const places = media.map(({ slots }) => unpack(slots, Int32Array));
  const starts = media.reduce((sums, { frames }) => [...sums, sums[sums.length - 1] + frames], [0]); // numbers of frames over all media
  const firstSlot = firstSlots();
  const kept = mapsKept(asking ? KEPT_BYTES : Infinity);
  data.details.forEach(kept.put);
  const problems = new Map();
  let asked = null; // {name, time} of the question that has no answer yet

  const offered = new Set(SOURCES.map(([name]) => name).filter((name) => name === "mean" || data.details.some((one) => one.source === name)
    || (asking && (name !== "vision" || sizes.vision_layers))));
  const where = media.length !== 1 ? "pictures" : media[0].times_s ? "video" : "image";
  let source = "mean", hover = null, token = clamp(data.token ?? keenest(), words.length);
  let medium = clamp(data.medium, media.length), frame = clamp(data.frame, media[medium]?.frames || 1);
  const layers = { language: widest(), vision: Math.max(0, sizes.vision_layers - 1) }, heads = { language: null, vision: null };
  let patch = null; // {medium, frame, row, col}
  let hidesSinks = false, scaledBy = "clip", opacity = 0.65, timer = 0;
  let shown = null, totals = [];

  // Parts

  const readout = make("p", { class: "readout" });
  const spoken = make("p", { class: "spoken", "aria-live": "polite" });
  const note = make("p", { class: "words note" });
  const tokens = words.map((_, index) => button(textOf(index), () => lock(index), { class: "token", "data-token": index, tabindex: -1,
    onfocus: () => preview(index), onblur: () => preview(null), onpointerenter: () => preview(index) }));
  const strip = make("div", { class: "answer", role: "group", "aria-label": "Tokens of the answer", onpointerleave: () => preview(null) }, ...grouped());
  const play = button("Play", toggle, { class: "play", title: "Step through the answer (arrow keys)" });
  const tinted = make("p", { class: "words" });
  const totalsBar = picture("height: 118px", paintTotals, { class: "bars totals", onclick: pickTotal });
  const canvas = make("canvas", { role: "img", class: "frame pick", onclick: pickPatch, onpointermove: tell, onpointerleave: () => tell(null) });
  const legend = make("p", { class: "legend" });
  const under = make("output", { class: "under" });
  const frameSlider = slider("Frame", 1, (index) => goTo(index), released);
  const frameRow = make("div", { class: "row" }, frameSlider.label, frameSlider.input, button("Strongest frame", goToStrongest));
  const opacitySlider = slider("Opacity", 100, (value) => { opacity = value / 100; refresh(); }, released);
  const mediumChoice = media.length < 2 ? null : choice("Picture", media.map((each, index) => [index, `${index + 1}: ${each.source || (each.times_s ? "video" : "image")}`]), medium,
    (index) => { goTo(0, Number(index)); released(); });
  const sources = choice("Source", SOURCES, source, (name) => { source = name; changed(); });
  for (const option of sources.querySelectorAll("option")) option.disabled = !offered.has(option.value);
  const scales = radios("Scale", [["frame", "Per frame"], ["clip", "Whole clip"]], scaledBy, (name) => { scaledBy = name; refresh(); released(); });
  const sinkBox = make("input", { type: "checkbox", onchange: () => { hidesSinks = sinkBox.checked; changed(); } });
  const sinkWords = make("span", {});
  const layerSlider = slider("Layer", 1, (index) => { layers[source] = index; changed(false); }, released);
  const layerWords = make("output", { class: "levels" });
  const layerBox = make("div", { class: "threshold" }, layerSlider.label, layerWords, make("div", { class: "row" }, layerSlider.input));
  const headBox = make("div", { class: "heads", role: "group", "aria-label": "Heads, most of the picture first" });
  const matrix = picture(`height: ${22 + sizes.layers * Math.min(26, Math.max(9, Math.round(250 / sizes.layers)))}px`, paintMatrix,
    { class: "pick matrix", onclick: pickCell, onpointermove: ({ offsetX, offsetY }) => { matrix.canvas.title = cellWords(cellAt(offsetX, offsetY)); } });
  const matrixScale = make("span", {});
  const rowSlider = slider("Patch row", 1, (row) => choosePatch({ ...place(), row }), released);
  const colSlider = slider("Patch column", 1, (col) => choosePatch({ ...place(), col }), released);
  const noPatch = button("No patch", () => { choosePatch(null); released(); });
  const patchWords = make("p", { class: "words" });
  const perFrame = table("Show as table", "Share of every frame", frameRows);
  const perWord = table("Show tokens as table", "Share of every token", wordRows);
  const row = ({ label, input }) => make("div", { class: "row" }, label, input);

  const root = make("section", { class: "vl3-look attention", "aria-label": "Attention" },
    make("div", { class: "top" }, readout), spoken,
    make("p", { class: "words caption" }, "Attention shows where information was read, not why the answer was given."),
    make("div", { class: "row said" }, play, strip),
    tinted, note,
    media.length === 0 ? null : make("div", { class: "halves" },
      make("div", { class: "main" }, totalsBar.canvas, canvas, legend, under, mediumChoice, frameRow, row(opacitySlider),
        make("h3", {}, "From a patch to the tokens"),
        make("div", { class: "row wide places" }, row(rowSlider), row(colSlider), noPatch), patchWords),
      make("div", { class: "side" },
        sources, asking ? null : make("p", { class: "words" }, aloneWords()), layerBox, headBox,
        make("h3", {}, `Share of attention on the ${where}: layer by head`), matrix.canvas,
        make("p", { class: "legend" }, matrixScale, make("span", {}, "layers down, heads across, counted from 0; click one to see it")),
        make("div", { class: "pair" }, scales, make("label", { class: "check" }, sinkBox, sinkWords)))),
    media.length === 0 ? null : perFrame.node, perWord.node);
  el.replaceChildren(root);

  const drawing = drawer(root, draw);
  const drawFrame = media.map(({ sheet }) => framesOf(sheet, () => drawing.ask()));
  document.addEventListener("keydown", keyed);
  opacitySlider.input.value = 100 * opacity;
  changed();

  // What there is

  function clamp(index, number) {
    return Math.max(0, Math.min(index || 0, number - 1));
  }

  // The first slot of every frame over all media; slots of a frame follow each other.
  function firstSlots() {
    const first = [0];
    places.forEach((slots, m) => {
      const each = media[m].rows * media[m].cols;
      for (let f = 0; f < media[m].frames; f++) first.push(first[first.length - 1] + slots.subarray(f * each, (f + 1) * each).filter((slot) => slot >= 0).length);
    });
    return first;
  }

  function shareAt(index, layer, head) {
    return share.at(index, layer * sizes.heads + head);
  }

  function meanOf(number, value) {
    let sum = 0;
    for (let i = 0; i < number; i++) sum += value(i);
    return sum / (number || 1);
  }

  function layerShare(index, layer) {
    return meanOf(sizes.heads, (head) => shareAt(index, layer, head));
  }

  function wordShare(index) {
    return (shares[index] ??= meanOf(sizes.layers, (layer) => layerShare(index, layer)));
  }

  function keenest() {
    return most(words.length, wordShare);
  }

  function widest() {
    return most(sizes.layers, (layer) => layerShare(token, layer));
  }

  function slotAt({ medium: m, frame: f, row: r, col: c }) {
    return places[m][(f * media[m].rows + r) * media[m].cols + c];
  }

  // What is shown: the maps that are wanted, or the mean of layers while they are not there.
  function look() {
    const word = hover ?? token, isVision = source === "vision";
    const from = isVision ? (patch && hover === null ? slotAt(patch) : -1) : word;
    const maps = source === "mean" || from < 0 ? undefined : kept.get(source, from, layers[source]);
    if (!maps) return { source: "mean", word, weights: mean.mean([word], sizes.slots), sinks: mean.sinks, reaches: mean.reaches };
    const perHead = maps.rows.map((one) => maps.mean([one], sizes.slots));
    const joint = perHead.length === 1 ? perHead[0] : maps.mean(maps.rows, sizes.slots);
    const weights = perHead[heads[source]] || joint;
    return { source, word, weights, sinks: maps.sinks, reaches: maps.reaches, perHead, joint };
  }

  function isHidden(slot) {
    return hidesSinks && shown.sinks.has(slot);
  }

  // Sums of every frame over all media.
  function sums(weights) {
    return Float64Array.from({ length: starts[media.length] }, (_, number) => {
      let sum = 0;
      for (let slot = firstSlot[number]; slot < firstSlot[number + 1]; slot++) if (!isHidden(slot)) sum += weights[slot];
      return sum;
    });
  }

  // The largest weight, which the colours reach up to: of this frame, or of the whole medium.
  function topOf(weights) {
    const here = starts[medium] + frame, [from, to] = scaledBy === "frame" ? [here, here + 1] : [starts[medium], starts[medium + 1]];
    let top = 0;
    for (let slot = firstSlot[from]; slot < firstSlot[to]; slot++) if (weights[slot] > top && !isHidden(slot)) top = weights[slot];
    return top;
  }

  // To the chosen patch from every word: rollout where it is the source and here, else the mean of layers.
  function toPatch() {
    const slot = patch ? slotAt(patch) : -1;
    if (slot < 0) return null;
    const rolled = source === "rollout" && words.every((_, index) => kept.get("rollout", index));
    const values = words.map((_, index) => {
      if (!rolled) return mean.at(index, slot);
      const maps = kept.get("rollout", index);
      return maps.at(maps.rows[0], slot);
    });
    return { values, by: rolled ? "rollout" : "mean of layers", top: Math.max(...values) };
  }

  // Asks for the maps that are wanted and not there; one question at a time, the latest wish next.
  function ask() {
    if (!asking || source === "mean" || !media.length) return;
    const from = source === "vision" ? (patch ? slotAt(patch) : -1) : token;
    if (from < 0 || kept.get(source, from, layers[source]) || problems.has(`${source} ${from}`)) return;
    const name = kept.name(source, from, layers[source]), now = performance.now();
    if (asked && (asked.name === name || now - asked.time < LOST_MS)) return;
    asked = { name, time: now };
    emit("need", { source, token: from, layer: layers[source] ?? 0 });
  }

  function take(maps) {
    asked = null;
    if (maps.problem) problems.set(`${maps.source} ${maps.token}`, maps.problem);
    else kept.put(maps);
    ask(); // what was wanted meanwhile
    refreshWords();
    relook();
    released();
  }

  // What a person does

  function changed(isOver = true) {
    hover = null;
    ask();
    refreshWords();
    relook();
    if (isOver) released();
  }

  function lock(index) {
    if (index < 0 || index >= words.length) return;
    const isNew = index !== token;
    token = index;
    problems.clear();
    changed();
    if (isNew) emit?.("token", token);
  }

  function preview(index) {
    const next = index === token ? null : index;
    if (next === hover) return;
    hover = next;
    relook();
  }

  function step(direction) {
    const inStrip = strip.contains(document.activeElement);
    lock(token + direction);
    if (inStrip) tokens[token]?.focus({ preventScroll: true });
    const [top, bottom] = [tokens[token].offsetTop, tokens[token].offsetTop + tokens[token].offsetHeight];
    if (top < strip.scrollTop || bottom > strip.scrollTop + strip.clientHeight) strip.scrollTop = top;
  }

  function toggle() {
    const runs = Boolean(timer);
    stop();
    if (runs) return;
    if (token === words.length - 1) lock(0);
    play.textContent = "Pause";
    timer = setInterval(() => (token < words.length - 1 ? step(1) : stop()), WORD_MS);
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  }

  // Words have the arrow keys wherever the focus is, as long as nothing there needs them itself.
  function keyed(event) {
    const target = event.target, inside = root.contains(target);
    if (event.ctrlKey || event.metaKey || event.altKey || !root.offsetParent) return;
    if (!inside && target !== document.body) return;
    if (target.matches("input, select, textarea, .scroll")) return;
    const words = { ArrowLeft: -1, ArrowRight: 1 }[event.key], frames = inside && { ",": -1, ".": 1 }[event.key];
    if (!words && !frames) return;
    event.preventDefault();
    event.stopPropagation(); // the page would move its player as well, which then moves this
    if (words) step(words);
    else { goTo(frame + frames); released(); }
  }

  function goTo(index, which = medium) {
    if ((index === frame && which === medium) || index < 0 || index >= media[which].frames) return;
    const isOther = which !== medium;
    [medium, frame] = [which, index];
    refresh();
    if (isOther) emit?.("medium", medium);
    emit?.("frame", frame);
  }

  function goToStrongest() {
    const number = most(totals.length, (index) => totals[index]), which = media.findLastIndex((_, m) => starts[m] <= number);
    goTo(number - starts[which], which);
    released();
  }

  function pickTotal({ offsetX }) {
    const { left, each } = columns(totalsBar.canvas.clientWidth);
    const m = media.findLastIndex((_, index) => offsetX >= left(starts[index]) - GAP / 2);
    const which = Math.max(0, m), index = Math.floor((offsetX - left(starts[which])) / each);
    goTo(clamp(index, media[which].frames), which);
    released();
  }

  function under_({ offsetX, offsetY }) {
    const { rows, cols } = media[medium];
    return { medium, frame, row: clamp(Math.floor((offsetY / canvas.clientHeight) * rows), rows), col: clamp(Math.floor((offsetX / canvas.clientWidth) * cols), cols) };
  }

  function pickPatch(event) {
    const at = under_(event);
    choosePatch(patch && Object.keys(at).every((name) => at[name] === patch[name]) ? null : at);
    released();
  }

  function place() {
    const { rows, cols } = media[medium];
    return { medium, frame, row: clamp(patch?.row ?? Math.floor(rows / 2), rows), col: clamp(patch?.col ?? Math.floor(cols / 2), cols) };
  }

  function choosePatch(at) {
    patch = at;
    problems.clear();
    changed(false);
  }

  function tell(event) {
    under.textContent = event ? weightWords(under_(event)) : "";
  }

  function cellAt(x, y) {
    const { left, top, wide, high } = cells(matrix.canvas.clientWidth, matrix.canvas.clientHeight);
    return { layer: clamp(Math.floor((y - top) / high), sizes.layers), head: clamp(Math.floor((x - left) / wide), sizes.heads) };
  }

  function pickCell({ offsetX, offsetY }) {
    const { layer, head } = cellAt(offsetX, offsetY);
    if (!offered.has("language")) return;
    [source, layers.language, heads.language] = ["language", layer, head];
    problems.clear();
    changed();
  }

  // What it says

  function textOf(index) {
    const word = words[index];
    return word.trim() || (word.includes("\n") ? "↵" : word ? "␣" : "·");
  }

  function quoted(index) {
    return words[index].trim() ? `“${words[index].trim()}”` : words[index] ? "a space" : "no text of its own";
  }

  // Words by number, those without a space between them close together.
  function grouped() {
    const groups = [];
    words.forEach((word, index) => {
      if (index === 0 || /^\s/.test(word) || /\s$/.test(words[index - 1])) groups.push(make("span", { class: "word" }));
      groups[groups.length - 1].append(tokens[index]);
    });
    return groups;
  }

  function sourceWords() {
    if (shown.source !== "language" && shown.source !== "vision") return { mean: "mean of layers", rollout: "rollout", relevancy: "gradient relevancy" }[shown.source];
    const head = heads[shown.source];
    return `${shown.source === "vision" ? "vision encoder, " : ""}layer ${layers[shown.source]}, ${head === null ? "mean of heads" : `head ${head}`}`;
  }

  function frameName() {
    const { frames, times_s } = media[medium], which = media.length > 1 ? ` of picture ${medium + 1}` : "";
    return times_s ? `frame ${frame + 1} of ${frames}${which}` : `the image${which}`;
  }

  function summary() {
    const word = `Token ${shown.word + 1} of ${words.length}, ${quoted(shown.word)}`;
    if (!media.length) return word;
    const all = totals.reduce((sum, each) => sum + each, 0), here = totals[starts[medium] + frame];
    if (shown.source === "vision") return `Patch row ${patch.row}, column ${patch.col} of frame ${patch.frame + 1} · ${sourceWords()} · ${percent(all)} of its attention on patches that were kept`;
    const onFrame = starts[media.length] > 1 ? `, ${weight(here)} on ${frameName()}` : "";
    return `${word} · ${sourceWords()} · ${percent(all)} of its ${MEASURES[shown.source]} on the ${where}${onFrame}`;
  }

  function weightWords(at) {
    const slot = slotAt(at), name = `Row ${at.row}, column ${at.col}`;
    if (slot < 0) return `${name}: removed, no token could read it`;
    return `${name}: ${isHidden(slot) ? "a sink, hidden" : shown.reaches(slot) ? weight(shown.weights[slot]) : "in another frame, which it cannot see"}`;
  }

  function strongest() {
    const { rows, cols } = media[medium], slots = places[medium];
    let best = null;
    slots.forEach((slot, i) => { if (slot >= 0 && !isHidden(slot) && (!best || shown.weights[slot] > best.weight)) best = { i, weight: shown.weights[slot] }; });
    if (!best) return "";
    const at = Math.floor(best.i / (rows * cols)), inFrame = best.i % (rows * cols);
    const when = media[medium].times_s ? ` of frame ${at + 1} at ${clock(media[medium].times_s[at])}` : "";
    return `, strongest with ${weight(best.weight)} in row ${Math.floor(inFrame / cols)}, column ${inFrame % cols}${when}`;
  }

  function aloneWords() {
    const told = new Map();
    for (const { source: name, tokens: numbers } of data.details) told.set(name, [...(told.get(name) || []), ...numbers]);
    const lists = [...told].map(([name, numbers]) => `${SOURCES.find(([other]) => other === name)[1].replace(/^[A-Z](?![A-Z])/, (letter) => letter.toLowerCase())}`
      + (name === "vision" ? ` for ${numbers.length} ${numbers.length === 1 ? "patch" : "patches"}`
        : numbers.length === words.length ? " for every token" : ` for ${numbers.map((number) => `token ${number + 1}, ${quoted(number)}`).join("; ")}`));
    return ["Without a running model there is the mean of layers for every token", ...lists].join(", and ") + ".";
  }

  function noteWords() {
    if (!media.length) return "This answer saw no picture, so there is nothing to paint: its words were written from text alone.";
    if (source === "mean" || shown.source === source || hover !== null) return "";
    if (source === "vision" && !patch) return "Choose a patch: the vision encoder shows where it looked within its own frame. Until then this is the mean of layers.";
    if (source === "vision" && slotAt(patch) < 0) return "This patch was removed after the vision encoder. Choose one that was kept; until then this is the mean of layers.";
    const from = source === "vision" ? slotAt(patch) : token, problem = problems.get(`${source} ${from}`);
    const whose = source === "vision" ? "this patch" : quoted(token), name = SOURCES.find(([other]) => other === source)[1];
    if (problem) return `${/[.!?]$/.test(problem) ? problem : `${problem}.`} Shown is the mean of layers.`;
    if (!asking) return `${name} is not here for ${whose}. Shown is the mean of layers.`;
    return `${name} for ${whose} is being computed. Until it is here, this is the mean of layers.`;
  }

  function patchSaid(read) {
    if (!patch) return "Click a patch, or move these: the tokens are tinted by how much they read it.";
    const name = `Row ${patch.row}, column ${patch.col}${media[patch.medium].times_s ? ` of frame ${patch.frame + 1}` : ""}`;
    if (!read) return `${name} was removed by the pruner: no token could read it.`;
    const best = most(words.length, (index) => read.values[index]);
    return `${name} was read most by token ${best + 1}, ${quoted(best)}: ${weight(read.top)} (${read.by}).`;
  }

  function relook() {
    shown = look();
    totals = sums(shown.weights);
    refresh();
  }

  function refresh() {
    readout.textContent = summary();
    note.textContent = noteWords();
    markWords();
    if (!media.length) return;
    const { frames, rows, cols, times_s, sheet } = media[medium], layered = source === "language" || source === "vision";
    canvas.style.setProperty("--ratio", (sheet.height / sheet.width).toFixed(5));
    setSlider(frameSlider, frame, frames - 1, `${frame + 1} of ${frames}${times_s ? ` · ${clock(times_s[frame])}` : ""}`);
    frameRow.hidden = starts[media.length] < 2;
    scales.hidden = frames < 2;
    if (mediumChoice) mediumChoice.querySelector("select").value = medium;
    opacitySlider.input.setAttribute("aria-valuetext", percent(opacity));
    sources.querySelector("select").value = source;
    layerBox.hidden = headBox.hidden = !layered;
    if (layered) {
      const number = sizes[source === "vision" ? "vision_layers" : "layers"] || 1;
      setSlider(layerSlider, layers[source], number - 1, `layer ${layers[source]}`);
      layerWords.textContent = `${layers[source]} (0 to ${number - 1})`;
      refreshHeads();
    }
    sinkBox.disabled = shown.sinks.size === 0;
    sinkWords.textContent = shown.sinks.size ? `Hide sinks (${count(shown.sinks.size)})` : "Hide sinks (none found)";
    sinkWords.title = "Patches that draw attention whatever the word";
    const at = place();
    setSlider(rowSlider, at.row, rows - 1, patch ? `row ${patch.row}` : "no patch chosen");
    setSlider(colSlider, at.col, cols - 1, patch ? `column ${patch.col}` : "no patch chosen");
    noPatch.disabled = !patch;
    drawing.ask();
  }

  function setSlider({ input }, value, max, words) {
    input.max = max;
    input.value = value;
    input.disabled = max < 1;
    input.setAttribute("aria-valuetext", words);
  }

  function refreshWords() {
    const read = toPatch();
    tokens.forEach((node, index) => {
      const onMedia = media.length ? ` · ${percent(wordShare(index))} of its attention on the ${where}` : "";
      const toIt = read ? ` · ${weight(read.values[index])} on the chosen patch` : "";
      const name = `Token ${index + 1}, ${textOf(index)}${words[index] ? "" : ", no text of its own"}${onMedia}${toIt}`;
      if (node.title !== name) {
        node.title = name;
        node.setAttribute("aria-label", name);
      }
      node.style.setProperty("--share", `${(100 * (media.length ? wordShare(index) : 0)).toFixed(1)}%`);
      node.style.setProperty("--tint", `${read && read.top ? (48 * read.values[index] / read.top).toFixed(1) : 0}%`);
    });
    tinted.textContent = !media.length ? "" : read ? `Tint: share of a token's attention on the chosen patch, ${read.by}. Line: on the whole ${where}.`
      : `Line under a token: its share of attention on the ${where}.`;
    patchWords.textContent = media.length ? patchSaid(read) : "";
  }

  function markWords() {
    for (const [index, node] of tokens.entries()) {
      const isIt = index === token;
      if (node.classList.contains("previewed") !== (index === hover)) node.classList.toggle("previewed");
      if ((node.tabIndex === 0) === isIt && node.ariaPressed) continue;
      node.setAttribute("aria-pressed", isIt);
      node.tabIndex = isIt ? 0 : -1;
    }
  }

  // The heads of the layer, those with most of the picture first; sorted anew for a word, not for a preview.
  function refreshHeads() {
    const number = sizes[source === "vision" ? "vision_heads" : "heads"];
    const here = shown.source === source;
    const shares = Array.from({ length: number }, (_, head) => (source === "language" ? shareAt(token, layers.language, head)
      : here ? shown.perHead[head]?.reduce((sum, each) => sum + each, 0) ?? 0 : 0));
    const order = Array.from({ length: number }, (_, head) => head).sort((a, b) => shares[b] - shares[a]);
    const focused = headBox.contains(document.activeElement) ? document.activeElement.dataset.head : null;
    if (headBox.dataset.of !== source || headBox.children.length !== number + 1) {
      headBox.dataset.of = source;
      headBox.replaceChildren(...[null, ...order].map(headButton));
    }
    const nodes = new Map([...headBox.children].map((node) => [node.dataset.head, node]));
    if (hover === null) {
      const wanted = ["mean", ...order.map(String)];
      if (wanted.some((head, i) => headBox.children[i].dataset.head !== head)) headBox.append(...wanted.map((head) => nodes.get(head)));
      if (focused !== null) nodes.get(focused)?.focus({ preventScroll: true });
    }
    for (const [head, node] of nodes) {
      node.setAttribute("aria-pressed", head === String(heads[source] ?? "mean"));
      if (head !== "mean") node.querySelector("span").textContent = source === "language" || here ? `Head ${head}\n${percent(shares[head])}` : `Head ${head}`;
    }
  }

  function headButton(head) {
    const { rows, cols } = media[medium];
    const small = make("canvas", { "aria-hidden": "true", width: cols, height: rows });
    return make("button", { type: "button", class: "head", "data-head": head ?? "mean", onclick: () => { heads[source] = head; changed(); } },
      small, make("span", {}, "Mean of heads"));
  }

  function released() {
    if (hover !== null) return;
    const removed = media.length ? removedIn(medium, frame) : 0;
    const strong = media.length ? strongest() : "";
    spoken.textContent = [summary() + strong, patch ? patchWords.textContent : "", note.textContent].filter(Boolean).join(". ");
    perWord.fill();
    if (!media.length) return;
    canvas.setAttribute("aria-label", `${media[medium].source || "Picture"}: ${summary()}${strong}; ${removed ? `${count(removed)} patches of this frame were removed and have no value` : "no patch of this frame was removed"}`);
    const best = most(totals.length, (index) => totals[index]);
    totalsBar.canvas.setAttribute("aria-label", `Share of every frame, highest in number ${best + 1} of ${totals.length} with ${weight(totals[best])}`);
    const widestCell = most(sizes.layers * sizes.heads, (index) => share.at(token, index));
    matrix.canvas.setAttribute("aria-label", `Share of attention on the ${where} by layer and head, highest: ${cellWords({ layer: Math.floor(widestCell / sizes.heads), head: widestCell % sizes.heads })}`);
    matrixScale.replaceChildren(scaleBar(viridis, "0", percent(share.at(token, widestCell)), "Share"));
    const top = topOf(shown.weights);
    legend.replaceChildren(scaleBar(cividis, weight(top / 10 ** SHOWN_DECADES), `${weight(top)}, logarithmic`, "Weight"),
      ...(places[medium].some((slot) => slot < 0) ? [swatch("removed", "removed, no value")] : []),
      ...(hidesSinks && shown.sinks.size ? [swatch("sink", "hidden sink")] : []));
    perFrame.fill();
  }

  function swatch(kind, text) {
    return make("span", { class: "swatch" }, make("i", { class: kind }), make("span", {}, text));
  }

  function cellWords({ layer, head }) {
    return `layer ${layer}, head ${head}: ${percent(shareAt(shown.word, layer, head))}`;
  }

  function removedIn(m, f) {
    const each = media[m].rows * media[m].cols;
    return places[m].subarray(f * each, (f + 1) * each).filter((slot) => slot < 0).length;
  }

  function frameRows() {
    const rows = [];
    media.forEach(({ frames, times_s, rows: down, cols }, m) => {
      for (let f = 0; f < frames; f++) rows.push([...(media.length > 1 ? [m + 1] : []), f + 1, times_s ? clock(times_s[f]) : "–", weight(totals[starts[m] + f]), down * cols - removedIn(m, f), removedIn(m, f)]);
    });
    return [[...(media.length > 1 ? ["Picture"] : []), "Frame", "Time", `Share of ${MEASURES[shown.source]}`, "Kept", "Removed"], ...rows];
  }

  function wordRows() {
    const read = toPatch();
    return [["Number", "Word", ...(media.length ? [`On the ${where}`] : []), ...(read ? ["On the chosen patch"] : [])],
      ...words.map((_, index) => [index + 1, textOf(index), ...(media.length ? [percent(wordShare(index))] : []), ...(read ? [weight(read.values[index])] : [])])];
  }

  // Pictures

  function draw() {
    if (!media.length) return;
    paintFrame();
    totalsBar.draw();
    matrix.draw();
    if (!headBox.hidden) paintHeads();
  }

  function paintFrame() {
    const { rows, cols, sheet } = media[medium], scale = window.devicePixelRatio || 1;
    const { width, height } = fitCells(canvas, rows, cols, sheet.height / sheet.width);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const [across, down] = [width / cols, height / rows], top = topOf(shown.weights);
    const removed = new Path2D(), hidden = [];
    drawFrame[medium](context, frame, 0, 0, width, height);
    context.globalAlpha = opacity;
    for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) {
      const box = [c * across, r * down, across, down], slot = slotAt({ medium, frame, row: r, col: c });
      if (slot < 0) removed.rect(...box);
      else if (isHidden(slot)) hidden.push(box);
      else if (shown.reaches(slot)) {
        context.fillStyle = cividis(colourShare(shown.weights[slot], top));
        context.fillRect(...box);
      }
    }
    context.globalAlpha = 1;
    context.fillStyle = `rgb(0 0 0 / ${1 - DIMMED})`;
    context.fill(removed);
    context.fillStyle = hatch(context, Math.round(7 * scale));
    context.fill(removed);
    for (const box of hidden) cross(context, box, scale);
    if (patch && patch.medium === medium && patch.frame === frame) {
      const box = [patch.col * across + 2 * scale, patch.row * down + 2 * scale, across - 4 * scale, down - 4 * scale];
      for (const [colour, thick] of [["#000", 4], ["#fff", 2]]) {
        context.lineWidth = thick * scale;
        context.strokeStyle = colour;
        context.strokeRect(...box);
      }
    }
  }

  // Heads in small, each with the colours of its own largest weight.
  function paintHeads() {
    const { rows, cols } = media[medium];
    for (const node of headBox.children) {
      const small = node.querySelector("canvas"), head = node.dataset.head;
      if (small.width !== cols || small.height !== rows) Object.assign(small, { width: cols, height: rows });
      const context = small.getContext("2d");
      context.clearRect(0, 0, cols, rows);
      if (shown.source !== source || !shown.perHead) continue;
      const weights = head === "mean" ? shown.joint : shown.perHead[head], top = topOf(weights);
      for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) {
        const slot = slotAt({ medium, frame, row: r, col: c });
        if (slot < 0 || isHidden(slot) || !shown.reaches(slot)) continue;
        context.fillStyle = cividis(colourShare(weights[slot], top));
        context.fillRect(c, r, 1, 1);
      }
    }
  }

  function columns(width) {
    const each = (width - GAP * (media.length - 1)) / starts[media.length];
    const left = (number) => number * each + GAP * Math.max(0, media.findLastIndex((_, m) => starts[m] <= number));
    return { each, left };
  }

  // Bars of every frame of all media, and below them what the frames look like.
  function paintTotals(context, width, height, colour) {
    const { each, left } = columns(width), top = 4, bottom = height - 60, best = Math.max(...totals);
    media.forEach(({ frames, sheet }, m) => {
      const x = left(starts[m]), wide = frames * each;
      context.fillStyle = colour.soft;
      context.fillRect(x, top, wide, bottom - top);
      const fit = Math.max(1, Math.min(frames, Math.floor(wide / Math.max(each, (32 * sheet.width) / sheet.height))));
      for (let i = 0; i < fit; i++) {
        const index = Math.floor(((i + 0.5) * frames) / fit), space = wide / fit - 1;
        const thumbWide = Math.min(space, (32 * sheet.width) / sheet.height), thumbHigh = (thumbWide * sheet.height) / sheet.width;
        drawFrame[m](context, index, x + (i * wide) / fit + (space - thumbWide) / 2, bottom + 10, thumbWide, thumbHigh);
      }
    });
    totals.forEach((share, number) => {
      const tall = best > 0 ? Math.max(share > 0 ? 1 : 0, ((bottom - top) * share) / best) : 0;
      context.fillStyle = number === starts[medium] + frame ? colour.accent : colour.faint;
      context.fillRect(left(number), bottom - tall, Math.max(1, each - (each > 4 ? 1 : 0)), tall);
    });
    const middle = left(starts[medium] + frame) + each / 2;
    context.fillStyle = colour.accent; // a mark below, seen where the bar itself is very low or thin
    context.beginPath();
    context.moveTo(middle, bottom + 2);
    context.lineTo(middle - 4, bottom + 8);
    context.lineTo(middle + 4, bottom + 8);
    context.fill();
    context.font = colour.font;
    context.fillStyle = colour.faint;
    context.textBaseline = "bottom";
    context.textAlign = "left";
    context.fillText(`Share of ${MEASURES[shown.source]} in each frame, highest ${weight(best)}`, 0, height);
    context.textAlign = "right";
    const { times_s } = media[medium];
    context.fillText(times_s ? clock(times_s[frame]) : "", width, height);
  }

  function cells(width, height) {
    const left = 24, top = 3, right = width - 3;
    return { left, top, wide: (right - left) / sizes.heads, high: (height - 19 - top) / sizes.layers };
  }

  function paintMatrix(context, width, height, colour) {
    const { left, top, wide, high } = cells(width, height);
    let best = 0;
    for (let i = 0; i < sizes.layers * sizes.heads; i++) best = Math.max(best, share.at(shown.word, i));
    context.font = colour.font;
    context.textBaseline = "middle";
    for (let layer = 0; layer < sizes.layers; layer++) {
      for (let head = 0; head < sizes.heads; head++) {
        context.fillStyle = viridis(best ? shareAt(shown.word, layer, head) / best : 0);
        context.fillRect(left + head * wide, top + layer * high, wide - 1, high - 1);
      }
      context.fillStyle = colour.faint;
      context.textAlign = "right";
      if (high >= 12 || layer % 4 === 0) context.fillText(String(layer), left - 6, top + (layer + 0.5) * high);
    }
    context.textAlign = "center";
    context.textBaseline = "bottom";
    for (let head = 0; head < sizes.heads; head += wide >= 18 ? 1 : 4) context.fillText(String(head), left + (head + 0.5) * wide, height);
    if (source !== "language") return;
    const head = heads.language, box = [left + (head ?? 0) * wide - 1, top + layers.language * high - 1, (head === null ? sizes.heads : 1) * wide + 1, high + 1]; // around the cell
    for (const [ink, thick] of [["#000", 4], ["#fff", 2]]) {
      context.lineWidth = thick;
      context.strokeStyle = ink;
      context.strokeRect(...box);
    }
  }

  return {
    shown: () => ({ source, layer: layers[source], head: heads[source], token, medium, frame }),
    follow(changes) {
      if ("maps" in changes) take(changes.maps);
      if ("token" in changes) token = clamp(changes.token, words.length);
      if ("medium" in changes) [medium, frame] = [clamp(changes.medium, media.length), 0];
      if ("frame" in changes) frame = clamp(changes.frame, media[medium]?.frames || 1);
      changed(false);
    },
    destroy() {
      stop();
      document.removeEventListener("keydown", keyed);
      drawing.end();
    },
  };
}

function weight(share) {
  return `${short(100 * Number(share.toPrecision(2)))}${NO_BREAK}%`;
}

function colourShare(weight, top) {
  return weight > 0 && top > 0 ? 1 + Math.log10(weight / top) / SHOWN_DECADES : 0;
}

// The number with the largest value, the first of them.
function most(number, value) {
  const values = Array.from({ length: number }, (_, i) => value(i));
  return Math.max(0, values.indexOf(Math.max(...values)));
}

// Marks a patch whose value is hidden.
function cross(context, [left, top, width, height], scale) {
  for (const [ink, thick] of [["#000", 3], ["#fff", 1.5]]) {
    context.strokeStyle = ink;
    context.lineWidth = thick * scale;
    context.beginPath();
    context.moveTo(left + 0.35 * width, top + 0.35 * height);
    context.lineTo(left + 0.65 * width, top + 0.65 * height);
    context.moveTo(left + 0.65 * width, top + 0.35 * height);
    context.lineTo(left + 0.35 * width, top + 0.65 * height);
    context.stroke();
  }
}
