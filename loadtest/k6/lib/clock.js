/** Time, timers and ids. */

import exec from 'k6/execution';

/** Milliseconds since the load began, with fractions: `Date` has none. @returns {number} */
export function now() {
  return exec.instance.currentTestRunDuration;
}

/** @param {number} ms @returns {Promise<void>} */
export function sleep(ms) {
  return new Promise((done) => setTimeout(done, Math.max(0, ms)));
}

/** Waits for a thing, looking again and again. @returns {Promise<boolean>} whether it came */
export async function until(met, ms) {
  const end = now() + ms;
  while (!met()) {
    if (now() >= end) return false;
    await sleep(20);
  }
  return true;
}

/** A UUIDv7: the gateway need not look far for an earlier message with a new one. */
export function uuid7() {
  const bytes = new Uint8Array(16);
  crypto.getRandomValues(bytes);
  let ms = Date.now();
  for (let at = 5; at >= 0; at -= 1) {
    bytes[at] = ms % 256;
    ms = Math.floor(ms / 256);
  }
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  const parts = [[0, 8], [8, 12], [12, 16], [16, 20], [20, 32]];
  return parts.map(([from, to]) => hex.slice(from, to)).join('-');
}
