/**
 * How far the others are in the chats that are open: what they have read, and what their devices have.
 *
 * Changes come as signals that may be lost, so all is asked for again with each connection. A large
 * chat tells nobody.
 */

/** @typedef {{readSeq: number, deliveredSeq: number}} Receipt */

export class Receipts {
  /** By chat, by user. @type {Map<string, Map<string, Receipt>>} */
  #chats = new Map();

  /**
   * @param {import('./session.js').Session} session
   * @param {(chatId: string) => void} onChange
   */
  constructor(session, onChange) {
    Object.assign(this, { session, onChange });
  }

  /** Fetches how far everybody is. @param {string} chatId an open chat */
  async fetch(chatId) {
    const live = new Map(this.#chats.get(chatId));
    this.#chats.set(chatId, live); // what is known is shown, and what comes meanwhile is kept
    try {
      const { items } = await this.session.rest('GET', `/chats/${chatId}/receipts`);
      if (this.#chats.get(chatId) !== live) return; // closed, or asked again
      const there = new Set(items.map(({ userId }) => userId));
      for (const userId of live.keys()) if (!there.has(userId)) live.delete(userId);
      for (const { userId, ...receipt } of items) live.set(userId, furthest(live.get(userId), receipt));
    } catch (error) {
      if (error.status !== 403) throw error;
      this.close(chatId);
    }
    this.onChange(chatId);
  }

  /** @param {{chatId: string, userId: string, seq: number}} told @param {'read'|'delivered'} how */
  told({ chatId, userId, seq }, how) {
    const chat = this.#chats.get(chatId);
    if (!chat) return;
    chat.set(userId, furthest(chat.get(userId), { readSeq: 0, deliveredSeq: 0, [`${how}Seq`]: seq }));
    this.onChange(chatId);
  }

  /** Somebody is not in the chat any more. @param {string} chatId @param {string} userId */
  gone(chatId, userId) {
    this.#chats.get(chatId)?.delete(userId);
  }

  /** @param {string} chatId */
  close(chatId) {
    this.#chats.delete(chatId);
  }

  clear() {
    this.#chats.clear();
  }

  /**
   * How many have read a message, and have it on a device, without its sender. Asked for each own
   * message whenever the chat is drawn.
   * @param {import('./timeline.js').Entry} entry
   * @returns {{read: number, delivered: number}} those who have read it have got it too
   */
  count({ chatId, seq, senderId }) {
    let [read, delivered] = [0, 0];
    for (const [userId, { readSeq, deliveredSeq }] of this.#chats.get(chatId) ?? []) {
      if (userId === senderId) continue;
      if (readSeq >= seq) read++;
      if (Math.max(readSeq, deliveredSeq) >= seq) delivered++;
    }
    return { read, delivered };
  }

  /** Who has read a message. @param {import('./timeline.js').Entry} entry @returns {string[]} user ids */
  readers({ chatId, seq, senderId }) {
    const others = [...(this.#chats.get(chatId) ?? [])].filter(([userId]) => userId !== senderId);
    return others.filter(([, { readSeq }]) => readSeq >= seq).map(([userId]) => userId);
  }
}

/** @param {Receipt|undefined} known @param {Receipt} told @returns {Receipt} */
function furthest(known, told) {
  return {
    readSeq: Math.max(known?.readSeq ?? 0, told.readSeq),
    deliveredSeq: Math.max(known?.deliveredSeq ?? 0, told.deliveredSeq),
  };
}
