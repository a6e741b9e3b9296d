import { clock, count, disc, drawer, make, picture, scaleBar, slider, stroke, table, raster, short, twilight, unpack, viridis } from "./look_parts.js";

// 2D-RoPE turns every patch by its row and its column; the language model counts on in one dimension.

const TURN = 2 * Math.PI;
const MAP_HEIGHT_PX = 300;
const SHOWN_ROWS = 6, SHOWN_COLS = 10; // of the block order, which goes on the same way

// The angles of vl3/vision/rope2d.py, and how alike they make two patches.
export function rope(data) {
  const [rowAngles, colAngles, frequencies] = ["row_angles", "col_angles", "frequencies"].map((name) => unpack(data[name], Float32Array));
  const count = frequencies.length;

  function alike(angles, a, b) {
    let sum = 0;
    for (let f = 0; f < count; f++) sum += Math.cos(angles[a * count + f] - angles[b * count + f]);
    return sum / count;
  }

  // Mean cosine of the angles between one patch and every other, row after row.
  function similarity(row, col) {
    const down = Array.from({ length: data.rows }, (_, other) => alike(rowAngles, row, other));
    const across = Array.from({ length: data.cols }, (_, other) => alike(colAngles, col, other));
    return down.map((each) => across.map((other) => (each + other) / 2));
  }

  return { rowAngles, colAngles, frequencies, similarity };
}

