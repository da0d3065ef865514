/**
 * A typing storm: starts and stops beside a few messages, which must not suffer from it. A signal may
 * be lost, so it is the share of those shown that counts.
 */

import { scenario } from './lib/run.js';
import { number } from './lib/settings.js';

export { handleSummary } from './lib/report.js';

const { options, setup, run } = scenario(
  'typing',
  { chats: 4, size: 20, rate: 1, seconds: 30 },
  { typing: { rate: number('NATTER_TYPING_RATE', 5, 0.01, 1_000), holdMs: 800 } },
);
export { options, setup };
export default run;
