/**
 * Chats, played by one VU with all their members: an open model. Messages and typing are due at
 * fixed times, whatever became of those before, and everything is timed from then.
 */

import { now, sleep, until, uuid7 } from './clock.js';
import { Ledger } from './ledger.js';
import { Member } from './member.js';
import * as metrics from './metrics.js';
import { call } from './rest.js';
import { SLICES, urls } from './settings.js';
import { spoiler } from './spoiler.js';
import { Typing } from './typing.js';

/** Milliseconds since something was due; a clock that is set back meanwhile makes none less than 0. */
const since = (due) => Math.max(0, now() - due);

/** Members who connect at once, in one VU. */
const AT_ONCE = 16;
/** Between two tries of a message. */
const RETRY_MS = 200;
/** Messages in a page of history. */
const PAGE = 200;
/** After the last delivery: what comes twice comes soon after. */
const LINGER_MS = 500;

/**
 * @typedef {object} Plan
 * @property {number} rate messages a second, in each chat
 * @property {number} seconds
 * @property {number} senders who take turns, in each chat
 * @property {number} bytes of a message
 * @property {number} graceMs in which the last deliveries have to come
 * @property {number} connectSeconds in which everybody has to be connected
 * @property {string} transport a tag
 * @property {Function} dial
 * @property {{rate: number, holdMs: number}} [typing] typing starts a second, in each chat
 * @property {{everyMs: number, share: number}} [drops] which share of the connections is cut
 * @property {boolean} [history] whether the history is read at the end
 * @property {string} [fault] to seed, in the first chat
 */

/** @param {object[]} chats this VU's share @param {Plan} plan */
export async function play(chats, plan) {
  const playing = chats.map((chat, n) => new Chat(chat, n, plan));
  const members = playing.flatMap((chat) => chat.members);
  try {
    await gatherAll(members, plan);
    const began = now();
    playing.forEach((chat) => (chat.began = began));
    await Promise.all([
      ...playing.flatMap((chat) => chat.parts()),
      ...(plan.drops ? [dropping(members, plan.drops, began + plan.seconds * 1_000)] : []),
    ]);
    await until(() => playing.every((chat) => chat.settled), plan.graceMs);
    await sleep(LINGER_MS);
    for (const chat of playing) await chat.check();
  } finally {
    members.forEach((member) => member.leave());
  }
}

/** Everybody connects, some at a time. */
async function gatherAll(members, { connectSeconds }) {
  const end = now() + connectSeconds * 1_000;
  let next = 0;
  const connecting = Array.from({ length: AT_ONCE }, async () => {
    while (next < members.length) {
      const member = members[next];
      next += 1;
      member.come();
      if (!(await member.here(end - now()))) throw new Error('not everybody could connect in time');
    }
  });
  await Promise.all(connecting);
}

/** Cuts a share of the connections, all at one moment, again and again. */
async function dropping(members, { everyMs, share }, end) {
  let from = 0;
  // The last storm has time to be over before the end.
  for (let due = now() + everyMs; due < end; due += everyMs) {
    await sleep(due - now());
    const count = Math.max(1, Math.round(members.length * share));
    for (let n = 0; n < count; n += 1) members[(from + n) % members.length].drop();
    from += count;
  }
}

/** Does something at fixed times; what is late is made up for at once. */
async function paced(began, seconds, rate, act) {
  const count = Math.round(seconds * rate);
  for (let n = 0; n < count; n += 1) {
    const due = began + (n * 1_000) / rate;
    if (due > now()) await sleep(due - now());
    metrics.lag.add(Math.max(0, now() - due));
    act(n, due);
  }
}

class Chat {
  began = 0;
  #open = 0;

  constructor({ id, kind, members }, n, plan) {
    this.id = id;
    this.plan = plan;
    this.tags = { transport: plan.transport, kind };
    // Sending ends typing, so who types does not send.
    const senders = Math.min(plan.senders, plan.typing ? members.length >> 1 : members.length);
    this.ledger = new Ledger(members.length, senders);
    this.index = new Map(members.map((member, index) => [member.id, index]));
    const spoil = spoiler(plan.fault, n);
    this.members = members.map((account, index) => {
      const hear = (data) => this.#hear(index, data);
      const heard = index === members.length - 1 ? spoil(hear) : hear;
      return new Member(account, {
        dial: plan.dial,
        turn: n + index,
        tags: this.tags,
        onEvent: (event, data) => {
          if (data?.chatId !== id) return;
          if (event === 'message') heard(data);
          else if (event === 'user_typing') this.typing?.hear(index, data);
        },
      });
    });
    this.senders = senders;
    if (plan.typing) this.typing = new Typing(this, this.members, senders);
  }

