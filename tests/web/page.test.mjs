import assert from "node:assert/strict";
import { test } from "node:test";

import { readBoxes } from "../../assets/web/page/boxes.js";
import { asRead } from "../../assets/web/page/conversation.js";
import { nearest } from "../../assets/web/page/film_strip.js";
import { expected } from "./expected.mjs";

test("the frame nearest to a time", () => {
  const times_s = [0, 1, 2.5];
  assert.deepEqual([-1, 0.4, 0.6, 1.74, 1.76, 99].map((time_s) => nearest(times_s, time_s)), [0, 0, 1, 1, 2, 2]);
  assert.equal(nearest([], 1), -1);
});

test("links to boxes are read as the server writes them", () => {
  for (const { hash, list, total, key } of expected.boxes) {
    const found = readBoxes({ hash });
    assert.deepEqual(found.list.map(({ place, time_s }) => [place, time_s]), list);
    assert.deepEqual([found.total, found.key], [total, key]);
  }
});

test("what is copied is what is read", () => {
  assert.equal(asRead("A [0:12](#t=12&v=ab) dog [Show box](#boxes=1,2,3,4&n=1)\u200b\n<span class=\"foot\">3 s</span>"),
    "A 0:12 dog");
});
