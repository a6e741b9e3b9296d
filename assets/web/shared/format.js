// @ts-check
// Numbers, shares and times in words, as vl3/webapp/text_format.py and vl3/webapp/timestamps.py write and read them.

export const NO_BREAK = "\u00a0";

const LONG_H = 100; // from here on in days: a recorder's clock can be years long
const TIME = /^(?:(?:(\d{1,7}):)?(\d{1,3}):([0-5]\d(?:\.\d{1,3})?)|(\d{1,10}(?:\.\d{1,3})?)\s*s?)$/i;

/**
 * The number with its thousands apart, never broken over two lines.
 * @param {number} number
 */
export function count(number) {
  return String(number).replace(/\B(?=(\d{3})+$)/g, NO_BREAK);
}

/**
 * The number to three digits.
 * @param {number} number
 */
export function short(number) {
  return number === 0 ? "0" : Number(number.toPrecision(3)).toString();
}

/**
 * What is more than nothing is not 0 %, what is less than everything not 100 %.
 * @param {number} share
 */
export function percent(share) {
  const whole = Math.round(100 * share);
  if (whole === 0 && share > 0) return `under${NO_BREAK}1${NO_BREAK}%`;
  if (whole === 100 && share < 1) return `over${NO_BREAK}99${NO_BREAK}%`;
  return `${whole}${NO_BREAK}%`;
}

/**
 * A share to two digits, however small: 0.00034 %.
 * @param {number} share
 */
export function smallPercent(share) {
  return `${short(100 * Number(share.toPrecision(2)))}${NO_BREAK}%`;
}

/**
 * The time as a player shows it: 0:12, 1:02:03, 5 d 03:04:05; a minus before 0.
 * @param {number} time_s
 */
export function clock(time_s) {
  return Number.isFinite(time_s) ? clockOf(time_s, 1) : "?";
}

/**
 * The same with tenths, for frames: 0:12.5.
 * @param {number} time_s
 */
export function clockTenths(time_s) {
  return clockOf(time_s, 10);
}

/**
 * @param {number} time_s
 * @param {number} parts of a second that are told apart: 1 or 10
 */
function clockOf(time_s, parts) {
  const whole = Math.floor(Math.abs(time_s) * parts + 1e-6);
  const total_s = Math.floor(whole / parts);
  const hours = Math.floor(total_s / 3600), minutes = Math.floor(total_s / 60) % 60;
  const seconds = two(total_s % 60) + (parts === 1 ? "" : `.${whole % parts}`);
  const sign = time_s <= -1 / parts ? "\u2212" : "";
  if (hours >= LONG_H) {
    const days = `${count(Math.floor(hours / 24))}${NO_BREAK}d${NO_BREAK}`;
    return `${sign}${days}${two(hours % 24)}:${two(minutes)}:${seconds}`;
  }
  return hours ? `${sign}${hours}:${two(minutes)}:${seconds}` : `${sign}${minutes}:${seconds}`;
}

/** @param {number} number */
function two(number) {
  return String(number).padStart(2, "0");
}

/**
 * How long something took: 12.5 s, 1.25 s, 340 ms.
 * @param {number} time_s
 */
export function duration(time_s) {
  if (time_s >= 1) return `${time_s.toFixed(time_s >= 10 ? 1 : 2)}${NO_BREAK}s`;
  return `${time_s >= 0.01 ? Math.round(1000 * time_s) : Number((1000 * time_s).toPrecision(1))}${NO_BREAK}ms`;
}

/**
 * Seconds of a typed time (12, 12.5 s, 0:12, 1:02:03); null if it is none.
 * @param {string} text
 */
export function readTime(text) {
  const found = TIME.exec(text.trim());
  if (!found) return null;
  const [hours, minutes, seconds, alone] = found.slice(1).map((part) => Number(part || 0));
  return hours * 3600 + minutes * 60 + seconds + alone;
}
