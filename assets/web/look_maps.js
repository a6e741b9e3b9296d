import { unpack } from "./look_parts.js";

// Maps of attention as they travel: bytes on a logarithmic scale, with the largest weight of each map.

const DECADES = 5, LEVEL_STEPS = 254; // of vl3/viz/attention.py
const SHARE_OF_TOP = Float64Array.from({ length: 256 }, (_, level) => (level ? 10 ** (DECADES * ((level - 1) / LEVEL_STEPS - 1)) : 0));

export function weightsOf({ tops, levels, first, slots }) {
  const top = unpack(tops, Float32Array), level = unpack(levels, Uint8Array);
  const at = (row, slot) => top[row] * SHARE_OF_TOP[level[row * slots + slot - first]];

  // The mean of some maps over all slots.
  function mean(rows, length) {
    const sum = new Float32Array(length);
    for (const row of rows) for (let i = 0; i < slots; i++) sum[first + i] += (top[row] * SHARE_OF_TOP[level[row * slots + i]]) / rows.length;
    return sum;
  }
  const reaches = (slot) => slot >= first && slot < first + slots;
  return { at, mean, reaches };
}

// Maps that were asked for: of a source, a token and (where it has them) a layer. The oldest go first.
export function mapsKept(limit) {
  const kept = new Map();
  const name = (source, token, layer) => `${source} ${token} ${source === "language" || source === "vision" ? layer : ""}`;
  let bytes = 0;

  function put(maps) {
    const read = weightsOf(maps), heads = maps.heads || [0];
    (maps.layers || [0]).forEach((layer, i) => maps.tokens.forEach((token, q) => {
      const key = name(maps.source, token, layer), rows = heads.map((_, h) => (i * heads.length + h) * maps.tokens.length + q);
      bytes += rows.length * maps.slots - (kept.get(key)?.bytes || 0);
      kept.delete(key);
      kept.set(key, { ...read, rows, sinks: new Set(maps.sinks), bytes: rows.length * maps.slots });
    }));
    for (const [key, old] of kept) {
      if (bytes <= limit) break;
      kept.delete(key);
      bytes -= old.bytes;
    }
  }

  function get(source, token, layer) {
    const key = name(source, token, layer), found = kept.get(key);
    if (!found) return undefined;
    kept.delete(key);
    kept.set(key, found);
    return found;
  }
  return { put, get, name };
}
