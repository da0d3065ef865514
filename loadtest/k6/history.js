/**
 * Reading over REST, at a constant rate of arrivals: pages of history from the newest on, and the
 * list of chats. What setup has sent must be there, once, in order.
 */

import exec from 'k6/execution';

import { now, uuid7 } from './lib/clock.js';
import { gather } from './lib/crowd.js';
import * as metrics from './lib/metrics.js';
import { STATS, ofReads } from './lib/objectives.js';
import { all, call } from './lib/rest.js';
import { groups } from './lib/run.js';
import { SLICES, common, urls, whole } from './lib/settings.js';

export { handleSummary } from './lib/report.js';

const settings = common({ chats: 4, size: 4, rate: 10, seconds: 20, vus: 20 });
const messages = whole('NATTER_MESSAGES', 120, 1, 10_000);
const page = whole('NATTER_PAGE', 50, 1, 200);
const vus = whole('NATTER_VUS', 20, 1, 1_000);

function reads(kind) {
  const timeUnit = '10s';
  return {
    executor: 'constant-arrival-rate',
    exec: kind,
    rate: Math.max(1, Math.round(settings.rate * 10)),
    timeUnit,
    duration: `${settings.seconds}s`,
    preAllocatedVUs: Math.ceil(vus / 2),
    maxVUs: vus,
    tags: { kind },
  };
}

export const options = {
  setupTimeout: '30m',
  summaryTrendStats: STATS,
  thresholds: ofReads(),
  scenarios: { history: reads('history'), chat_list: reads('chat_list') },
};

export function setup() {
  const data = gather(groups(settings), vus);
  const lasting = Math.min(...data.chats.flatMap(({ members }) => members.map(({ expiresAt }) => expiresAt)));
  data.chats.forEach(({ id, members }) => send(id, members));
  if (lasting - Date.now() < 1_000 * settings.seconds) {
    throw new Error('tokens would expire: a shorter run, or NATTER_ACCESS_TOKEN_SECONDS at the gateways');
  }
  return data;
}

/** Members take turns; one after the other, so that the numbers stand in the feed's order. */
function send(chat, members) {
  for (let n = 0; n < messages; n += 1) {
    const { token } = members[n % members.length];
    const body = { content: `${n} `.padEnd(settings.bytes, '.'), clientMsgId: uuid7() };
    all('seed', [{ path: `/chats/${chat}/messages`, token, body }]);
  }
}

/** The newest page, and then those before it, to the first. */
export async function history(data) {
  const { id, members } = pick(data.chats);
  const { token } = pick(members);
  let next = messages - 1;
  for (let before = ''; ; ) {
    const answer = await get(`/chats/${id}/messages?limit=${page}${before && `&before=${before}`}`, token);
    if (!answer) return;
    if (answer.partial) metrics.failed('partial');
    next = count(answer.messages, next);
    if (!answer.hasMore || answer.messages.length === 0) break;
    before = answer.messages[0].seq;
  }
  metrics.lost.add(next + 1);
  metrics.checked.add(1);
}

/** Counts a page from its end, where the newest is. @returns {number} which comes next */
function count(entries, expected) {
  let next = expected;
  for (const { contentType, content } of [...entries].reverse()) {
    if (contentType !== 'text') continue;
    const n = parseInt(content, 10);
    if (n > next) metrics.duplicates.add(1);
    else metrics.lost.add(next - n);
    next = Math.min(next, n - 1);
  }
  const seqs = entries.map(({ seq }) => seq);
  metrics.reordered.add(seqs.filter((seq, n) => n > 0 && seq <= seqs[n - 1]).length);
  metrics.duplicates.add(0);
  return next;
}

export async function chat_list(data) {
  const { id, members } = pick(data.chats);
  const { token } = pick(members);
  const answer = await get('/chats?limit=50', token);
  if (answer && !answer.items.some((chat) => chat.id === id)) metrics.failed('chat_not_listed');
}

async function get(path, token) {
  const began = now();
  const response = await call(exec.scenario.name, pick(urls), path, { token });
  const slice = Math.min(SLICES - 1, Math.floor((began * SLICES) / (1_000 * settings.seconds)));
  metrics.read.add(now() - began, { slice: String(slice) });
  if (response.status === 200) return response.json();
  metrics.failed(`status_${response.status}`);
  return null;
}

function pick(list) {
  return list[Math.floor(Math.random() * list.length)];
}