  /** What goes on in it, each up to its end. @returns {Promise<void>[]} */
  parts() {
    const { rate, seconds, typing } = this.plan;
    const sending = paced(this.began, seconds, rate, (n, due) => this.#send(n % this.senders, due));
    if (!typing) return [sending];
    const types = paced(this.began, seconds, typing.rate, (n, due) => this.typing.start(n, due, typing.holdMs));
    return [sending, types];
  }

  get settled() {
    return this.#open === 0 && this.ledger.missing === 0 && (this.typing?.open ?? 0) === 0;
  }

  /** By when it was due, for the plots over time. */
  sliced(due) {
    const slice = Math.floor(((due - this.began) * SLICES) / (this.plan.seconds * 1_000));
    return { ...this.tags, slice: String(Math.min(SLICES - 1, Math.max(0, slice))) };
  }

  async #send(sender, due) {
    const n = this.ledger.next(sender);
    this.#open += 1;
    const data = { chatId: this.id, content: content(n, this.plan.bytes), clientMsgId: uuid7() };
    const end = this.began + this.plan.seconds * 1_000 + this.plan.graceMs;
    for (let tried = 0; now() < end; tried += 1) {
      const member = this.members[sender];
      if (!(await member.here(end - now()))) break;
      if (tried > 0) this.ledger.again(sender, n);
      try {
        const reply = await member.request('send_message', data);
        this.ledger.acked(sender, n, reply.duplicate ? 0 : reply.seq);
        metrics.ack.add(since(due), this.sliced(due));
        break;
      } catch (error) {
        if (error instanceof Error) throw error;
        // It did not fail where we cut it ourselves; but nobody knows, so it is tried again.
        if (error.code !== 'cut') metrics.failed(error.code, this.tags);
        await sleep(error.retryAfterMs || RETRY_MS);
      }
    }
    this.#open -= 1;
  }

  #hear(member, { senderId, seq, content: text }) {
    const sender = this.index.get(senderId);
    const n = parseInt(text, 10);
    if (!this.ledger.hear(member, sender, n, seq)) return;
    // They take turns.
    const due = this.began + ((n * this.senders + sender) * 1_000) / this.plan.rate;
    metrics.delivery.add(since(due), this.sliced(due));
  }

  /** Counts what there is to count, and says so. */
  async check() {
    const { ledger, tags } = this;
    if (this.plan.history) await this.#readBack();
    metrics.sent.add(ledger.sent, tags);
    metrics.unacked.add(ledger.unacked, tags);
    metrics.deliveries.add(ledger.deliveries, tags);
    metrics.lost.add(ledger.missing, tags);
    metrics.duplicates.add(ledger.duplicates, tags);
    metrics.reordered.add(ledger.reordered, tags);
    if (ledger.strange > 0) metrics.failed(`${ledger.strange} strange messages`, tags);
    metrics.checked.add(1, tags);
  }

  /** The history has every acknowledged message, once. */
  async #readBack() {
    const kept = new Ledger(this.members.length, this.senders);
    kept.due = this.ledger.due;
    let before = '';
    for (;;) {
      const path = `/chats/${this.id}/messages?limit=${PAGE}${before && `&before=${before}`}`;
      const response = await call('history', urls[0], path, { token: this.members[0].token });
      if (response.status !== 200) {
        metrics.failed(`history_${response.status}`, this.tags);
        return;
      }
      const { messages, hasMore } = response.json();
      for (const { contentType, senderId, content: text } of messages) {
        if (contentType === 'text') kept.acked(this.index.get(senderId), parseInt(text, 10), 0);
      }
      if (!hasMore || messages.length === 0) break;
      before = messages[0].seq;
    }
    const gone = this.ledger.stored.reduce((sum, stored, sender) => sum + stored.without(kept.stored[sender]), 0);
    metrics.lost.add(gone, { ...this.tags, kind: 'history' });
  }
}

/** `12 ....`: the sender's number, and what makes it as long as it is to be. */
function content(n, bytes) {
  return `${n} `.padEnd(bytes, '.');
}
