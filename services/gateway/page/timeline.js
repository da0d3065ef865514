/**
 * One chat's feed as a client keeps it: ordered by `seq`, each entry once, gaps found and filled.
 */

import { NatterError } from './session.js';

/** Pages to catch up by before starting afresh from the newest one. */
const MAX_CATCH_UP_PAGES = 20;
/** Entries kept by `trim`. */
const KEPT = 500;
/** Changes kept for pages that were asked for before them. */
const CHANGES_KEPT = 200;
/** Characters of a quote. */
const QUOTED = 100;

/**
 * @typedef {{chatId: string, seq: number, prevSeq?: number, createdAt: string, id?: string,
 *   senderId?: string, sender?: {id: string, name: string}, contentType?: string,
 *   content?: string, media?: import('./media.js').Media, clientMsgId?: string, kind?: string,
 *   actorId?: string, userId?: string, msg?: string, title?: string, role?: string,
 *   editedAt?: string, deleted?: boolean, mentions?: string[], replyTo?: string,
 *   quote?: {id: string, senderId: string, senderName: string, contentType: string,
 *   content: string, deleted?: boolean},
 *   reactions?: {emoji: string, count: number, mine: boolean}[]}} Entry a message, or a system line
 *   when it has a `kind`; beside `media`, `content` is its caption
 * @typedef {{chatId: string, seq: number, prevSeq?: number, messageSeq: number, messageId: string,
 *   what: 'edited' | 'deleted' | 'reaction' | 'expired', content?: string, mentions?: string[],
 *   editedAt?: string, emoji?: string, on?: boolean, mine?: boolean}} Change what becomes of a message
 * @typedef {{messages: Entry[], hasMore: boolean, fromSeq: number, toSeq: number,
 *   partial?: boolean}} Page everything of the feed after `fromSeq`, up to `toSeq`
 */

export class Timeline {
  /** Ordered by `seq`, each once. @type {Entry[]} */
  entries = [];
  hasOlder = false;
  loaded = false;

  /** Up to here nothing is missing (as far back as was paged). */
  #head = 0;
  /** The newest changes, which are entries of the feed too. @type {Change[]} */
  #changes = [];
  /** @type {Promise<void>} */
  #catchingUp = Promise.resolve();
  /** @type {?Promise<void>} */
  #paging = null;

  /** @param {(range: {before?: number, after?: number, limit?: number}) => Promise<Page>} fetchPage */
  constructor(fetchPage) {
    this.fetchPage = fetchPage;
  }

