/** Typing in one chat: who was to be shown it, and who was. Signals may be lost, so it is a rate. */

import { now } from './clock.js';
import * as metrics from './metrics.js';

/** A start or stop that is not shown by then is not counted as shown. */
const GRACE_MS = 5_000;

export class Typing {
  /** Starts and stops that are still being waited for. */
  open = 0;
  /** By user id, what is waited for. @type {Map<string, object>} */
  #waiting = new Map();

  /** @param {object} chat @param {object[]} members @param {number} from the first who types */
  constructor(chat, members, from) {
    this.chat = chat;
    this.members = members;
    this.from = from;
  }

  /** Somebody begins to type who does not yet, and stops after a while. */
  start(turn, due, holdMs) {
    const typists = this.members.length - this.from;
    for (let n = 0; n < typists; n += 1) {
      const member = this.members[this.from + ((turn + n) % typists)];
      if (member.up && !this.#waiting.has(member.id)) {
        this.#cycle(member, due, holdMs);
        return;
      }
    }
    // Everybody types already: the rate is more than they can.
    metrics.failed('nobody_left_to_type', this.chat.tags);
  }

  /** @param {{userId: string, typing: boolean}} data */
  hear(index, { userId, typing }) {
    const waited = this.#waiting.get(userId);
    if (!waited || waited.typing !== typing || !waited.by.has(index)) return;
    waited.by.delete(index);
    waited.shown += 1;
    metrics.typing.add(now() - waited.due, this.chat.sliced(waited.due));
  }

  async #cycle(member, due, holdMs) {
    const { connection } = member;
    await this.#say(member, 'typing_start', true, due, holdMs);
    // The end of a typist's connection has ended the typing already.
    if (member.connection === connection) await this.#say(member, 'typing_stop', false, due + holdMs, GRACE_MS);
    this.#waiting.delete(member.id);
  }

  async #say(member, event, typing, due, forMs) {
    const by = new Map();
    this.members.forEach((other, index) => {
      if (other !== member && other.up) by.set(index, other.connection);
    });
    const waited = { typing, due, by, shown: 0 };
    this.#waiting.set(member.id, waited);
    this.open += 1;
    const { connection } = member;
    member.request(event, { chatId: this.chat.id }).catch(({ code }) => {
      if (code !== 'cut') metrics.failed(code, this.chat.tags);
    });
    await this.#shown(waited, due + forMs, typing);
    // Who was cut meanwhile, or whose typist was, need not have seen it.
    for (const [index, was] of by) {
      const same = this.members[index].connection === was && member.connection === connection;
      if (same) metrics.typingSeen.add(false, this.chat.tags);
    }
    for (let n = 0; n < waited.shown; n += 1) metrics.typingSeen.add(true, this.chat.tags);
    this.open -= 1;
  }

  /** A start lasts as long as it is to; a stop is over when everybody has seen it. */
  async #shown(waited, end, lasts) {
    while (now() < end && (lasts || waited.by.size > 0)) {
      const left = end - now();
      await new Promise((done) => setTimeout(done, lasts ? left : Math.min(50, left)));
    }
  }
}
