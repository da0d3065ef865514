/**
 * Reconnect storms: a share of all connections is cut at one moment, again and again, while messages
 * go on. Each comes back to the next gateway with its cursor, and must get what it missed, once. It
 * also rides out gateways that are killed or drained meanwhile.
 */

import { scenario } from './lib/run.js';
import { number } from './lib/settings.js';

export { handleSummary } from './lib/report.js';

const { options, setup, run } = scenario(
  'reconnect',
  { chats: 4, size: 20, rate: 5, seconds: 30 },
  {
    drops: {
      everyMs: 1_000 * number('NATTER_DROP_SECONDS', 5, 0.5, 3_600),
      share: number('NATTER_DROP_SHARE', 0.5, 0.001, 1),
    },
  },
);
export { options, setup };
export default run;
