/** Steady one-to-ones: as many as there are, each message to one other. */

import { directs, scenario } from './lib/run.js';

export { handleSummary } from './lib/report.js';

const { options, setup, run } = scenario('direct', { chats: 20, rate: 2, seconds: 30 }, {}, directs);
export { options, setup };
export default run;
