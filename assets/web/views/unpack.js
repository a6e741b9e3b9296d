// @ts-check
// Arrays as vl3/viz/pack.py writes them.

/**
 * @template Array
 * @param {string} text base64
 * @param {new (buffer: ArrayBuffer) => Array} Kind such as Float32Array
 */
export function unpack(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Kind(bytes.buffer);
}
