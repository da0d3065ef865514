/**
 * The reference client of Natter: what it takes to be a well-behaved device of a user.
 *
 * The server may be any of many nodes and may go away at any time. So nothing here trusts one
 * connection: what is lost with it (typing, presence) is asked for again, what must not be lost
 * (messages, the list of chats) is resumed from the cursor, or fetched again where the server cannot
 * resume, and what was sent is repeated under its own id.
 *
 * - `session.js`: tokens and REST calls
 * - `connection.js`: the WebSocket, requests and replies, reconnecting
 * - `timeline.js`: the order of a chat's entries
 * - `outbox.js`: own messages until they are stored; `transfer.js`: files on their way
 * - `groups.js`: managing groups, and who is blocked; `receipts.js`: who has read what
 * - `rights.js`: exports, and the end of the account
 * - `notifications.js`: what this device is notified of; `sw.js` shows it
 * - here: chats, files, typing and presence on top of them
 */

import { Connection, REVOKED } from './connection.js';
import { Blocks, Groups } from './groups.js';
import { Notifications } from './notifications.js';
import { Outbox } from './outbox.js';
import { Receipts } from './receipts.js';
import { Rights } from './rights.js';
import { NatterError, Session, backoff, sleep } from './session.js';
import { Timeline } from './timeline.js';
import { download } from './transfer.js';

export { NatterError };

/** Items of a page of history or of chats. */
const PAGE = 50;
/** Pages, and what each has, that are fetched to reach an entry further back. */
const REACH = { pages: 10, limit: 200 };
/** How often it is told of a chat that this device has got what was sent. */
const DELIVERED_EVERY_MS = 1_000;
/** Chats of the list of which it is told when it is fetched: the newest. */
const MAX_DELIVERED = 20;
/** People whose presence is watched at once. */
const MAX_WATCHED = 200;
const TYPING_EVERY_MS = 2_000;
/** No thumbnail has more. */
const THUMBNAIL_BYTES = 4 * 1024 * 1024;

/**
 * @typedef {import('./session.js').User} User
 * @typedef {import('./timeline.js').Entry} Entry
 * @typedef {import('./outbox.js').Unsent} Unsent
 * @typedef {{id: string, name: string, role: string}} Participant
 * @typedef {{id: string, isGroup: boolean, title: ?string, description?: string, open: boolean,
 *   createdAt: string, retentionSecs?: number,
 *   participantCount: number, participants: Participant[], lastMessage: ?Entry,
 *   me: {name: string, role: string, readSeq: number, unreadCount: number, muted: boolean,
 *   mutedUntil?: string, hidden: boolean}}} Chat
 * @typedef {{message: Entry, highlights: {start: number, end: number}[],
 *   chat: {id: string, name: string}}} Hit
 */

/**
 * A device of a user.
 *
 * Events (`CustomEvent`s): `state` the connection's state changed · `session` (`{reason}`) signed
 * in or out · `chats` the list changed · `timeline` (`{chatId}`) entries or unsent messages
 * changed · `progress` (`{message}`) more of an unsent file has gone · `incoming` (`{entry}`) a live
 * entry not seen before · `blocks` whom the user has blocked has changed · `typing` (`{chatId}`) ·
 * `presence` · `trouble` (`{error}`) something in the background failed; if it can be, it is retried.
 */
export class NatterClient extends EventTarget {
  /** Chats by id, as far as they were listed. @type {Map<string, Chat>} */
  chats = new Map();
  /** Names by user id, learned on the way. @type {Map<string, string>} */
  names = new Map();
  /** Who types, by chat. @type {Map<string, Set<string>>} */
  typing = new Map();
  /** Of those watched, by user. @type {Map<string, {online: boolean, lastSeenAt: ?string}>} */
  presence = new Map();
  /** Of the chats that are open. @type {Map<string, Timeline>} */
  timelines = new Map();

