/** The same for Socket.IO's clients, over `NATTER_TRANSPORT=websocket` or `polling`. */

import { polling, websocket } from './lib/engine.js';
import { mixed, scenario } from './lib/run.js';
import { word } from './lib/settings.js';

export { handleSummary } from './lib/report.js';

const transport = word('NATTER_TRANSPORT', ['websocket', 'polling']);
const { options, setup, run } = scenario(
  'socketio',
  { chats: 4, size: 6, rate: 2, seconds: 20 },
  {
    transport: `socketio_${transport}`,
    dial: transport === 'polling' ? polling : websocket,
    history: true,
    typing: { rate: 0.5, holdMs: 800 },
    drops: { everyMs: 4_000, share: 0.2 },
  },
  mixed,
);
export { options, setup };
export default run;
