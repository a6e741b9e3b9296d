// What Python says, written by test_scripts.py; see there for what each part holds.

import { readFileSync } from "node:fs";

const path = process.env.VL3_EXPECTED;
if (!path) throw new Error("run these by pytest tests/web, which writes what they compare with");
export const expected = JSON.parse(readFileSync(path, "utf-8"));

/** Whether two lists of numbers agree to within what float32 can tell. */
export function isClose(found, wanted, tolerance = 2e-6) {
  return found.length === wanted.length && wanted.every((value, i) =>
    Math.abs(found[i] - value) <= tolerance * Math.max(1, Math.abs(value)));
}
