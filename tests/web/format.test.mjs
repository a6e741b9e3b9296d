import assert from "node:assert/strict";
import { test } from "node:test";

import {
  clock, clockTenths, count, duration, percent, readTime, short, smallPercent,
} from "../../assets/web/shared/format.js";
import { expected } from "./expected.mjs";

test("times are written as the server writes them", () => {
  for (const [time_s, text] of expected.clock) assert.equal(clock(time_s), text, String(time_s));
  assert.equal(clock(NaN), "?");
  assert.equal(clock(Infinity), "?");
});

test("tenths are cut off, never rounded up to the next second", () => {
  for (const [time_s, text] of expected.clock) {
    if (time_s >= 0) assert.equal(clockTenths(time_s).slice(0, -2), text);
  }
  assert.equal(clockTenths(59.96), "0:59.9");
  assert.equal(clockTenths(0.3), "0:00.3"); // 0.3 * 10 is 3 and not 2.999
  assert.equal(clockTenths(-0.25), "\u22120:00.2");
  assert.equal(clockTenths(-0.05), "0:00.0");
});

test("typed times are read as the server reads them", () => {
  for (const [text, time_s] of expected.typed) assert.equal(readTime(text), time_s, text);
});

test("numbers and shares are written as the server writes them", () => {
  for (const [number, text] of expected.count) assert.equal(count(number), text);
  for (const [share, text] of expected.percent) assert.equal(percent(share), text, String(share));
});

test("three digits of a number, two of a share, and how long something took", () => {
  assert.deepEqual([0, 0.012345, 12345, 100].map(short), ["0", "0.0123", "12300", "100"]);
  assert.equal(smallPercent(0.00012345), "0.012\u00a0%");
  assert.deepEqual([12.34, 1.234, 0.5, 0.0123, 0.00123].map(duration).map((text) => text.replace("\u00a0", " ")),
    ["12.3 s", "1.23 s", "500 ms", "12 ms", "1 ms"]);
});
