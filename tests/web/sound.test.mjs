import assert from "node:assert/strict";
import { test } from "node:test";

import { heatOf, peaksOf, placeOf, timeAt } from "../../assets/web/views/sound_scale.js";

// A sound of 4 s that begins half a second before the picture, which ends at 4 s.
const data = { start_s: -0.5, end_s: 3.5, axis_s: [-0.5, 4], columns: 8 };
const peaks = Int8Array.from([...Array(8).keys()].flatMap((i) => [-10 * i, 12 * i]));

test("a time has its place on the strip, and the place its time", () => {
  assert.equal(placeOf(data, -0.5, 90), 0);
  assert.equal(placeOf(data, 4, 90), 90);
  for (const time_s of [-0.5, 0, 1.25, 4]) {
    assert.ok(Math.abs(timeAt(data, placeOf(data, time_s, 90), 90) - time_s) < 1e-9);
  }
  assert.equal(timeAt(data, -20, 90), -0.5);
  assert.equal(timeAt(data, 200, 90), 4);
  assert.equal(timeAt(data, 5, 0), -0.5);
});

test("a pixel has the extremes of all its columns, and none behind the sound", () => {
  const fine = peaksOf(data, peaks, 9); // half a second each, as a column
  assert.deepEqual(fine.map((peak) => peak && Math.round(127 * peak[1])), [0, 12, 24, 36, 48, 60, 72, 84, null]);
  const [first, second, third] = peaksOf(data, peaks, 3);
  assert.deepEqual([first, second, third].map((peak) => Math.round(127 * peak[1])), [24, 60, 84]);
  assert.equal(Math.round(127 * third[0]), -70);
  assert.equal(peaksOf(data, peaks, 90).filter((peak) => peak === null).length, 10);
});

test("heat is logarithmic below the strongest, and nothing where nothing was given", () => {
  const { heat, top } = heatOf(Float32Array.from([0, 1, 1, 2, 2, 3, 3, 4]), (step) => [0.1, 0.01, 1e-6, 0][step], 2);
  assert.equal(top, 0.1);
  assert.deepEqual(heat.map(({ share }) => Math.round(100 * share)), [100, 50, 0, 0]);
  assert.deepEqual([heat[3].start_s, heat[3].end_s], [3, 4]);
  assert.equal(heatOf(Float32Array.from([0, 1]), () => 0, 2).heat[0].share, 0);
});
