/**
 * Who was delivered what, counted exactly.
 *
 * All members of a chat live in one VU, so it knows every message that was acknowledged and every
 * one that each member heard. A sender numbers its messages from 0; numbers come nearly in order,
 * so a ledger stays small however long a run lasts.
 */

/** A set of numbers: all below `next`, and those in `beyond`. */
class Numbers {
  next = 0;
  beyond = new Set();

  /** @returns {boolean} whether it is new */
  add(n) {
    if (this.has(n)) return false;
    this.beyond.add(n);
    while (this.beyond.delete(this.next)) this.next += 1;
    return true;
  }

  has(n) {
    return n < this.next || this.beyond.has(n);
  }

  get size() {
    return this.next + this.beyond.size;
  }

  /** How many of these are not among `others`. */
  without(others) {
    let missing = 0;
    for (let n = others.next; n < this.next; n += 1) if (!others.has(n)) missing += 1;
    for (const n of this.beyond) if (!others.has(n)) missing += 1;
    return missing;
  }
}

export class Ledger {
  deliveries = 0;
  duplicates = 0;
  reordered = 0;
  /** Messages of senders or numbers that nobody has sent. */
  strange = 0;

  /** @param {number} members of the chat @param {number} senders of them, the first ones */
  constructor(members, senders) {
    const each = (length, make) => Array.from({ length }, make);
    this.due = each(senders, () => 0);
    this.stored = each(senders, () => new Numbers());
    this.retried = each(senders, () => new Set());
    this.heard = each(members, () => each(senders, () => new Numbers()));
    /** By member: the last place in the feed, and the last number of each sender. */
    this.seq = each(members, () => 0);
    this.last = each(members, () => each(senders, () => -1));
  }

  /** The number of a sender's next message. */
  next(sender) {
    this.due[sender] += 1;
    return this.due[sender] - 1;
  }

  /** It is tried again: others may have overtaken it. */
  again(sender, n) {
    this.retried[sender].add(n);
  }

  /** A message was acknowledged; `seq` where the reply stood at its place in the feed. */
  acked(sender, n, seq) {
    this.stored[sender].add(n);
    if (seq) this.#inOrder(sender, seq);
  }

  /** A member heard a message. @returns {boolean} whether it counts as a delivery */
  hear(member, sender, n, seq) {
    if (!(sender < this.due.length && n >= 0 && n < this.due[sender])) {
      this.strange += 1;
      return false;
    }
    if (!this.heard[member][sender].add(n)) {
      this.duplicates += 1;
      return false;
    }
    // A session of Socket.IO comes back by its last event: what it was only replied to it is told again.
    if (member === sender && this.stored[sender].has(n)) return false;
    const behind = n < this.last[member][sender] && !this.retried[sender].has(n);
    if (!this.#inOrder(member, seq) || behind) this.reordered += 1;
    if (!this.retried[sender].has(n)) this.last[member][sender] = Math.max(n, this.last[member][sender]);
    // One's own comes as an event only where its reply was lost with a connection.
    if (member === sender) return false;
    this.deliveries += 1;
    return true;
  }

  #inOrder(member, seq) {
    if (seq <= this.seq[member]) return false;
    this.seq[member] = seq;
    return true;
  }

  get sent() {
    return this.stored.reduce((sum, numbers) => sum + numbers.size, 0);
  }

  get unacked() {
    return this.due.reduce((sum, due) => sum + due, 0) - this.sent;
  }

  /** Deliveries of acknowledged messages that have not come. */
  get missing() {
    let missing = 0;
    this.heard.forEach((heard, member) =>
      this.stored.forEach((stored, sender) => {
        if (member !== sender) missing += stored.without(heard[sender]);
      }),
    );
    return missing;
  }
}
