/**
 * What a run promises, as k6's thresholds: its exit status is 99 where one does not hold. The
 * counts are exact; the times are a service's objectives and can be set.
 */

import { SLICES, number } from './settings.js';

/** Over which the report plots. */
export const PLOTTED = ['natter_ack_ms', 'natter_delivery_ms', 'natter_read_ms'];

const NONE = ['count==0'];

/** k6 keeps a metric of a tag's value only where a threshold asks for it; this one always holds. */
export const KEEP = 'p(95)>=0';

/** As the summary has them. */
export const STATS = ['min', 'avg', 'p(50)', 'p(90)', 'p(95)', 'p(99)', 'p(99.9)', 'max', 'count'];

/**
 * For a run of chats.
 * @param {object} what
 * @param {number} what.chats whose messages all have to be counted to the end
 * @param {boolean} [what.typing]
 * @param {boolean} [what.drops] connections are cut, so that cuts of others count as well
 */
export function ofChats({ chats, typing, drops }) {
  const p95 = number('NATTER_DELIVERY_P95_MS', drops ? 1_000 : 250, 1, 600_000);
  const p99 = number('NATTER_DELIVERY_P99_MS', drops ? 3_000 : 500, 1, 600_000);
  const ack = number('NATTER_ACK_P95_MS', drops ? 1_000 : 200, 1, 600_000);
  return {
    ...counted(chats),
    natter_deliveries: ['count>0'],
    natter_unacked: NONE,
    natter_ack_ms: [`p(95)<${ack}`],
    natter_delivery_ms: [`p(95)<${p95}`, `p(99)<${p99}`],
    ...(typing && {
      natter_typing_seen: [`rate>=${number('NATTER_TYPING_SEEN', 0.99, 0, 1)}`],
      natter_typing_ms: [`p(95)<${number('NATTER_TYPING_P95_MS', 250, 1, 600_000)}`],
    }),
    ...(drops
      ? {
          natter_resumed: ['count>0'],
          natter_unresumed: NONE,
          natter_resume_ms: [`p(95)<${number('NATTER_RESUME_P95_MS', 2_000, 1, 600_000)}`],
        }
      : { natter_cuts: NONE, natter_errors: NONE }),
    ...slices(PLOTTED.slice(0, 2)),
  };
}

/** For a run that reads. */
export function ofReads() {
  const p95 = number('NATTER_READ_P95_MS', 250, 1, 600_000);
  return {
    ...counted(1),
    natter_errors: NONE,
    dropped_iterations: NONE,
    'natter_read_ms{kind:history}': [`p(95)<${p95}`],
    'natter_read_ms{kind:chat_list}': [`p(95)<${p95}`],
    ...slices(PLOTTED.slice(2)),
  };
}

function counted(least) {
  // A VU that was interrupted has counted nothing, and must not pass for one without losses.
  return { natter_checked: [`count>=${least}`], natter_lost: NONE, natter_duplicates: NONE, natter_reordered: NONE };
}

function slices(metrics) {
  const each = metrics.flatMap((metric) =>
    Array.from({ length: SLICES }, (_, slice) => [`${metric}{slice:${slice}}`, [KEEP]]),
  );
  return Object.fromEntries(each);
}