export function positionsView(el, data, emit) {
  const { rows, cols, merge, frames } = data;
  const { rowAngles, colAngles, frequencies, similarity } = rope(data);
  const order = unpack(data.order, Uint16Array); // row and column of every patch, in block order
  const language = data.language && Object.fromEntries(["before", "after"].map((name) => [name, unpack(data.language[name], Int32Array)]));
  const tokens = language ? data.language.tokens : 0;
  const number = frequencies.length;
  let frequency = telling(), row = Math.floor(rows / 2), col = Math.floor(cols / 2);
  let frame = Math.min(data.frame || 0, frames - 1);
  let alike = similarity(row, col);
  const reach = language && { first: Math.max(0, language.before[0] - 20), last: language.before[language.before.length - 1] + 1 };

  // Parts

  const mapSize = `width: min(100%, ${Math.round((MAP_HEIGHT_PX * cols) / rows)}px); aspect-ratio: ${cols} / ${rows}`;
  const mapOf = (paint) => picture(mapSize, paint, { class: "pick map", onclick: pickPatch });
  const rowMap = mapOf((...args) => paintAngles(rowAngles, (r) => r, ...args));
  const colMap = mapOf((...args) => paintAngles(colAngles, (_, c) => c, ...args));
  const alikeMap = mapOf(paintAlike);
  const spectrum = picture("height: 190px", paintSpectrum, { onclick: pickFrequency, class: "pick" });
  const decay = picture("height: 190px", paintDecay);
  const blocks = picture(`height: ${8 + 31 * Math.min(rows, SHOWN_ROWS)}px`, paintBlocks);
  const tracks = language && picture("height: 58px", paintTracks, { onclick: pickFrame, class: "pick" });
  const near = language && picture("height: 84px", paintNear);
  const readout = make("p", { class: "readout" });
  const spoken = make("p", { class: "spoken", "aria-live": "polite" });
  const told = make("p", { class: "words" });
  const blockWords = make("p", { class: "words" });
  const alikeScale = make("p", { class: "legend" });
  const frequencySlider = slider("Frequency", number - 1, (value) => { frequency = value; refresh(); }, released);
  const rowSlider = slider("Row", rows - 1, (value) => pick(value, col), released);
  const colSlider = slider("Column", cols - 1, (value) => pick(row, value), released);
  const frameSlider = slider("Frame", frames - 1, (index) => goTo(index), released);
  const waves = table("Show wavelengths as table", "Wavelength of every frequency", waveRows);
  const spans = language && table("Show as table", "Positions of every frame", spanRows);
  const row_ = ({ label, input }) => make("div", { class: "row" }, label, input);
  const figure = (title, ...parts) => make("div", { class: "figure" }, make("h3", {}, title), ...parts);

  const root = make("section", { class: "vl3-look positions", "aria-label": "Positions" },
    make("div", { class: "top" }, readout), spoken,
    make("div", { class: "row wide" }, ...[frequencySlider, rowSlider, colSlider].map(row_)),
    make("div", { class: "figures" },
      figure("Angle from the row", rowMap.canvas),
      figure("Angle from the column", colMap.canvas, make("p", { class: "legend" }, scaleBar(twilight, "0", "2π", "Angle"))),
      figure("Likeness to the chosen patch", alikeMap.canvas, alikeScale),
      figure("Wavelength of each frequency", spectrum.canvas),
      figure("Likeness and distance", decay.canvas),
      figure("Order of the patches", blocks.canvas, blockWords)),
    waves.node,
    ...(language ? [make("h3", {}, "Positions in the language model"),
      ...(frames > 1 ? [row_(frameSlider),
        make("p", { class: "words" }, `All frames: above with every patch, to position ${count(reach.last - 1)}; below as they are.`), tracks.canvas,
        make("p", { class: "words" }, "This frame and its neighbours: removed patches are pale, gaps hold the words between."), near.canvas] : []),
      told, spans.node] : []).filter(Boolean));
  el.replaceChildren(root);
  const pictures = [rowMap, colMap, alikeMap, spectrum, decay, blocks, tracks, near].filter(Boolean);
  const drawing = drawer(root, () => pictures.forEach((each) => each.draw()));
  refresh();
  released();

  // What a person does

  function pick(newRow, newCol) {
    [row, col] = [newRow, newCol];
    alike = similarity(row, col);
    refresh();
  }

  function pickPatch({ target, offsetX, offsetY }) {
    const at = (offset, size, number) => Math.min(number - 1, Math.max(0, Math.floor((offset / size) * number)));
    pick(at(offsetY, target.clientHeight, rows), at(offsetX, target.clientWidth, cols));
    released();
  }

  function pickFrequency({ target, offsetX }) {
    const { left, right } = plot(target.clientWidth, target.clientHeight);
    frequency = Math.min(number - 1, Math.max(0, Math.round(((offsetX - left) / (right - left)) * (number - 1))));
    refresh();
    released();
  }

  function goTo(index) {
    if (index === frame) return;
    frame = index;
    refresh();
    emit?.("frame", frame);
  }

  function pickFrame({ target, offsetX }) {
    const position = reach.first + (offsetX / target.clientWidth) * (reach.last - reach.first);
    const index = Array.from({ length: frames }, (_, i) => i).findLastIndex((i) => language.before[i * tokens] <= position);
    goTo(Math.max(0, index));
    released();
  }

  // What it says

  function wavelength(index) {
    return TURN / frequencies[index];
  }

  // The frequency to begin with: the last that turns once within half of the picture.
  function telling() {
    return Math.max(0, frequencies.findLastIndex((_, index) => wavelength(index) <= Math.max(rows, cols) / 2));
  }

  function angle() {
    return { row: rowAngles[row * number + frequency], col: colAngles[col * number + frequency] };
  }

  function refresh() {
    frequencySlider.input.value = frequency;
    frequencySlider.input.setAttribute("aria-valuetext", `${frequency + 1} of ${number}, wavelength ${short(wavelength(frequency))} patches`);
    rowSlider.input.value = row;
    colSlider.input.value = col;
    frameSlider.input.value = frame;
    frameSlider.input.setAttribute("aria-valuetext", `${frame + 1} of ${frames}`);
    readout.textContent = `Patch row ${row}, column ${col} of ${rows} × ${cols} · frequency ${frequency + 1} of ${number} · repeats after ${short(wavelength(frequency))} patches`;
    if (language) told.textContent = languageWords();
    drawing.ask();
  }

  function released() {
    const { row: down, col: across } = angle();
    const least = Math.min(...alike.flat());
    const place = blockPlace();
    spoken.textContent = `${readout.textContent} · turned by ${short(down)} for its row and ${short(across)} for its column`;
    const say = (each, text) => each.canvas.setAttribute("aria-label", text);
    say(rowMap, `Row angles at frequency ${frequency + 1}: ${short(down)} radians in row ${row}`);
    say(colMap, `Column angles at frequency ${frequency + 1}: ${short(across)} radians in column ${col}`);
    say(alikeMap, `Likeness of every patch to row ${row}, column ${col}: from ${short(least)} to 1 at the patch itself`);
    say(spectrum, `Wavelengths of ${number} frequencies, from ${short(wavelength(0))} to ${short(wavelength(number - 1))} patches; chosen ${short(wavelength(frequency))}`);
    say(decay, `Likeness falls with distance, from 1 to ${short(least)}`);
    say(blocks, `Order of the patches: ${merge} × ${merge} neighbours follow each other`);
    if (language) {
      say(tracks, languageWords());
      say(near, `Frame ${frame + 1} and its neighbours, token by token`);
    }
    alikeScale.replaceChildren(scaleBar(viridis, short(least), "1", "Mean cosine"));
    blockWords.textContent = merge === 1 ? `Row after row: the chosen patch is number ${place}.`
      : `${merge} × ${merge} neighbours, which become one token, follow each other: the chosen patch is number ${count(place)}, its token number ${count(Math.floor(place / merge ** 2))} of its frame.`;
    waves.fill();
    spans?.fill();
  }

  function blockPlace() {
    for (let place = 0; ; place++) if (order[2 * place] === row && order[2 * place + 1] === col) return place;
  }

  // First and last position of a frame's tokens; null where all of them were removed.
  function extent(list, index) {
    const held = list.subarray(index * tokens, (index + 1) * tokens).filter((position) => position >= 0);
    return held.length ? [held[0], held[held.length - 1], held.length] : null;
  }

  function wordsBefore(index) {
    return language.before[index * tokens] - (index ? language.before[index * tokens - 1] + 1 : 0);
  }

  function languageWords() {
    const before = extent(language.before, frame), after = extent(language.after, frame);
    const name = data.times_s ? `Frame ${frame + 1} at ${clock(data.times_s[frame])}` : "The image";
    const range = ([first, last]) => `${count(first)} to ${count(last)}`;
    if (frames === 1) return `${name}: positions ${range(before)}.`;
    const left = after ? `${range(after)} for the ${count(after[2])} that are left` : "none of them is left";
    const stamp = frame && data.times_s ? ` Between it and the frame before stand ${wordsBefore(frame)} positions of words, its time stamp.` : "";
    return `${name}: positions ${range(before)} with every patch, ${left}.${stamp}`;
  }

  function waveRows() {
    return [["Frequency", "Radians per patch", "Wavelength in patches"],
      ...Array.from(frequencies, (step, i) => [i + 1, step.toPrecision(4), short(wavelength(i))])];
  }

  function spanRows() {
    const range = (found) => (found ? `${found[0]}–${found[1]}` : "–");
    return [["Frame", "Words before it", "With every patch", "As it is", "Kept"], ...Array.from({ length: frames }, (_, i) => {
      const after = extent(language.after, i);
      return [i + 1, wordsBefore(i), range(extent(language.before, i)), range(after), after ? after[2] : 0];
    })];
  }

  // Pictures

  function cover(context, width, height, colour, rgbAt) {
    context.imageSmoothingEnabled = false;
    context.drawImage(raster(rows, cols, rgbAt), 0, 0, width, height);
    const box = [(col * width) / cols, (row * height) / rows, width / cols, height / rows];
    context.lineWidth = 4;
    context.strokeStyle = "#000";
    context.strokeRect(...box);
    context.lineWidth = 2;
    context.strokeStyle = "#fff";
    context.strokeRect(...box);
  }

  function paintAngles(angles, line, context, width, height, colour) {
    cover(context, width, height, colour, (r, c) => {
      const turns = angles[line(r, c) * number + frequency] / TURN;
      return twilight.rgb(turns - Math.floor(turns));
    });
  }

  function paintAlike(context, width, height, colour) {
    const least = Math.min(...alike.flat());
    cover(context, width, height, colour, (r, c) => viridis.rgb((alike[r][c] - least) / (1 - least || 1)));
  }

  function plot(width, height) {
    return { left: 56, right: width - 10, top: 8, bottom: height - 34 };
  }

  function axes(context, width, height, colour, ticks, y, below) {
    const { left, right } = plot(width, height);
    context.font = colour.font;
    context.lineWidth = 1;
    context.strokeStyle = colour.line;
    context.fillStyle = colour.faint;
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const [value, text] of ticks) {
      context.fillText(text, left - 6, y(value));
      stroke(context, [[left, y(value)], [right, y(value)]]);
    }
    context.textAlign = "center";
    context.textBaseline = "bottom";
    context.fillText(below, (left + right) / 2, height);
  }

  function paintSpectrum(context, width, height, colour) {
    const { left, right, top, bottom } = plot(width, height);
    const high = Math.log10(wavelength(number - 1)), low = Math.log10(wavelength(0));
    const y = (value) => bottom - ((Math.log10(value) - low) / (high - low || 1)) * (bottom - top);
    const x = (index) => left + (number > 1 ? index / (number - 1) : 0.5) * (right - left);
    const ticks = [10, 100, 1000, 10_000, 100_000].filter((value) => Math.log10(value) < high + 0.02);
    axes(context, width, height, colour, ticks.map((value) => [value, count(value)]), y, "frequency, highest first");
    context.setLineDash([4, 4]);
    context.strokeStyle = colour.accent;
    const side = Math.max(rows, cols);
    if (Math.log10(side) > low) stroke(context, [[left, y(side)], [right, y(side)]]);
    context.setLineDash([]);
    context.textAlign = "right";
    context.textBaseline = "bottom";
    context.fillStyle = colour.accent;
    if (Math.log10(side) > low) context.fillText(`${side}: the longer side`, right, y(side) - 2);
    for (let i = 0; i < number; i++) {
      context.fillStyle = i === frequency ? colour.accent : colour.faint;
      disc(context, x(i), y(wavelength(i)), i === frequency ? 6 : 3.5);
    }
    context.textBaseline = "top";
    context.fillStyle = colour.faint;
    [[0, "left"], [number - 1, "right"]].forEach(([index, align]) => {
      context.textAlign = align;
      context.fillText(String(index + 1), x(index), bottom + 5);
    });
  }

  function paintDecay(context, width, height, colour) {
    const { left, right, top, bottom } = plot(width, height);
    const bins = [];
    alike.forEach((line, r) => line.forEach((value, c) => {
      const distance = Math.round(Math.hypot(r - row, c - col));
      const bin = (bins[distance] ||= { low: 1, high: -1, sum: 0, number: 0 });
      bin.low = Math.min(bin.low, value);
      bin.high = Math.max(bin.high, value);
      bin.sum += value;
      bin.number++;
    }));
    const low = Math.min(0.5, ...bins.map((bin) => bin.low)), far = Math.max(1, bins.length - 1);
    const x = (distance) => left + (distance / far) * (right - left), y = (value) => bottom - ((value - low) / (1 - low)) * (bottom - top);
    const ticks = [-1, -0.5, 0, 0.25, 0.5, 0.75, 1].filter((value) => value >= low);
    axes(context, width, height, colour, ticks.map((value) => [value, String(value)]), y, "distance in patches");
    context.fillStyle = colour.soft;
    context.beginPath();
    bins.forEach((bin, i) => context.lineTo(x(i), y(bin.high)));
    for (let i = bins.length - 1; i >= 0; i--) context.lineTo(x(i), y(bins[i].low));
    context.fill();
    context.strokeStyle = colour.accent;
    context.lineWidth = 2;
    stroke(context, bins.map((bin, i) => [x(i), y(bin.sum / bin.number)]));
    context.fillStyle = colour.faint;
    context.textBaseline = "top";
    [[0, "left"], [far, "right"]].forEach(([distance, align]) => {
      context.textAlign = align;
      context.fillText(String(distance), x(distance), bottom + 5);
    });
  }

  function paintBlocks(context, width, height, colour) {
    const shownRows = Math.min(rows, SHOWN_ROWS - (SHOWN_ROWS % merge)), shownCols = Math.min(cols, SHOWN_COLS - (SHOWN_COLS % merge));
    const side = Math.min(31, (width - 8) / shownCols, (height - 8) / shownRows);
    const at = (r, c) => [4 + c * side, 4 + r * side];
    const path = [];
    for (let place = 0; 2 * place < order.length; place++) {
      const [r, c] = [order[2 * place], order[2 * place + 1]];
      if (r < shownRows && c < shownCols) path.push([r, c, place]);
    }
    for (const [r, c] of path) {
      const even = (Math.floor(r / merge) + Math.floor(c / merge)) % 2 === 0;
      context.fillStyle = r === row && c === col ? colour.accent : even ? colour.soft : "transparent";
      context.fillRect(...at(r, c), side, side);
    }
    context.strokeStyle = colour.line;
    context.lineWidth = 1;
    for (let r = 0; r < shownRows; r += merge) for (let c = 0; c < shownCols; c += merge) context.strokeRect(...at(r, c), side * merge, side * merge);
    context.strokeStyle = colour.faint;
    const middle = (r, c) => at(r + 0.5, c + 0.5);
    context.globalAlpha = 0.55;
    // The path is broken where it runs on outside of what is shown.
    path.forEach(([r, c, place], i) => { if (i && place === path[i - 1][2] + 1) stroke(context, [middle(path[i - 1][0], path[i - 1][1]), middle(r, c)]); });
    context.globalAlpha = 1;
    context.font = colour.font;
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (const [r, c, place] of path) {
      context.fillStyle = r === row && c === col ? colour.onAccent : colour.text;
      if (side >= 22) context.fillText(String(place), ...middle(r, c));
    }
  }

  // All frames, with every patch above and as they are below.
  function paintTracks(context, width, height, colour) {
    const x = (position) => ((position - reach.first) / (reach.last - reach.first)) * width;
    for (let i = 0; i < frames; i++) paintSpan(context, colour, i, x, 2, 32, 24);
  }

  // The current frame and its neighbours token by token, and where each that is left has moved. As they
  // are, the frames begin further to the front: both rows start at the first of the three.
  function paintNear(context, width, height, colour) {
    const [from, to] = [Math.max(0, frame - 1), Math.min(frames - 1, frame + 1)];
    const first = language.before[from * tokens], last = language.before[(to + 1) * tokens - 1] + 1;
    const moved = first - (extent(language.after, from)?.[0] ?? first);
    const x = (position) => ((position - first) / (last - first)) * width;
    const thick = Math.max(1, x(first + 1) - 0.5);
    context.lineWidth = 1;
    for (let i = from * tokens; i < (to + 1) * tokens; i++) {
      const kept = language.after[i] >= 0, above = x(language.before[i]), below = x(language.after[i] + moved);
      context.fillStyle = context.strokeStyle = Math.floor(i / tokens) === frame ? colour.accent : colour.faint;
      context.globalAlpha = kept ? 1 : 0.22;
      context.fillRect(above, 2, thick, 24);
      if (!kept) continue;
      context.fillRect(below, 58, thick, 24);
      context.globalAlpha = 0.35;
      stroke(context, [[above + thick / 2, 27], [below + thick / 2, 57]]);
    }
    context.globalAlpha = 1;
  }

  function paintSpan(context, colour, index, x, above, below, tall) {
    context.fillStyle = index === frame ? colour.accent : colour.faint;
    for (const [list, top] of [[language.before, above], [language.after, below]]) {
      const found = extent(list, index);
      if (found) context.fillRect(x(found[0]), top, Math.max(1, x(found[1] + 1) - x(found[0]) - 0.5), tall);
    }
  }

  return {
    follow(changes) {
      if (!("frame" in changes)) return;
      frame = Math.min(Math.max(0, changes.frame), frames - 1);
      refresh();
    },
    destroy: drawing.end,
  };
}