  /** @type {Session} */
  #session;
  /** @type {Connection} */
  #connection;
  /** @type {Outbox} */
  #outbox;
  /** When a delivery is next told of, by chat. @type {Map<string, number>} */
  #deliveries = new Map();
  /** Open chats that this connection is catching up with, or had not when it ended. @type {Set<string>} */
  #behind = new Set();
  /** The list of chats has still to be fetched. */
  #unlisted = true;

  /** Where the next page of chats starts; null at the end. @type {?string} */
  #chatsCursor = null;
  /** Chats that went away while the list is being fetched. @type {?Set<string>} */
  #goneMeanwhile = null;
  /** Chats about to be fetched again. @type {Set<string>} */
  #stale = new Set();
  /** @type {string[]} */
  #watched = [];
  /** When `typing_start` was last sent, by chat. @type {Map<string, number>} */
  #typed = new Map();

  /**
   * @param {object} options
   * @param {string} [options.origin] of the server; the page's own by default
   * @param {object} options.store keeps the session beyond this page; see `Session`
   */
  constructor({ origin = location.origin, store }) {
    super();
    this.#session = new Session({
      origin,
      store,
      // A connection lives as long as its token. If it cannot take the new one, the server closes
      // it, and the next connection starts with the new one.
      onRenewed: () => this.#authenticate().catch(() => {}),
      onEnded: (reason) => this.#onSignedOut(reason),
    });
    this.#connection = new Connection({
      session: this.#session,
      onState: () => this.#emit('state'),
      onReady: (signal, resumed) => this.#onReady(signal, resumed),
      onDown: () => this.#onDown(),
      onEvent: (event, data) => this.#onEvent(event, data),
      probe: () => this.#askPresence(),
    });
    this.#outbox = new Outbox({
      session: this.#session,
      connection: this.#connection,
      untilOnline: (patience) => this.#untilOnline(patience),
      onChange: (chatId) => this.#emit('timeline', { chatId }),
      onProgress: (message) => this.#emit('progress', { message }),
      onSent: (entry) => this.#onEntry(entry),
    });
    this.groups = new Groups(this.#session, (chat) => this.#learn(chat));
    this.blocks = new Blocks(this.#session, () => this.#emit('blocks'));
    this.rights = new Rights(this.#session);
    this.notifications = new Notifications(this.#session);
    this.receipts = new Receipts(this.#session, (chatId) => this.#emit('timeline', { chatId }));
  }

  /** @returns {import('./connection.js').State} */
  get state() {
    return this.#connection.state;
  }

  /** Connects, and stays connected until `disconnect` or the end of the session. */
  connect() {
    this.#connection.open();
  }

  disconnect() {
    this.#connection.close();
  }

  // ---- The session ---------------------------------------------------------------------------

  /** The signed-in user. @returns {?User} */
  get user() {
    return this.#session.user;
  }

  /** @returns {?string} */
  get deviceId() {
    return this.#session.deviceId;
  }

  /** The time on the server, ms since 1970. */
  get serverNow() {
    return this.#session.serverNow;
  }

  /** @param {object} account see `Session.begin` */
  async register(account) {
    await this.#session.begin('register', account);
    this.#emit('session', { reason: 'Welcome.' });
  }

  /** @param {object} account see `Session.begin` */
  async login(account) {
    await this.#session.begin('login', account);
    this.#emit('session', { reason: 'Welcome back.' });
  }

  logout() {
    return this.#session.end();
  }

  #onSignedOut(reason) {
    this.disconnect();
    for (const kept of [this.chats, this.names, this.timelines, this.receipts, this.#outbox]) kept.clear();
    this.blocks.people.clear();
    this.#watched = [];
    this.#chatsCursor = null;
    this.#emit('session', { reason });
  }

  /**
   * Users by the start of their name, or by a whole phone number or e-mail.
   * @param {string} search @returns {Promise<User[]>}
   */
  async users(search) {
    const query = new URLSearchParams({ search, limit: '20' });
    const { items } = await this.#session.rest('GET', `/users?${query}`);
    for (const user of items) this.names.set(user.id, user.name);
    return items;
  }

  // ---- Chats ---------------------------------------------------------------------------------

  /**
   * @param {{isGroup: boolean, title?: string, participantIds: string[], open?: boolean}} chat
   * @returns {Promise<Chat>} the existing chat when the same one-to-one is there already
   */
  async createChat(chat) {
    return this.#learn(await this.#session.rest('POST', '/chats', chat));
  }

  /** Joins an open chat. @param {string} chatId @returns {Promise<Chat>} */
  async joinChat(chatId) {
    const joined = await this.#session.rest('POST', `/chats/${encodeURIComponent(chatId)}/join`);
    return this.#learn(joined.chat);
  }

  /** Leaves a group. @param {string} chatId */
  async leaveChat(chatId) {
    await this.#session.rest('POST', `/chats/${chatId}/leave`);
    this.#forget(chatId);
  }

  /**
   * No notifications of a chat, on no device of the user.
   * @param {string} chatId @param {?Date} until for ever without
   */
  async mute(chatId, until) {
    const how = until ? { until: until.toISOString() } : { forever: true };
    return this.#learn(await this.#session.rest('PUT', `/chats/${chatId}/mute`, how));
  }

  /** @param {string} chatId */
  async unmute(chatId) {
    return this.#learn(await this.#session.rest('DELETE', `/chats/${chatId}/mute`));
  }

  /** Whether a chat is muted just now. @param {Chat} chat */
  isMuted({ me }) {
    return me.muted && (!me.mutedUntil || Date.parse(me.mutedUntil) > this.serverNow);
  }

  /** Takes a one-to-one from the list until its next message. @param {string} chatId */
  async hide(chatId) {
    return this.#learn(await this.#session.rest('POST', `/chats/${chatId}/hide`));
  }

  /** What is unread in the chats that are known, but for those muted. */
  get unread() {
    const wanted = [...this.chats.values()].filter((chat) => !chat.me.hidden && !this.isMuted(chat));
    return wanted.reduce((sum, { me }) => sum + me.unreadCount, 0);
  }

  /** All participants, for chats that list only their first ones. @param {string} chatId */
  async participants(chatId, cursor = '') {
    const query = new URLSearchParams({ limit: '100', ...(cursor && { cursor }) });
    const page = await this.#session.rest('GET', `/chats/${chatId}/participants?${query}`);
    for (const { id, name } of page.items) this.names.set(id, name);
    return page;
  }

  /** Chats whose title or participants match. @param {string} search @returns {Promise<Chat[]>} */
  async searchChats(search) {
    const { items } = await this.#chatPage({ search });
    return items.map((chat) => this.#learn(chat));
  }

  /**
   * The newest messages that have these words.
   * @param {string} q @returns {Promise<Hit[]>}
   */
  async searchMessages(q) {
    const query = new URLSearchParams({ q, limit: '20' });
    try {
      return (await this.#session.rest('GET', `/search/messages?${query}`)).items;
    } catch (error) {
      if (error.code !== 'bad_request') throw error; // no words, or too many
      return [];
    }
  }

  /** A message, and what stands before and after it. @param {string} chatId @param {number} seq */
  around(chatId, seq) {
    const query = new URLSearchParams({ around: String(seq), limit: '15' });
    return this.#session.rest('GET', `/chats/${chatId}/messages?${query}`);
  }

  get hasMoreChats() {
    return this.#chatsCursor !== null;
  }

  /** Fetches the next page of chats into `chats`. */
  async moreChats() {
    const cursor = this.#chatsCursor;
    if (cursor === null) return;
    const page = await this.#chatPage({ cursor });
    if (cursor === this.#chatsCursor) this.#chatsCursor = page.nextCursor ?? null;
    page.items.forEach((chat) => this.#learn(chat));
    this.#emit('chats');
  }

  /** Fetches as much of the list as is known, and drops what is no longer in it. */
  async #refreshChats(signal) {
    const before = [...this.chats.keys()];
    // Chats added or removed while the pages are on their way come as events: those win.
    const gone = (this.#goneMeanwhile = new Set());
    const found = new Map();
    let cursor = '';
    do {
      const page = await this.#chatPage({ cursor });
      signal.throwIfAborted(); // the next connection has begun its own
      for (const chat of page.items) found.set(chat.id, chat);
      cursor = page.nextCursor ?? '';
    } while (cursor && found.size < Math.min(before.length, 10 * PAGE));
    this.#chatsCursor = cursor || null;
    for (const id of before) if (!found.has(id)) this.chats.delete(id);
    for (const chat of found.values()) if (!gone.has(chat.id)) this.#learn(chat);
    if (this.#goneMeanwhile === gone) this.#goneMeanwhile = null;
    this.#emit('chats');
  }

  #chatPage({ cursor, search }) {
    const query = new URLSearchParams({ limit: String(PAGE) });
    if (cursor) query.set('cursor', cursor);
    if (search) query.set('search', search);
    return this.#session.rest('GET', `/chats?${query}`);
  }

  /** @param {Chat} chat @returns {Chat} */
  #learn(chat) {
    for (const { id, name } of chat.participants) this.names.set(id, name);
    const known = this.chats.get(chat.id);
    // A list is a little behind what came live, and what has been read.
    const newer = (known?.lastMessage?.seq ?? 0) > (chat.lastMessage?.seq ?? 0);
    // What is newer than its being hidden brings it back.
    const { hidden } = newer ? known.me : chat.me;
    if (newer) chat = { ...chat, lastMessage: known.lastMessage, me: { ...chat.me, hidden } };
    if (known && (newer || known.me.readSeq > chat.me.readSeq)) {
      const { readSeq, unreadCount } = known.me;
      chat = { ...chat, me: { ...chat.me, readSeq, unreadCount } };
    }
    this.chats.set(chat.id, chat);
    this.#emit('chats');
    return chat;
  }

  /** Fetches a chat that has changed; one fetch for changes that come together. */
  async #fetchSoon(chatId, signal) {
    if (this.#stale.has(chatId)) return;
    this.#stale.add(chatId);
    await sleep(200, signal);
    this.#stale.delete(chatId);
    await this.#persist(signal, () => this.#fetchChat(chatId));
  }

  async #fetchChat(chatId) {
    try {
      this.#learn(await this.#session.rest('GET', `/chats/${chatId}`));
    } catch (error) {
      if (error.status !== 403 && error.status !== 404) throw error;
      this.#forget(chatId);
    }
  }

  #forget(chatId) {
    this.#goneMeanwhile?.add(chatId);
    const { chats, timelines, typing } = this;
    for (const kept of [chats, timelines, typing, this.#typed]) kept.delete(chatId);
    this.receipts.close(chatId);
    this.#outbox.forget(chatId);
    this.#emit('chats');
  }

  /**
   * Opens a chat: its timeline stays up to date until `closeChat`.
   * @param {string} chatId
   * @returns {Timeline} empty at first; `timeline` events tell when there is more
   */
  openChat(chatId) {
    const known = this.timelines.get(chatId);
    if (known) return known;
    const timeline = new Timeline(async (range) => {
      const query = new URLSearchParams({ limit: String(PAGE), ...range });
      const page = await this.#session.rest('GET', `/chats/${chatId}/messages?${query}`);
      page.messages.forEach((entry) => this.#take(entry));
      return page;
    });
    // Known to the event handlers before the first page is asked for, so nothing falls between.
    this.timelines.set(chatId, timeline);
    const { signal } = this.#connection;
    if (signal) {
      this.#keepUp(chatId, signal);
      this.#persist(signal, () => this.#askWhoTypes(chatId));
      this.#persist(signal, () => this.receipts.fetch(chatId));
    }
    return timeline;
  }

  /** @param {string} chatId */
  closeChat(chatId) {
    this.timelines.delete(chatId);
    this.receipts.close(chatId);
  }

  /** Fetches the page before the oldest entry of an open chat. @param {string} chatId */
  async older(chatId) {
    await this.timelines.get(chatId)?.older();
    this.#emit('timeline', { chatId });
  }

  /**
   * An entry of an open chat; older pages are fetched until it is there.
   * @param {string} chatId @param {(entry: Entry) => boolean} isIt
   * @returns {Promise<?Entry>} null when there is none, or it lies too far back
   */
  async reach(chatId, isIt) {
    const timeline = this.timelines.get(chatId);
    for (let pages = 0; timeline && timeline === this.timelines.get(chatId); pages++) {
      const entry = timeline.entries.find(isIt);
      if (entry || pages > REACH.pages || (timeline.loaded && !timeline.hasOlder)) return entry ?? null;
      await (timeline.loaded ? timeline.older(REACH.limit) : timeline.catchUp());
      this.#emit('timeline', { chatId });
    }
    return null;
  }

  /** Brings an open chat up to date, however long that takes, while the connection holds. */
  async #keepUp(chatId, signal) {
    const behind = this.#behind;
    const timeline = this.timelines.get(chatId);
    if (behind.has(chatId)) return; // it goes on until there is no gap
    behind.add(chatId);
    await this.#persist(signal, async () => {
      if (this.timelines.get(chatId) !== timeline) return;
      try {
        await timeline.catchUp();
      } catch (error) {
        if (error.status !== 403 && error.status !== 404) throw error;
        this.#forget(chatId);
      }
    });
    if (!signal.aborted) behind.delete(chatId);
    this.#emit('timeline', { chatId });
    // Closed and opened again meanwhile: that one has still to be loaded.
    const current = this.timelines.get(chatId);
    if (current && current !== timeline && !signal.aborted) await this.#keepUp(chatId, signal);
  }

  /**
   * Joining a chat that one is in changes nothing and tells who types. Not for open chats:
   * if the user has just left on another device, that would bring them back.
   */
  async #askWhoTypes(chatId) {
    if (!this.chats.has(chatId)) await this.#fetchChat(chatId);
    const chat = this.chats.get(chatId);
    if (!chat || chat.open) return;
    const { typing } = await this.#connection.request('join_chat', { chatId, history: { limit: 1 } });
    this.typing.set(chatId, new Set(typing));
    this.#emit('typing', { chatId });
  }

  // ---- Sending -------------------------------------------------------------------------------

  /** Own messages not yet stored, in the order written. @param {string} chatId @returns {Unsent[]} */
  unsent(chatId) {
    return this.#outbox.of(chatId);
  }

  get hasUnsent() {
    return !this.#outbox.isEmpty;
  }

  /**
   * Sends a text, or a file with a text. It is in `unsent` until the server has stored it.
   * @param {string} chatId @param {string} content
   * @param {{file?: ?File, answers?: ?Entry, mentions?: string[]}} [more] the message that it answers;
   *   participants that a text names
   */
  send(chatId, content, more = {}) {
    this.#outbox.add(chatId, content, more);
    if (more.file) this.setTyping(chatId, false);
    else this.#typed.delete(chatId); // a text ends typing by itself
  }

  /** Tries a failed message again. @param {Unsent} message */
  retry(message) {
    this.#outbox.retry(message);
  }

  /** Gives a message up; an upload under way ends. @param {Unsent} message */
  discard(message) {
    this.#outbox.drop(message.chatId, message.clientMsgId);
    this.#emit('timeline', { chatId: message.chatId });
  }

  // ---- What becomes of messages --------------------------------------------------------------

  /**
   * Gives an own message another text.
   * @param {Entry} entry @param {string} content @param {string[]} mentions
   */
  edit({ chatId, id }, content, mentions) {
    return this.#connection.request('edit_message', { chatId, messageId: id, content, mentions });
  }

  /** Takes a message back. @param {Entry} entry */
  remove({ chatId, id }) {
    return this.#connection.request('delete_message', { chatId, messageId: id });
  }

  /** Reacts to a message, or takes that back. @param {Entry} entry @param {string} emoji @param {boolean} on */
  react({ chatId, id }, emoji, on) {
    return this.#connection.request('react', { chatId, messageId: id, emoji, on });
  }

  // ---- Files ---------------------------------------------------------------------------------

  /**
   * The file of a message. The server notes who fetches it.
   * @param {Entry} entry
   * @param {import('./transfer.js').Transfer} [transfer]
   * @returns {Promise<Blob>} as of `media.type`
   */
  file({ chatId, id, media }, transfer) {
    const url = this.#mediaUrl(chatId, id);
    const how = { ...transfer, most: media.size };
    return this.#session.authorized((token) => download(url, token, how));
  }

  /** A small picture of an image; `not_found` when there is none, or not yet. @param {Entry} entry */
  thumbnail({ chatId, id }, transfer) {
    const url = `${this.#mediaUrl(chatId, id)}/thumbnail`;
    const how = { ...transfer, most: THUMBNAIL_BYTES, cache: 'default' };
    return this.#session.authorized((token) => download(url, token, how));
  }

  #mediaUrl(chatId, messageId) {
    return `${this.#session.origin}/v1/chats/${chatId}/messages/${messageId}/media`;
  }

  // ---- Reading -------------------------------------------------------------------------------

  /** The user sees the end of an open chat. @param {string} chatId */
  read(chatId) {
    const seq = this.timelines.get(chatId)?.entries.at(-1)?.seq ?? 0;
    const chat = this.chats.get(chatId);
    if (!chat || seq <= chat.me.readSeq || !this.#connection.signal) return;
    this.#connection.tell('read', { chatId, seq });
    this.#onRead(chat, seq);
  }

  /** Here, or on another of the user's devices. */
  #onRead(chat, seq) {
    if (seq <= chat.me.readSeq) return;
    const all = seq >= (chat.lastMessage?.seq ?? 0);
    const me = { ...chat.me, readSeq: seq, unreadCount: all ? 0 : chat.me.unreadCount };
    this.chats.set(chat.id, { ...chat, me });
    this.#emit('chats');
  }

  /** This device has what was sent; said now and then, of the newest. */
  #onDelivered(chatId, seq) {
    const waits = this.#deliveries.has(chatId);
    this.#deliveries.set(chatId, seq);
    if (waits) return;
    setTimeout(() => {
      const last = this.#deliveries.get(chatId);
      this.#deliveries.delete(chatId);
      const read = this.chats.get(chatId)?.me.readSeq ?? Infinity; // has been got, too
      if (last > read && this.#connection.signal) this.#connection.tell('delivered', { chatId, seq: last });
    }, DELIVERED_EVERY_MS);
  }

  // ---- Typing and presence -------------------------------------------------------------------

  /**
   * To be called at every change of the input: says that the user types, but not at every key.
   * @param {string} chatId @param {boolean} typing `false` once the input is empty
   */
  setTyping(chatId, typing) {
    const last = this.#typed.get(chatId);
    if (typing && (last === undefined || Date.now() - last >= TYPING_EVERY_MS)) {
      this.#typed.set(chatId, Date.now());
      this.#connection.tell('typing_start', { chatId });
    } else if (!typing && last !== undefined) {
      this.#typed.delete(chatId);
      this.#connection.tell('typing_stop', { chatId });
    }
  }

  /** Watches these people's presence, instead of those watched before. @param {string[]} userIds */
  watch(userIds) {
    const others = new Set(userIds.filter((id) => id !== this.user?.id));
    const wanted = [...others].slice(0, MAX_WATCHED).sort();
    if (wanted.join() === this.#watched.join()) return;
    this.#watched = wanted;
    if (this.#connection.signal) this.#askPresence().catch(() => {}); // asked again with the next probe
  }

  async #askPresence() {
    const { items } = await this.#connection.request('presence_subscribe', { userIds: this.#watched });
    this.presence.clear();
    for (const { userId, ...presence } of items) this.presence.set(userId, presence);
    this.#emit('presence');
  }

  // ---- What the connection brings ------------------------------------------------------------

  /**
   * What was missed comes as events when the server could resume; else it is fetched afresh, and
   * live events, which come meanwhile, are merged. What was still being fetched goes on.
   * @param {AbortSignal} signal @param {boolean} resumed
   */
  #onReady(signal, resumed) {
    const whole = resumed && !this.#behind.size && !this.#unlisted;
    const behind = whole ? [] : [...this.timelines.keys()];
    this.#behind = new Set();
    for (const chatId of behind) this.#keepUp(chatId, signal);
    this.#unlisted = !whole;
    this.#persist(signal, async () => {
      if (this.#unlisted) {
        await this.#refreshChats(signal);
        await this.blocks.refresh();
        const unread = [...this.chats.values()].filter(({ me, lastMessage }) => me.unreadCount && lastMessage);
        for (const { id, lastMessage } of unread.slice(0, MAX_DELIVERED)) this.#onDelivered(id, lastMessage.seq);
      }
      this.#unlisted = false;
      // Only now: the list tells whether the user is still in them.
      for (const chatId of this.timelines.keys()) {
        await this.#askWhoTypes(chatId);
        await this.receipts.fetch(chatId);
      }
    });
    if (this.#watched.length) this.#persist(signal, () => this.#askPresence());
  }

  #onDown() {
    this.#typed.clear();
    this.typing.clear();
    this.presence.clear();
    this.#emit('typing');
    this.#emit('presence');
  }

  /** Repeats `task` until it succeeds, the error is final, or the connection has ended. */
  async #persist(signal, task) {
    for (let attempt = 0; !signal.aborted; attempt++) {
      try {
        return await task();
      } catch (error) {
        if (signal.aborted) return;
        this.#emit('trouble', { error });
        if (!error.retryable) return;
        await sleep(Math.max(error.retryAfterMs ?? 0, backoff(attempt)), signal);
      }
    }
  }

  /** @param {AbortSignal} signal */
  async #untilOnline(signal) {
    const settled = () => this.state === 'online' || !this.user || signal.aborted;
    if (settled()) return;
    await new Promise((resolve) => {
      const check = () => {
        if (!settled()) return;
        this.removeEventListener('state', check);
        this.removeEventListener('session', check);
        signal.removeEventListener('abort', check);
        resolve();
      };
      this.addEventListener('state', check);
      this.addEventListener('session', check);
      signal.addEventListener('abort', check);
    });
  }

  async #authenticate() {
    await this.#connection.request('authenticate', { token: await this.#session.token() });
  }

  #onEvent(event, data) {
    switch (event) {
      case 'message':
      case 'system':
        return this.#onEntry(data);
      case 'message_edited':
        return this.#onChange({ ...data, what: 'edited' });
      case 'message_deleted':
        return this.#onChange({ ...data, what: 'deleted' });
      case 'reaction':
        return this.#onChange({ ...data, what: 'reaction', mine: data.userId === this.user?.id });
      case 'messages_expired':
        return this.#onExpired(data);
      case 'user_typing': {
        const who = this.typing.get(data.chatId) ?? new Set();
        who[data.typing ? 'add' : 'delete'](data.userId);
        this.typing.set(data.chatId, who);
        return this.#emit('typing', data);
      }
      case 'read': {
        const chat = this.chats.get(data.chatId);
        if (chat && data.userId === this.user?.id) this.#onRead(chat, data.seq);
        return this.receipts.told(data, 'read');
      }
      case 'delivered':
        return this.receipts.told(data, 'delivered');
      case 'blocking':
        return this.#onBlocking(data);
      case 'presence':
        this.presence.set(data.userId, { online: data.online, lastSeenAt: data.lastSeenAt });
        return this.#emit('presence');
      case 'chat_added':
      case 'chat_updated':
        this.#goneMeanwhile?.delete(data.id);
        return void this.#learn(data);
      case 'chat_removed':
        return this.#forget(data.id);
      case 'device_revoked':
        if (data.deviceId === this.#session.deviceId) this.#session.close(REVOKED);
    }
    // Others are of a newer server: what they change is there when it is next fetched.
  }

  /** A live entry, or an own message whose reply has come: it stands in the feed like any other. */
  #onEntry(entry) {
    this.#take(entry);
    const { chatId } = entry;
    const timeline = this.timelines.get(chatId);
    const { fresh, gap } = timeline?.accept(entry) ?? { fresh: true, gap: false };
    const { signal } = this.#connection;
    if (gap && signal) this.#keepUp(chatId, signal);
    const chat = this.chats.get(chatId);
    // `chat_removed` follows.
    const leaves = ['left', 'removed'].includes(entry.kind) && entry.userId === this.user?.id;
    const gone = leaves || entry.kind === 'deleted';
    if (chat && !entry.kind && entry.seq > (chat.lastMessage?.seq ?? 0)) {
      const own = entry.senderId === this.user?.id;
      const unread = entry.seq > chat.me.readSeq ? chat.me.unreadCount + 1 : chat.me.unreadCount;
      const me = own
        ? { ...chat.me, hidden: false, readSeq: entry.seq, unreadCount: 0 }
        : { ...chat.me, hidden: false, unreadCount: unread };
      this.chats.set(chatId, { ...chat, me, lastMessage: entry });
      this.#emit('chats');
    } else if (signal && (!chat || entry.kind) && !gone) {
      // A chat not listed yet, or its participants or title have changed.
      this.#fetchSoon(chatId, signal);
    }
    if (['left', 'removed'].includes(entry.kind)) this.receipts.gone(chatId, entry.userId ?? entry.actorId);
    if (!entry.kind && entry.senderId !== this.user?.id) this.#onDelivered(chatId, entry.seq);
    this.#emit('timeline', { chatId });
    if (fresh && entry.senderId !== this.user?.id) this.#emit('incoming', { entry });
  }

  /** A message has changed. @param {import('./timeline.js').Change} change */
  #onChange(change) {
    const { chatId } = change;
    const { signal } = this.#connection;
    const { gap } = this.timelines.get(chatId)?.change(change) ?? { gap: false };
    if (gap && signal) this.#keepUp(chatId, signal);
    const listed = this.chats.get(chatId)?.lastMessage;
    if (signal && listed?.seq === change.messageSeq && change.what !== 'reaction') {
      const content = change.content ?? '';
      const lastMessage = { ...listed, content, deleted: change.what === 'deleted' };
      if (lastMessage.deleted) delete lastMessage.media;
      if (!listed.deleted) this.chats.set(chatId, { ...this.chats.get(chatId), lastMessage });
      this.#emit('chats');
    }
    const me = this.chats.get(chatId)?.me;
    if (change.what === 'deleted' && me?.unreadCount && change.messageSeq > me.readSeq) {
      this.chats.set(chatId, { ...this.chats.get(chatId), me: { ...me, unreadCount: me.unreadCount - 1 } });
      this.#emit('chats');
    }
    this.#emit('timeline', { chatId });
  }

  /** Everything of a chat up to a place is gone. */
  #onExpired(expired) {
    const { chatId, upTo } = expired;
    const { signal } = this.#connection;
    const { gap } = this.timelines.get(chatId)?.expire(expired) ?? { gap: false };
    if (gap && signal) this.#keepUp(chatId, signal);
    const chat = this.chats.get(chatId);
    if (chat && (chat.lastMessage?.seq ?? 0) <= upTo) {
      this.chats.set(chatId, { ...chat, lastMessage: null, me: { ...chat.me, unreadCount: 0 } });
      this.#emit('chats');
    } else if (chat && chat.me.readSeq < upTo && signal) {
      // Some of what was unread.
      this.#fetchSoon(chatId, signal);
    }
    this.#emit('timeline', { chatId });
  }

  #onBlocking({ userId, blocked }) {
    const name = this.names.get(userId);
    if (name || !blocked) return this.blocks.told(userId, name, blocked);
    const { signal } = this.#connection;
    if (signal) this.#persist(signal, () => this.blocks.refresh());
  }

  /** What every entry passes, live or from history. @param {Entry} entry */
  #take(entry) {
    // History nests what a live `system` event has at the top.
    if (entry.system) Object.assign(entry, entry.system);
    if (entry.sender?.name) this.names.set(entry.sender.id, entry.sender.name);
    if (entry.senderId === this.user?.id) this.#outbox.drop(entry.chatId, entry.clientMsgId);
  }

  #emit(type, detail = {}) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
