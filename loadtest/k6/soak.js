/**
 * For hours: groups and one-to-ones, typing, now and then a few connections cut, tokens renewed. To
 * be watched beside the cluster's own dashboards: what grows?
 */

import { mixed, scenario } from './lib/run.js';
import { number } from './lib/settings.js';

export { handleSummary } from './lib/report.js';

const { options, setup, run } = scenario(
  'soak',
  { chats: 8, size: 10, rate: 1, seconds: 600 },
  {
    history: true,
    typing: { rate: number('NATTER_TYPING_RATE', 0.2, 0.01, 1_000), holdMs: 2_000 },
    drops: {
      everyMs: 1_000 * number('NATTER_DROP_SECONDS', 30, 0.5, 3_600),
      share: number('NATTER_DROP_SHARE', 0.05, 0.001, 1),
    },
  },
  mixed,
);
export { options, setup };
export default run;
