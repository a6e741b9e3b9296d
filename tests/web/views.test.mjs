import assert from "node:assert/strict";
import { test } from "node:test";

import { clamp, mapStore, most, slotsOf, weightsOf } from "../../assets/web/views/attention_maps.js";
import { LOW, HIGH, logShare, pruner, stepAt, STEPS, thresholdAt } from "../../assets/web/views/pruning_rule.js";
import { languageOf, rope } from "../../assets/web/views/rope.js";
import { unpack } from "../../assets/web/views/unpack.js";
import { expected, isClose } from "./expected.mjs";

test("the mask is the pruner's, bit for bit, for every rule", () => {
  let compared = 0;
  for (const { data, rules } of expected.pruning) {
    const { decide } = pruner(data);
    for (const { rule, state, kept } of rules) {
      const found = decide(rule);
      assert.deepEqual([...found.state], state, JSON.stringify(rule));
      assert.deepEqual(found.kept, kept);
      assert.equal(found.total, kept.reduce((sum, each) => sum + each, 0));
      compared += 1;
    }
  }
  assert.ok(compared >= 100);
});

test("the drift of a removed patch is its difference from the last kept version", () => {
  for (const { data, rules } of expected.pruning) {
    const { decide, drift } = pruner(data);
    for (const { rule, drift: wanted } of rules) {
      const found = wanted.map((_, frame) => [...drift(decide(rule), frame)]);
      assert.ok(isClose(found.flat(), wanted.flat(), 1e-5), JSON.stringify(rule));
    }
  }
});

test("without pairs the rules that need none are still there", () => {
  const { data, rules } = expected.pruning[0], { decide, knowsPairs } = pruner({ ...data, pairs: null });
  assert.equal(knowsPairs, false);
  for (const { rule, state } of rules.filter(({ rule: { mode } }) => mode !== "last_kept")) {
    assert.deepEqual([...decide(rule).state], state);
  }
});

test("the threshold's slider goes from end to end, and a value finds its step", () => {
  assert.equal(thresholdAt(0), LOW);
  assert.equal(thresholdAt(STEPS), HIGH);
  for (let step = 0; step <= STEPS; step++) assert.equal(stepAt(thresholdAt(step)), step);
  assert.equal(stepAt(0), 0);
  assert.equal(stepAt(1e9), STEPS);
  assert.equal(logShare(0.1, 100, 0), 0);
  assert.equal(logShare(0.1, 100, 100), 1);
});

test("likeness of two patches is what the encoder's rotation leaves of their product", () => {
  for (const { data, patches } of expected.rope) {
    const { similarity, wavelength, frequencies } = rope(data);
    for (const { row, col, similarity: wanted } of patches) {
      assert.ok(isClose(similarity(row, col).flat(), wanted.flat()));
    }
    assert.ok(isClose([wavelength(0)], [2 * Math.PI / frequencies[0]]));
  }
});

test("positions in the language model", () => {
  const { language } = expected.rope[0].data, found = languageOf(language);
  const before = unpack(language.before, Int32Array), after = unpack(language.after, Int32Array);
  const { tokens } = language;
  assert.deepEqual(found.extent("before", 0), { first: before[0], last: before[tokens - 1], number: tokens });
  const kept = [...after.subarray(tokens, 2 * tokens)].filter((position) => position >= 0);
  assert.deepEqual(found.extent("after", 1), { first: kept[0], last: kept[kept.length - 1], number: kept.length });
  assert.equal(found.extent("after", 2), null); // all of it was removed
  assert.equal(found.wordsBefore(0), before[0]);
  assert.equal(found.wordsBefore(1), before[tokens] - before[tokens - 1] - 1);
});

test("weights are those that the server packed", () => {
  const { maps, weights } = expected.attention, read = weightsOf(maps);
  weights.forEach((row, i) => {
    const found = row.map((_, slot) => read.at(i, slot + maps.first));
    assert.ok(isClose(found, row, 1e-5));
  });
  const mean = [...read.mean([0, 1], maps.first + maps.slots).subarray(maps.first)];
  assert.ok(isClose(mean, weights[0].map((value, slot) => (value + weights[1][slot]) / 2), 1e-5));
  assert.ok(read.reaches(maps.first) && !read.reaches(maps.first - 1) && !read.reaches(maps.first + maps.slots));
});

test("maps that were asked for: the ones that lay longest go first", () => {
  const { maps } = expected.attention, one = { ...maps, source: "rollout", tokens: [0], heads: null, layers: null };
  const store = mapStore(2 * maps.slots);
  for (const token of [0, 1]) store.put({ ...one, tokens: [token] });
  assert.ok(store.get("rollout", 0)); // used, so that 1 is the oldest
  store.put({ ...one, tokens: [2] });
  assert.equal(store.get("rollout", 1), undefined);
  assert.ok(store.get("rollout", 0) && store.get("rollout", 2));
});

test("slots of several media are numbered over all frames", () => {
  const { media, first_slots } = expected.attention, slots = slotsOf(media);
  const spans = first_slots.slice(1).map((/** @type {number} */ end, /** @type {number} */ i) => [first_slots[i], end]);
  assert.deepEqual(slots.spans, spans);
  assert.deepEqual(slots.starts, [0, 3, 4]); // frames before each medium
  assert.equal(slots.mediumOf(0), 0);
  assert.equal(slots.mediumOf(slots.numFrames - 1), media.length - 1);
  const { rows, cols } = media[0];
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) {
      assert.equal(slots.at({ medium: 0, frame: 1, row, col }), slots.places[0][(rows + row) * cols + col]);
    }
  }
  assert.equal(slots.removedIn(0, 0) + first_slots[1], rows * cols);
});

test("slots of frames that a connector joins", () => {
  const { media, boxes, frames } = expected.joined, slots = slotsOf(media);
  assert.deepEqual(slots.spans, [[0, 6], [0, 6], [6, 12], [6, 12], [12, 18]]);
  for (let frame = 0; frame < 5; frame++) {
    for (let row = 0; row < 3; row++) {
      for (let col = 0; col < 5; col++) {
        const place = { medium: 0, frame, row, col }, slot = slots.at(place), [left, top, right, bottom] = boxes[slot];
        const [first, end] = frames[slot], extent = [top / 10, bottom / 10, left / 10, right / 10];
        for (let other = 0; other < 5; other++) {
          assert.deepEqual(slots.extentOf(place, other), first <= other && other < end ? extent : null);
        }
      }
    }
  }
});

test("positions of frames that a connector joins", () => {
  const { positions, spans } = expected.joined, found = languageOf(positions);
  [0, 0, 1, 1, 2].forEach((step, frame) => {
    const [first, number] = spans[step];
    for (const which of /** @type {const} */ (["before", "after"])) {
      assert.deepEqual(found.extent(which, frame), { first, last: first + number - 1, number });
    }
    assert.equal(found.wordsBefore(frame), step ? 5 : 4);
  });
});

test("the largest, and what stays within bounds", () => {
  assert.equal(most(3, (i) => [1, 2, 2][i]), 1);
  assert.equal(most(0, () => 1), 0);
  assert.deepEqual([null, -1, 1, 9].map((index) => clamp(index, 3)), [0, 0, 1, 2]);
});
