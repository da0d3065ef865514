/** What a script of chats exports: options, setup, and what each VU does. */

import { gather, share } from './crowd.js';
import { native } from './native.js';
import { STATS, ofChats } from './objectives.js';
import { play } from './play.js';
import { common } from './settings.js';

/**
 * @param {string} name of the scenario
 * @param {object} defaults of what `common` reads
 * @param {object} [more] see `Plan`
 * @param {(settings: object) => {kind: string, size: number}[]} [chats] groups by default
 */
export function scenario(name, defaults, more = {}, chats = groups) {
  const settings = common(defaults);
  const plan = { transport: 'native', dial: native, ...settings, ...more };
  const made = chats(settings);
  const longest = settings.connectSeconds + settings.seconds + 2 * (settings.graceMs / 1_000) + 60;
  return {
    options: {
      setupTimeout: '30m',
      summaryTrendStats: STATS,
      thresholds: ofChats({ chats: made.length, typing: Boolean(plan.typing), drops: Boolean(plan.drops) }),
      scenarios: {
        [name]: {
          executor: 'per-vu-iterations',
          vus: settings.vus,
          iterations: 1,
          maxDuration: `${Math.ceil(longest)}s`,
          gracefulStop: '0s',
        },
      },
    },
    setup: () => gather(made, settings.vus),
    run: (data) => play(share(data, settings.vus), plan),
  };
}

/** So many groups of one size. */
export function groups({ chats, size }) {
  return Array.from({ length: chats }, () => ({ kind: 'group', size }));
}

/** So many one-to-ones. */
export function directs({ chats }) {
  return Array.from({ length: chats }, () => ({ kind: 'direct', size: 2 }));
}

/** Groups and one-to-ones in turn. */
export function mixed({ chats, size }) {
  return Array.from({ length: chats }, (_, n) =>
    n % 2 === 0 ? { kind: 'group', size } : { kind: 'direct', size: 2 },
  );
}
