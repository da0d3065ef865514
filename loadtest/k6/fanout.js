/** Steady fan-out in groups: every message goes to all members but its sender. */

import { scenario } from './lib/run.js';

export { handleSummary } from './lib/report.js';

const { options, setup, run } = scenario('fanout', { chats: 4, size: 20, rate: 5, seconds: 30 });
export { options, setup };
export default run;
