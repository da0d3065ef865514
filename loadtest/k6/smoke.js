/** A little of everything: groups and one-to-ones, typing, a cut with its resume, the history. */

import { mixed, scenario } from './lib/run.js';

export { handleSummary } from './lib/report.js';

const { options, setup, run } = scenario(
  'smoke',
  { chats: 4, size: 4, rate: 3, seconds: 10 },
  { history: true, typing: { rate: 0.5, holdMs: 800 }, drops: { everyMs: 3_000, share: 0.2 } },
  mixed,
);
export { options, setup };
export default run;
