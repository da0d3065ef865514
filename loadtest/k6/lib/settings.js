/** What the environment says, checked before anything starts. */

/** Slices of a run that the report's plots over time are drawn from. */
export const SLICES = 30;

/** Bytes of setup data that all VUs together may be handed; each gets a copy. */
export const SETUP_BYTES = 512 * 1024 * 1024;

/** Base URLs of gateways or of a load balancer; connections are spread over them. */
export const urls = (__ENV.NATTER_URL || 'http://127.0.0.1:8080')
  .split(',')
  .map((url) => url.trim().replace(/\/+$/, ''))
  .filter(Boolean);
for (const url of urls) {
  if (!/^https?:\/\/[^/]+/.test(url)) throw new Error(`NATTER_URL: ${url} is no http(s) URL`);
}

/** A number, or its default. @param {string} name @returns {number} */
export function number(name, byDefault, least, most) {
  const text = __ENV[name];
  const value = text === undefined || text === '' ? byDefault : Number(text);
  if (!(value >= least && value <= most)) {
    throw new Error(`${name} is to be a number from ${least} to ${most}, not ${text}`);
  }
  return value;
}

/** A whole number, or its default. @param {string} name @returns {number} */
export function whole(name, byDefault, least, most) {
  const value = number(name, byDefault, least, most);
  if (!Number.isInteger(value)) throw new Error(`${name} is to be a whole number, not ${value}`);
  return value;
}

/** One of a few words; the first by default. @param {string} name @param {string[]} words */
export function word(name, words) {
  const value = __ENV[name] || words[0];
  if (!words.includes(value)) throw new Error(`${name} is one of ${words.join(', ')}`);
  return value;
}

/**
 * What the scripts have in common. A script names its own defaults.
 * @param {object} defaults
 */
export function common(defaults) {
  const d = { vus: 2, chats: 4, size: 4, rate: 2, seconds: 20, bytes: 64, ...defaults };
  const chats = whole('NATTER_CHATS', d.chats, 1, 100_000);
  return {
    chats,
    vus: Math.min(chats, whole('NATTER_VUS', d.vus, 1, 1_000)),
    size: whole('NATTER_GROUP_SIZE', d.size, 2, 1_000),
    rate: number('NATTER_RATE', d.rate, 0.01, 10_000),
    seconds: number('NATTER_SECONDS', d.seconds, 1, 7 * 86_400),
    senders: whole('NATTER_SENDERS', 16, 1, 100),
    bytes: whole('NATTER_BYTES', d.bytes, 16, 16_384),
    graceMs: 1_000 * number('NATTER_GRACE_SECONDS', 30, 1, 600),
    connectSeconds: number('NATTER_CONNECT_SECONDS', 120, 1, 3_600),
    fault: word('NATTER_SEED_FAULT', ['none', 'drop', 'duplicate', 'swap']),
  };
}