  /**
   * Takes in a live entry.
   * @param {Entry} entry
   * @returns {{fresh: boolean, gap: boolean}} whether it was unknown; whether entries before it
   *   are missing: then `catchUp`
   */
  accept(entry) {
    // An old message that was sent again: on its own it would leave a hole after it.
    const outside = this.hasOlder && entry.seq < (this.entries[0]?.seq ?? 0);
    const fresh = !outside && this.#merge([entry]) > 0;
    return { fresh, gap: this.loaded && !this.#advance() };
  }

  /**
   * Takes in what becomes of a message.
   * @param {Change} change
   * @returns {{gap: boolean}} as `accept`
   */
  change(change) {
    if (this.#changes.some(({ seq }) => seq === change.seq)) return { gap: false };
    this.#changes = [...this.#changes, change].slice(-CHANGES_KEPT);
    this.entries = this.entries.map((entry) => changed(entry, change));
    return { gap: this.loaded && !this.#advance() };
  }

  /**
   * Takes in that everything up to a place is gone.
   * @param {{chatId: string, seq: number, prevSeq?: number, upTo: number}} expired
   * @returns {{gap: boolean}} as `accept`
   */
  expire(expired) {
    const gone = this.entries.filter(({ seq }) => seq <= expired.upTo);
    const ids = new Set(gone.map(({ id }) => id));
    this.entries = this.entries
      .filter(({ seq }) => seq > expired.upTo)
      .map((entry) => (entry.quote && ids.has(entry.quote.id) ? { ...entry, quote: undefined } : entry));
    if (gone.length) this.hasOlder = false;
    // An entry of the feed that changes no message.
    return this.change({ ...expired, messageSeq: 0, messageId: '', what: 'expired' });
  }

  /**
   * Fetches what is missing up to now: the newest page at first, later all after the last entry
   * known. Live entries that arrive meanwhile are merged by `seq`.
   * @returns {Promise<void>}
   */
  catchUp() {
    // After the one under way, not together with it: it may have been answered before the
    // connection was there that live entries now come by.
    this.#catchingUp = this.#catchingUp.catch(() => {}).then(() => this.#catchUp());
    return this.#catchingUp;
  }

  /** Fetches the page before the oldest entry. @param {number} [limit] @returns {Promise<void>} */
  older(limit) {
    this.#paging ??= this.#older(limit && { limit }).finally(() => (this.#paging = null));
    return this.#paging;
  }

  /** Drops the oldest of many entries; they are fetched again when scrolled to. */
  trim() {
    if (this.#paging || this.entries.length < 2 * KEPT) return;
    this.entries = this.entries.slice(-KEPT);
    this.hasOlder = true;
  }

  async #older(size) {
    if (!this.loaded || !this.hasOlder) return;
    const oldest = () => this.entries[0]?.seq ?? this.#head + 1;
    const before = oldest();
    const asked = this.#head;
    const page = await this.fetchPage({ before, ...size });
    // Started afresh while the page was on its way: it would leave a hole.
    if (oldest() !== before) return;
    this.#merge(page.messages, asked);
    this.hasOlder = page.hasMore || Boolean(page.partial);
    if (page.partial && !page.messages.length) throw archiveAway();
  }

  async #catchUp() {
    if (!this.loaded) {
      await this.#startAfresh();
      if (this.#advance()) return;
    }
    for (let pages = 0; pages < MAX_CATCH_UP_PAGES; pages++) {
      // Read before asking: an answer without more covers at least what had been seen by then,
      // even where entries that history does not show leave a hole in the chain.
      const seen = this.entries.at(-1)?.seq ?? 0;
      const page = await this.fetchPage({ after: this.#head });
      this.#merge(page.messages, page.toSeq);
      if (page.partial) throw archiveAway();
      this.#head = Math.max(this.#head, page.toSeq, page.hasMore ? 0 : seen);
      if (!page.hasMore && this.#advance()) return;
    }
    await this.#startAfresh();
  }

  async #startAfresh() {
    const page = await this.fetchPage({});
    // Of the entries known, only those that the page reaches stay: no hole may be left.
    this.entries = this.entries.filter((entry) => entry.seq > page.fromSeq);
    this.#merge(page.messages, page.toSeq);
    this.#head = page.toSeq;
    // A partial page is the newest part without the archive: there may be more.
    this.hasOlder = page.hasMore || Boolean(page.partial);
    this.loaded = true;
  }

  /** Follows the chain of `prevSeq` from the head. @returns {boolean} whether it is unbroken */
  #advance() {
    const beyond = [...this.entries, ...this.#changes].filter(({ seq }) => seq > this.#head);
    for (const entry of beyond.sort((a, b) => a.seq - b.seq)) {
      // 0 is "not known": then the server's own checks have to do.
      if ((entry.prevSeq ?? 0) > this.#head) return false;
      this.#head = entry.seq;
    }
    return true;
  }

  /**
   * @param {Entry[]} incoming
   * @param {number} [asOf] the last entry of the feed that they show the effects of
   * @returns {number} how many were new
   */
  #merge(incoming, asOf = 0) {
    const known = new Set(this.entries.map((entry) => entry.seq));
    const fresh = incoming.filter((entry) => !known.has(entry.seq));
    const later = this.#changes.filter(({ seq }) => seq > asOf);
    this.entries.push(...fresh.map((entry) => later.reduce(changed, entry)));
    this.entries.sort((a, b) => a.seq - b.seq);
    return fresh.length;
  }
}

/** The entry after a change. @param {Entry} entry @param {Change} change @returns {Entry} */
function changed(entry, change) {
  if (entry.quote && entry.quote.id === change.messageId) return { ...entry, quote: quoted(entry.quote, change) };
  if (entry.seq !== change.messageSeq || entry.deleted) return entry;
  const { what, content, mentions, editedAt } = change;
  if (what === 'edited') return { ...entry, content, mentions, editedAt };
  if (what === 'reaction') return { ...entry, reactions: reacted(entry.reactions ?? [], change) };
  const { media, quote, mentions: none, reactions, ...rest } = entry;
  return { ...rest, content: '', editedAt: undefined, deleted: true };
}

/** What is quoted, after a change of it. */
function quoted(quote, { what, content }) {
  if (what === 'reaction' || quote.deleted) return quote;
  const deleted = what === 'deleted';
  return { ...quote, content: deleted ? '' : [...content].slice(0, QUOTED).join(''), deleted };
}

function reacted(reactions, { emoji, on, mine }) {
  const known = reactions.find((reaction) => reaction.emoji === emoji);
  const { count, mine: before } = known ?? { count: 0, mine: false };
  if (mine && before === on) return reactions;
  const now = { emoji, count: count + (on ? 1 : -1), mine: mine ? on : before };
  const all = known ? reactions.map((reaction) => (reaction === known ? now : reaction)) : [...reactions, now];
  return all.filter((reaction) => reaction.count > 0);
}

function archiveAway() {
  return new NatterError('unavailable', 'Older messages cannot be fetched just now.');
}
