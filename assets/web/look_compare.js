import { button, choice, clock, count, DIMMED, drawer, fitCells, framesOf, hatch, make, NO_BREAK, percent, picture, short, slider, table, unpack } from "./look_parts.js";
import { outline } from "./look_pruning.js";

// Two answers to one question: what each of them saw at the same moment, said, and cost.

const LETTERS = ["A", "B"];
const GONE = 0, STAYS_ALONE = 2; // states of a patch; 1 is kept
const SAME_MOMENT_S = 1e-6;
const STEP_MS = 125;

export function compareView(el, data, emit) {
  const { sides } = data;
  const number = sides[0].media.length;
  let medium = 0;
  let moments = momentsOf(medium), moment = momentOf(0, data.frame || 0);
  let timer = 0; // of playing

  // Parts

  const readout = make("p", { class: "readout" });
  const spoken = make("p", { class: "spoken", "aria-live": "polite" });
  const panels = number ? sides.map(panelOf) : [];
  const play = button("Play", toggle, { class: "play" });
  const moving = slider("Frame", 0, goTo, released);
  const controls = make("div", { class: "row" }, play, moving.label, moving.input);
  const legend = make("p", { class: "legend" });
  const perFrame = table("Show kept patches as table", "Kept patches of every frame", frameRows);
  const which = number > 1 && choice("Clip or image", sides[0].media.map(({ source }, i) => [i, `${i + 1}: ${source || "picture"}`]), 0, pickMedium);

  el.replaceChildren(make("section", { class: "vl3-look compare", "aria-label": "Compare", onkeydown: keyed },
    data.question ? make("p", { class: "asked" }, data.question) : null,
    number ? make("div", { class: "top" }, readout) : null, spoken, which || null,
    make("div", { class: "both" }, ...panels.map(({ node }) => node)),
    ...(number ? [legend, controls, perFrame.node] : []),
    make("h3", {}, "Answers"), make("div", { class: "both answers" }, ...sides.map(answerOf)),
    make("p", { class: "words" }, differenceWords()),
    make("h3", {}, "Tokens, time, memory"), costs()));
  const drawing = drawer(el.firstElementChild, () => panels.forEach(({ draw }) => draw()));
  const paintFrames = data.sheets.map((sheet) => framesOf(sheet, drawing.ask));
  if (number) begin();

  // Moments: the times at which either run has a frame. Each shows its last frame until then.

  function momentsOf(index) {
    const times = sides.flatMap(({ media }) => media[index]?.times_s ?? [0]).sort((a, b) => a - b);
    return times.filter((time_s, i) => i === 0 || time_s - times[i - 1] > SAME_MOMENT_S);
  }

  function frameOf(side) {
    const { times_s } = sides[side].media[medium];
    return times_s ? Math.max(0, times_s.findLastIndex((time_s) => time_s <= moments[moment] + SAME_MOMENT_S)) : 0;
  }

  function momentOf(side, frame) {
    const times_s = sides[side].media[medium]?.times_s;
    if (!times_s) return 0;
    const time_s = times_s[Math.min(Math.max(0, frame), times_s.length - 1)];
    return moments.findIndex((each) => each > time_s - SAME_MOMENT_S);
  }

  // What a person does

  function begin() {
    moving.input.max = moments.length - 1;
    controls.hidden = moments.length === 1;
    panels.forEach(({ show }) => show(medium));
    const states = sides.flatMap(({ media }) => [...unpack(media[medium].state, Uint8Array)]);
    legend.replaceChildren(...[[GONE, "removed", "removed"], [STAYS_ALONE, "placeholder", "placeholder, kept so that no frame is empty"]]
      .filter(([state]) => states.includes(state)).map(([, kind, text]) => swatch(kind, text)));
    refresh();
    released();
  }

  function pickMedium(index) {
    medium = Number(index);
    moments = momentsOf(medium);
    moment = 0;
    begin();
  }

  function goTo(index) {
    if (index === moment || index < 0 || index >= moments.length) return;
    const before = frameOf(0);
    moment = index;
    refresh();
    if (medium === 0 && frameOf(0) !== before) emit?.("frame", frameOf(0));
  }

  function keyed(event) {
    if (event.target.matches("input, select, summary")) return;
    const direction = { ",": -1, ".": 1 }[event.key];
    if (!direction) return;
    event.stopPropagation(); // the page would move its player as well, which then moves this
    goTo(moment + direction);
    released();
  }

  function toggle() {
    const runs = Boolean(timer);
    clearInterval(timer);
    timer = runs ? 0 : setInterval(() => goTo((moment + 1) % moments.length), STEP_MS);
    play.textContent = runs ? "Play" : "Pause";
    released();
  }

  // What it says

  function keptHere() {
    const told = sides.map(({ media }, side) => [media[medium].kept[frameOf(side)], tokensOf(media[medium])]);
    const [[a, ofA], [b, ofB]] = told;
    if (ofA === ofB) return `kept ${count(a)} in A, ${count(b)} in B, of ${count(ofA)}`;
    return `kept ${count(a)} of ${count(ofA)} in A, ${count(b)} of ${count(ofB)} in B`;
  }

  function summary() {
    const isImage = sides[0].media[medium].times_s === null;
    return isImage ? `Image · ${keptHere()}` : `Frame ${moment + 1} of ${moments.length} · ${clock(moments[moment])} · ${keptHere()}`;
  }

  function refresh() {
    readout.textContent = summary();
    moving.input.value = moment;
    moving.input.setAttribute("aria-valuetext", `${moment + 1} of ${moments.length} · ${clock(moments[moment])}`);
    drawing.ask();
  }

  function released() {
    spoken.textContent = summary();
    panels.forEach(({ describe }) => describe());
    perFrame.fill();
  }

  function frameRows() {
    const isImage = sides[0].media[medium].times_s === null, now = moment;
    const rows = moments.map((time_s, index) => {
      moment = index;
      return [index + 1, ...(isImage ? [] : [clock(time_s)]), ...sides.map(({ media }, side) => media[medium].kept[frameOf(side)])];
    });
    moment = now;
    return [["Frame", ...(isImage ? [] : ["Time"]), ...LETTERS.map((letter) => `Kept in ${letter}`)], ...rows];
  }

  function answerOf({ answer, stopped, truncated, notes }, side) {
    const words = answer.flatMap(([isOnly, text]) => (isOnly ? marked(text) : [text]));
    const after = [stopped && "Stopped before its end.", truncated && "Cut off at the longest answer allowed.", ...notes].filter(Boolean);
    return make("article", { "aria-label": `Answer ${LETTERS[side]}` }, make("p", { class: "side-name" }, letterOf(side), sides[side].name),
      make("p", { class: "text" }, ...(words.length ? words : ["(no answer)"])), ...after.map((text) => make("p", { class: "words" }, text)));
  }

  function differenceWords() {
    const differ = sides.some(({ answer }) => answer.some(([isOnly]) => isOnly));
    return differ ? "Underlined words are in one answer only." : "Both answers are the same, word for word.";
  }

  function costs() {
    const heads = [make("td", {}), ...sides.map(({ name }, side) => make("th", { scope: "col" }, letterOf(side), make("span", { class: "long" }, name))),
      make("th", { scope: "col" }, "B : A")];
    const rows = data.rows.map(({ name, unit, values: [a, b] }) => make("tr", {}, make("th", { scope: "row" }, name),
      make("td", {}, amount(a, unit)), make("td", {}, amount(b, unit)), make("td", { class: "ratio" }, ratio(a, b))));
    return make("div", { class: "costs" }, make("table", { "aria-label": "Tokens, time and memory of both runs" },
      make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows)),
    make("p", { class: "words" }, "A clip that both see is read and encoded once; its time stands in both columns."));
  }

  // Pictures

  function panelOf({ name }, side) {
    const canvas = make("canvas", { role: "img", class: "frame" });
    const bars = picture("height: 64px", paintBars, { class: "bars", onclick: pickBar });
    const told = make("p", { class: "words" });
    let shown = null, state = null;

    function show(index) {
      shown = sides[side].media[index];
      state = unpack(shown.state, Uint8Array);
      canvas.style.setProperty("--ratio", ratioOf(data.sheets[shown.sheet]));
      bars.canvas.hidden = shown.frames === 1;
      const total = shown.kept.reduce((sum, each) => sum + each, 0), all = shown.frames * tokensOf(shown);
      told.textContent = `kept ${count(total)} of ${count(all)} (${percent(total / all)})`;
    }

    function pickBar({ offsetX }) {
      const frame = Math.floor((offsetX / bars.canvas.clientWidth) * shown.frames);
      goTo(momentOf(side, frame));
      released();
    }

    function describe() {
      const frame = frameOf(side), here = `frame ${frame + 1} of ${shown.frames}, kept ${shown.kept[frame]} of ${tokensOf(shown)}`;
      canvas.setAttribute("aria-label", `${LETTERS[side]}, ${name}: ${shown.source || "clip"}, ${here}`);
      bars.canvas.setAttribute("aria-label", `${LETTERS[side]}: kept patches of every frame, between ${Math.min(...shown.kept)} and ${Math.max(...shown.kept)} of ${tokensOf(shown)}`);
    }

    function draw() {
      if (!shown) return;
      const frame = frameOf(side), tokens = tokensOf(shown);
      const paint = (context, ...box) => paintFrames[shown.sheet](context, frame, ...box);
      paintKept(canvas, paint, ratioOf(data.sheets[shown.sheet]), shown, state.subarray(frame * tokens, (frame + 1) * tokens));
      if (!bars.canvas.hidden) bars.draw();
    }

    function paintBars(context, width, height, colour) {
      const { frames, kept } = shown, now = frameOf(side), bottom = height - 10, each = width / frames;
      context.fillStyle = colour.soft;
      context.fillRect(0, 0, width, bottom);
      kept.forEach((value, index) => {
        const tall = Math.max(1, (bottom * value) / tokensOf(shown));
        context.fillStyle = index === now ? colour.accent : colour.faint;
        context.fillRect(index * each, bottom - tall, Math.max(1, each - (each > 4 ? 1 : 0)), tall);
      });
      const middle = (now + 0.5) * each; // a mark below, seen where the bar itself is very low or thin
      context.fillStyle = colour.accent;
      context.beginPath();
      context.moveTo(middle, bottom + 2);
      context.lineTo(middle - 4, bottom + 8);
      context.lineTo(middle + 4, bottom + 8);
      context.fill();
    }

    const node = make("div", { class: "panel" }, make("p", { class: "side-name" }, letterOf(side), name), canvas, told, bars.canvas);
    return { node, show, draw, describe };
  }

  return {
    follow(changes) {
      if (!("frame" in changes) || medium !== 0 || !number) return;
      moment = momentOf(0, changes.frame);
      refresh();
    },
    destroy() {
      clearInterval(timer);
      drawing.end();
    },
  };
}

// The space before a marked word stays unmarked.
function marked(text) {
  const word = text.trimStart();
  return [text.slice(0, text.length - word.length), make("mark", {}, word)];
}

const letterOf = (side) => make("b", { class: "letter" }, LETTERS[side]);
const swatch = (kind, text) => make("span", { class: "swatch" }, make("i", { class: kind }), make("span", {}, text));
const tokensOf = ({ token_rows, token_cols }) => token_rows * token_cols;
const ratioOf = ({ width, height }) => (height / width).toFixed(5);
const ratio = (a, b) => (a === b ? "same" : a > 0 ? `${b / a < 10 ? (b / a).toFixed(2) : short(b / a)}${NO_BREAK}×` : "–");

export function duration(time_s) {
  if (time_s >= 1) return `${time_s.toFixed(time_s >= 10 ? 1 : 2)}${NO_BREAK}s`;
  return `${time_s >= 0.01 ? Math.round(1000 * time_s) : Number((1000 * time_s).toPrecision(1))}${NO_BREAK}ms`;
}

function amount(value, unit) {
  if (unit === "s") return duration(value);
  if (unit === "bytes") return value >= 1e9 ? `${(value / 1e9).toFixed(2)}${NO_BREAK}GB` : `${Math.round(value / 1e6)}${NO_BREAK}MB`;
  return count(value);
}

// A frame with its removed patches dimmed and hatched, and placeholders outlined.
function paintKept(canvas, paintFrame, ratio, { token_rows: rows, token_cols: cols }, state) {
  const { width, height } = fitCells(canvas, rows, cols, ratio), scale = window.devicePixelRatio || 1;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  paintFrame(context, 0, 0, width, height);
  const [across, down] = [width / cols, height / rows];
  const boxes = Array.from(state, (_, token) => [(token % cols) * across, Math.floor(token / cols) * down, across, down]);
  const removed = new Path2D();
  boxes.forEach((box, token) => { if (state[token] === GONE) removed.rect(...box); });
  for (const style of [`rgb(0 0 0 / ${1 - DIMMED})`, hatch(context, Math.round(7 * scale))]) {
    context.fillStyle = style;
    context.fill(removed);
  }
  context.lineWidth = Math.max(2, Math.round(2 * scale));
  boxes.forEach((box, token) => { if (state[token] === STAYS_ALONE) outline(context, box); });
}
