/**
 * The reference client of Natter: what it takes to be a well-behaved device of a user.
 *
 * - {@link NatterClient}: the session (tokens), the connection, requests, sending, signals
 * - {@link Timeline}: one chat's feed: ordered by `seq`, each entry once, gaps found and filled
 * - {@link NatterError}: whatever went wrong, with the server's stable `code`
 *
 * The server may be any of many nodes and may go away at any time. So nothing here trusts one
 * connection: what is lost with it (typing, presence) is asked for again, what must not be lost
 * (messages) is fetched again by position, and what was sent is repeated under its own id.
 */

/** Entries of a page of history. */
const PAGE = 50;
/** Pages a timeline catches up by before it starts afresh from the newest one. */
const MAX_CATCH_UP_PAGES = 20;
/** Entries a timeline grows to by live events; older ones are fetched again when scrolled to. */
const MAX_ENTRIES = 1000;
/** Requests that wait for their reply at once. */
const MAX_PENDING = 64;
/** Unsent messages of one chat. */
const MAX_UNSENT = 50;
/** People whose presence is watched at once. */
const MAX_WATCHED = 200;
const REQUEST_TIMEOUT_MS = 10_000;
const REST_TIMEOUT_MS = 15_000;
/** How long a message is retried before the user is asked. */
const SEND_PATIENCE_MS = 120_000;
const TYPING_EVERY_MS = 2_000;
/** A connection that held this long was a good one: the next backoff starts from the bottom. */
const STABLE_MS = 10_000;
/** Timers take no more than 2^31 ms; renewing a long-lived token early does no harm. */
const MAX_TIMER_MS = 12 * 3_600_000;

/**
 * @typedef {{id: string, name: string}} User
 * @typedef {{user: User, device: {id: string}, accessToken: string, refreshToken: string,
 *   expiresAt: string, renewAt: number}} Session `renewAt`: this machine's clock, ms since 1970
 * @typedef {{id: string, isGroup: boolean, title: ?string, open: boolean, createdAt: string,
 *   participantCount: number, participants: {id: string, name: string, role: string}[],
 *   lastMessage: ?Entry, lastSeq: number, me: {name: string, role: string}}} Chat
 * @typedef {{chatId: string, seq: number, prevSeq?: number, createdAt?: string, id?: string,
 *   senderId?: string, sender?: User, contentType?: string, content?: string,
 *   clientMsgId?: string, kind?: string, actorId?: string, userId?: string, msg?: string}} Entry
 *   a message, or a system line when it has a `kind`
 * @typedef {{chatId: string, clientMsgId: string, content: string, createdAt: string,
 *   state: 'pending'|'failed', error: ?NatterError}} Unsent
 * @typedef {{messages: Entry[], hasMore: boolean, fromSeq?: number, toSeq?: number,
 *   partial?: boolean}} Page
 * @typedef {{online: boolean, lastSeenAt: ?string}} Presence
 */

/** What the server refused, or what kept it from answering. */
export class NatterError extends Error {
  /**
   * @param {string} code the server's (`forbidden`, `not_member`, `unavailable`, …), or one of
   *   ours: `timeout` (no answer), `offline` (no connection), `busy` (too much is waiting already)
   * @param {string} message
   * @param {{status?: number, retryAfterMs?: number, outcome?: 'not_sent'|'unknown'}} [more]
   */
  constructor(code, message, { status, retryAfterMs, outcome } = {}) {
    super(message);
    this.name = 'NatterError';
    this.code = code;
    this.status = status;
    this.retryAfterMs = retryAfterMs;
    this.outcome = outcome;
  }

  /** Whether the same request may succeed later, unchanged. */
  get retryable() {
    return ['unavailable', 'timeout', 'offline', 'rate_limited', 'busy'].includes(this.code);
  }
}

/**
 * A UUIDv7. The server recognises a repeated message by it for ever, and its time tells the server
 * cheaply that a message is new; so it should follow the server's clock.
 * @param {number} [now] milliseconds since 1970
 */
export function uuidv7(now = Date.now()) {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  for (let i = 0; i < 6; i++) bytes[i] = Math.floor(now / 2 ** (8 * (5 - i))) % 256;
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/**
 * Exponential backoff with full jitter: after a node's death all its clients come back, and any
 * delay that they share would bring them back at the same moment.
 * @param {number} attempt from 0
 */
function backoff(attempt) {
  return Math.random() * Math.min(30_000, 500 * 2 ** attempt);
}

/**
 * @param {number} ms
 * @param {AbortSignal} [signal] ends the wait early, without an error
 * @returns {Promise<void>}
 */
function sleep(ms, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', done);
  });
}

/** One chat's feed as this client knows it. */
export class Timeline {
  /** Ordered by `seq`, each once. @type {Entry[]} */
  entries = [];
  hasOlder = false;
  loaded = false;
  /** The server could not reach its archive: older entries exist but cannot be had now. */
  partial = false;

  /** Everything up to this `seq` is here (as far back as was paged). */
  #head = 0;
  /** @type {?Promise<void>} */
  #catchingUp = null;
  /** @type {?Promise<void>} */
  #paging = null;

  /** @param {(range: {before?: number, after?: number}) => Promise<Page>} fetchPage */
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
    const fresh = this.#merge([entry]) > 0;
    const gap = this.loaded && !this.#advance();
    if (!gap && this.entries.length > MAX_ENTRIES) {
      this.entries.splice(0, this.entries.length - MAX_ENTRIES);
      this.hasOlder = true;
    }
    return { fresh, gap };
  }

  /**
   * Fetches what is missing up to now: the newest page at first, later all after the last entry
   * known. Live entries may arrive meanwhile; they are merged by `seq`.
   * @returns {Promise<void>}
   */
  catchUp() {
    this.#catchingUp ??= this.#catchUp().finally(() => (this.#catchingUp = null));
    return this.#catchingUp;
  }

  /** Fetches the page before the oldest entry. @returns {Promise<void>} */
  older() {
    this.#paging ??= this.#older().finally(() => (this.#paging = null));
    return this.#paging;
  }

  async #older() {
    if (!this.loaded || !this.hasOlder) return;
    const before = this.entries[0]?.seq ?? this.#head + 1;
    const page = await this.fetchPage({ before });
    // Started afresh while the page was on its way: it would leave a hole.
    if ((this.entries[0]?.seq ?? this.#head + 1) !== before) return;
    this.#merge(page.messages);
    this.partial = Boolean(page.partial);
    this.hasOlder = page.hasMore || this.partial;
    if (this.partial && !page.messages.length) {
      throw new NatterError('unavailable', 'Older messages cannot be fetched just now.');
    }
  }

  async #catchUp() {
    if (!this.loaded) await this.#startAfresh();
    for (let pages = 0; pages < MAX_CATCH_UP_PAGES; pages++) {
      // Read before asking: an answer without more covers at least what had been seen by then,
      // even where entries of a kind that history does not show left a hole in the chain.
      const seen = this.entries.at(-1)?.seq ?? 0;
      const page = await this.fetchPage({ after: this.#head });
      this.#merge(page.messages);
      if (page.partial) throw new NatterError('unavailable', 'The archive cannot be reached.');
      this.#moveHead(page.toSeq ?? 0, page.messages.at(-1)?.seq ?? 0);
      if (page.hasMore) continue;
      this.#moveHead(seen);
      if (this.#advance()) return;
    }
    await this.#startAfresh();
  }

  async #startAfresh() {
    const page = await this.fetchPage({});
    // What came live stays only where the page reaches up to it, else there would be a hole.
    const from = page.messages[0]?.seq ?? 0;
    this.entries = this.entries.filter((entry) => entry.seq >= from);
    this.#merge(page.messages);
    this.#head = Math.max(page.toSeq ?? 0, page.messages.at(-1)?.seq ?? 0);
    this.partial = Boolean(page.partial);
    this.hasOlder = page.hasMore || this.partial;
    this.loaded = true;
  }

  /** @param {...number} seqs */
  #moveHead(...seqs) {
    this.#head = Math.max(this.#head, ...seqs);
  }

  /** Follows the chain of `prevSeq` from the head. @returns {boolean} whether it is unbroken */
  #advance() {
    for (const entry of this.entries) {
      if (entry.seq <= this.#head) continue;
      if ((entry.prevSeq ?? 0) > this.#head) return false;
      this.#head = entry.seq;
    }
    return true;
  }

  /** @param {Entry[]} incoming @returns {number} how many were new */
  #merge(incoming) {
    const known = new Set(this.entries.map((entry) => entry.seq));
    const fresh = incoming.filter((entry) => !known.has(entry.seq) && known.add(entry.seq));
    if (fresh.length) this.entries.push(...fresh);
    this.entries.sort((a, b) => a.seq - b.seq);
    return fresh.length;
  }
}

/**
 * A device of a signed-in user.
 *
 * Events (all `CustomEvent`s): `state` the connection's state changed · `session` signed in or out
 * (`{reason}`) · `chats` the list changed · `timeline` (`{chatId}`) entries or unsent messages
 * changed · `incoming` (`{entry}`) a live entry not seen before · `typing` (`{chatId}`) ·
 * `presence` · `trouble` (`{error}`) something in the background failed and is being retried.
 */
export class NatterClient extends EventTarget {
  /** @type {'offline'|'connecting'|'online'|'waiting'|'displaced'} */
  state = 'offline';
  /** Chats by id, as far as they were listed. @type {Map<string, Chat>} */
  chats = new Map();
  /** Names by user id, learned on the way. @type {Map<string, string>} */
  names = new Map();
  /** Who types, by chat. @type {Map<string, Set<string>>} */
  typing = new Map();
  /** Presence of those watched, by user. @type {Map<string, Presence>} */
  presence = new Map();
  /** Timelines of the chats that are open. @type {Map<string, Timeline>} */
  timelines = new Map();
  /** @type {Map<string, Unsent[]>} */
  #unsent = new Map();
  /** Chats whose unsent messages are being sent. @type {Set<string>} */
  #sending = new Set();

  /** @type {?Session} */
  #session;
  /** @type {?Promise<void>} */
  #refreshing = null;
  #renewal = 0;
  /** How far the server's clock is ahead of ours. */
  #skewMs = 0;

  /** From `connect` to `disconnect`, over all connections. @type {?AbortController} */
  #lifetime = null;
  /** The connection while it is ready for requests.
   * @type {?{socket: WebSocket, signal: AbortSignal, abandon: () => void}} */
  #live = null;
  #lastHeard = 0;
  /** @type {Map<number, {settle: (error: ?NatterError, data?: any) => void}>} */
  #pending = new Map();
  #nextId = 1;

  /** @type {?string} */
  #chatsCursor = null;
  /** Chats that went away while the list is being fetched. @type {?Set<string>} */
  #goneMeanwhile = null;
  /** @type {string[]} */
  #watched = [];
  /** When `typing_start` was last sent, by chat. @type {Map<string, number>} */
  #typed = new Map();

  /**
   * @param {{origin?: string, store: {load: () => ?Session, save: (session: ?Session) => void}}} options
   *   `origin` of the server; `store` keeps the session beyond this page
   */
  constructor({ origin = globalThis.location?.origin, store }) {
    super();
    this.origin = origin;
    this.store = store;
    this.#session = store.load();
    if (this.#session) this.#scheduleRenewal();
  }

  // ---- The session ---------------------------------------------------------------------------

  /** The signed-in user. @returns {?User} */
  get user() {
    return this.#session?.user ?? null;
  }

  /** @returns {?string} */
  get deviceId() {
    return this.#session?.device.id ?? null;
  }

  /** @param {{name: string, email?: string, phone?: string, password: string, device?: object}} account */
  async register(account) {
    this.#adopt(await this.#fetch('POST', '/auth/register', account));
  }

  /** @param {{email?: string, phone?: string, password: string, device?: object}} credentials */
  async login(credentials) {
    this.#adopt(await this.#fetch('POST', '/auth/login', credentials));
  }

  /** Signs out here and on the server; here even when the server cannot be reached. */
  async logout() {
    try {
      await this.#refreshing; // else the rotated token would outlive the session it came from
      await this.#rest('POST', '/auth/logout');
    } catch {
      // The tokens are forgotten below, and the refresh token dies unused.
    }
    this.#signOut('you signed out');
  }

  /** @param {Omit<Session, 'renewAt'>} session as register, log in and refresh answer */
  #adopt(session) {
    // By the server's clock: ours may be off by more than a token lives.
    const lifetime = Date.parse(session.expiresAt) - (Date.now() + this.#skewMs);
    const before = this.#session;
    // Some way before the end, so that a slow or failing refresh has time for another attempt.
    this.#session = { ...before, ...session, renewAt: Date.now() + lifetime * 0.75 };
    this.store.save(this.#session);
    this.names.set(session.user.id, session.user.name);
    this.#scheduleRenewal();
    if (!before) this.#emit('session', { reason: 'signed in' });
  }

  /** @param {string} reason */
  #signOut(reason) {
    if (!this.#session) return;
    this.#session = null;
    clearTimeout(this.#renewal);
    this.store.save(null);
    this.disconnect();
    for (const kept of [this.chats, this.names, this.timelines, this.#unsent, this.#typed]) kept.clear();
    this.#watched = [];
    this.#emit('session', { reason });
  }

  #scheduleRenewal(atLeastMs = 0) {
    clearTimeout(this.#renewal);
    const wait = Math.max(this.#session.renewAt - Date.now(), atLeastMs);
    this.#renewal = setTimeout(async () => {
      const live = this.#live;
      if (live && this.#session.renewAt > Date.now()) return this.#scheduleRenewal();
      await this.#refresh().catch(() => this.#session && this.#scheduleRenewal(5_000 + backoff(3)));
    }, Math.min(Math.max(wait, 0), MAX_TIMER_MS));
  }

  /**
   * Exchanges the refresh token. It works once, and using it twice looks like theft to the server
   * and ends the session: hence one exchange at a time, whoever asks for it.
   * @returns {Promise<void>}
   */
  #refresh() {
    this.#refreshing ??= this.#rotate().finally(() => (this.#refreshing = null));
    return this.#refreshing;
  }

  async #rotate() {
    const { refreshToken } = this.#session ?? {};
    if (!refreshToken) throw new NatterError('unauthenticated', 'Signed out.');
    try {
      this.#adopt(await this.#fetch('POST', '/auth/refresh', { refreshToken }));
    } catch (error) {
      if (error.status === 401 || error.status === 403) this.#signOut('the session has ended');
      throw error;
    }
    // The connection lives as long as its token: it gets the new one, and if it cannot take it,
    // the server closes it and the next one starts with the new token.
    if (this.#live) {
      this.request('authenticate', { token: this.#session.accessToken }).catch(() => {});
    }
  }

  async #freshToken() {
    if (!this.#session) throw new NatterError('unauthenticated', 'Signed out.');
    if (this.#session.renewAt <= Date.now()) await this.#refresh();
    return this.#session.accessToken;
  }

  // ---- REST ----------------------------------------------------------------------------------

  /** An authenticated call; a token that turns out to be stale is refreshed and the call repeated. */
  async #rest(method, path, body) {
    const token = await this.#freshToken();
    try {
      return await this.#fetch(method, path, body, token);
    } catch (error) {
      if (error.status !== 401) throw error;
      // Unless another call has refreshed it in the meantime.
      if (token === this.#session?.accessToken) await this.#refresh();
      return this.#fetch(method, path, body, await this.#freshToken());
    }
  }

  async #fetch(method, path, body, token) {
    const headers = { accept: 'application/json' };
    if (token) headers.authorization = `Bearer ${token}`;
    if (body !== undefined) headers['content-type'] = 'application/json';
    let response, answer;
    try {
      response = await fetch(`${this.origin}/v1${path}`, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: AbortSignal.timeout(REST_TIMEOUT_MS),
        cache: 'no-store',
        credentials: 'omit',
      });
      const text = await response.text();
      answer = text ? JSON.parse(text) : null;
    } catch (cause) {
      if (!response || response.ok) {
        throw new NatterError('offline', 'The server cannot be reached.', { outcome: 'unknown' });
      }
      answer = null; // a proxy's own error page
    }
    const date = Date.parse(response.headers.get('date') ?? '');
    if (date) this.#skewMs = date - Date.now();
    if (response.ok) return answer;
    const seconds = Number(response.headers.get('retry-after'));
    throw new NatterError(
      answer?.code ?? (response.status >= 500 ? 'unavailable' : 'bad_request'),
      answer?.detail ?? answer?.message ?? answer?.title ?? `HTTP ${response.status}`,
      {
        status: response.status,
        retryAfterMs: answer?.retryAfterMs ?? (seconds ? seconds * 1000 : undefined),
        outcome: answer?.outcome,
      },
    );
  }

  /**
   * Users by the start of their name, or by a whole phone number or e-mail.
   * @param {string} search @returns {Promise<User[]>}
   */
  async users(search) {
    const { items } = await this.#rest('GET', `/users?${new URLSearchParams({ search, limit: '20' })}`);
    for (const user of items) this.names.set(user.id, user.name);
    return items;
  }

  // ---- Chats ---------------------------------------------------------------------------------

  /**
   * @param {{isGroup: boolean, title?: string, participantIds: string[], open?: boolean}} chat
   * @returns {Promise<Chat>} the existing chat when the same one-to-one is there already
   */
  async createChat(chat) {
    return this.#learn(await this.#rest('POST', '/chats', chat));
  }

  /** Joins an open chat. @param {string} chatId @returns {Promise<Chat>} */
  async joinChat(chatId) {
    const joined = await this.#rest('POST', `/chats/${encodeURIComponent(chatId)}/join`);
    return this.#learn(joined.chat);
  }

  /** Leaves a group. @param {string} chatId */
  async leaveChat(chatId) {
    await this.#rest('POST', `/chats/${chatId}/leave`);
    this.#forget(chatId);
  }

  /** All participants, for chats that list only their first ones. @param {string} chatId */
  async participants(chatId, cursor = '') {
    const query = new URLSearchParams({ limit: '100', ...(cursor && { cursor }) });
    const page = await this.#rest('GET', `/chats/${chatId}/participants?${query}`);
    for (const { id, name } of page.items) this.names.set(id, name);
    return page;
  }

  /** Chats whose title or participants match. @param {string} search @returns {Promise<Chat[]>} */
  async searchChats(search) {
    const { items } = await this.#chatPage({ search });
    return items.map((chat) => this.#learn(chat));
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
  async #refreshChats() {
    const before = [...this.chats.keys()];
    // Chats added or removed while the pages are on their way come as events: those win.
    const gone = (this.#goneMeanwhile = new Set());
    const found = new Map();
    let cursor = '';
    do {
      const page = await this.#chatPage({ cursor });
      for (const chat of page.items) found.set(chat.id, chat);
      cursor = page.nextCursor ?? '';
    } while (cursor && found.size < Math.min(before.length, 10 * PAGE));
    this.#chatsCursor = cursor || null;
    for (const id of before) if (!found.has(id) && !this.timelines.has(id)) this.chats.delete(id);
    for (const chat of found.values()) if (!gone.has(chat.id)) this.#learn(chat);
    this.#goneMeanwhile = null;
    this.#emit('chats');
  }

  #chatPage({ cursor, search }) {
    const query = new URLSearchParams({ limit: String(PAGE) });
    if (cursor) query.set('cursor', cursor);
    if (search) query.set('search', search);
    return this.#rest('GET', `/chats?${query}`);
  }

  /** @param {Chat} chat @returns {Chat} */
  #learn(chat) {
    for (const { id, name } of chat.participants) this.names.set(id, name);
    const known = this.chats.get(chat.id);
    // A list is a little behind what came live.
    if ((known?.lastMessage?.seq ?? 0) > (chat.lastMessage?.seq ?? 0)) {
      chat = { ...chat, lastMessage: known.lastMessage };
    }
    this.chats.set(chat.id, chat);
    this.#emit('chats');
    return chat;
  }

  async #fetchChat(chatId) {
    try {
      this.#learn(await this.#rest('GET', `/chats/${chatId}`));
    } catch (error) {
      if (error.status !== 403 && error.status !== 404) throw error;
      this.#forget(chatId);
    }
  }

  #forget(chatId) {
    this.#goneMeanwhile?.add(chatId);
    for (const kept of [this.chats, this.timelines, this.typing, this.#typed]) kept.delete(chatId);
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
      const page = await this.#rest('GET', `/chats/${chatId}/messages?${query}`);
      page.messages.forEach((entry) => this.#take(entry));
      return page;
    });
    // Known to the event handlers before the first page is asked for, so nothing falls between.
    this.timelines.set(chatId, timeline);
    if (this.#live) this.#keepUp(chatId, this.#live.signal);
    return timeline;
  }

  /** @param {string} chatId */
  closeChat(chatId) {
    this.timelines.delete(chatId);
  }

  /** Fetches the page before the oldest entry of an open chat. @param {string} chatId */
  async older(chatId) {
    await this.timelines.get(chatId)?.older();
    this.#emit('timeline', { chatId });
  }

  /** Brings an open chat up to date, however long that takes, while the connection holds. */
  async #keepUp(chatId, signal) {
    const timeline = this.timelines.get(chatId);
    const open = () => timeline && this.timelines.get(chatId) === timeline;
    await this.#persist(signal, async () => {
      if (!open()) return;
      try {
        await timeline.catchUp();
      } catch (error) {
        if (error.status === 403 || error.status === 404) return this.#forget(chatId);
        throw error;
      } finally {
        this.#emit('timeline', { chatId });
      }
      await this.#askWhoTypes(chatId);
    });
  }

  /**
   * Joining a chat that one is in changes nothing and tells who types. Not for open chats:
   * if the user has just left on another device, that would bring them back.
   */
  async #askWhoTypes(chatId) {
    const chat = this.chats.get(chatId);
    if (!chat || chat.open || !this.#live) return;
    const { typing } = await this.request('join_chat', { chatId, history: { limit: 1 } });
    this.typing.set(chatId, new Set(typing));
    this.#emit('typing', { chatId });
  }

  // ---- Sending -------------------------------------------------------------------------------

  /** Own messages not yet stored, in the order written. @param {string} chatId @returns {Unsent[]} */
  unsent(chatId) {
    return this.#unsent.get(chatId) ?? [];
  }

  get hasUnsent() {
    return [...this.#unsent.values()].some((list) => list.length > 0);
  }

  /**
   * Sends a text. It is in `unsent` until the server has stored it.
   * @param {string} chatId @param {string} content
   */
  send(chatId, content) {
    const list = this.unsent(chatId);
    if (list.length >= MAX_UNSENT) throw new NatterError('busy', 'Too many messages are waiting.');
    const now = Date.now() + this.#skewMs;
    const createdAt = new Date(now).toISOString();
    list.push({ chatId, clientMsgId: uuidv7(now), content, createdAt, state: 'pending', error: null });
    this.#unsent.set(chatId, list);
    this.#typed.delete(chatId); // a message ends typing by itself
    this.#emit('timeline', { chatId });
    this.#sendAll(chatId);
  }

  /** Tries a failed message again, under the same id: it may have arrived. @param {Unsent} message */
  retry(message) {
    message.state = 'pending';
    this.#emit('timeline', { chatId: message.chatId });
    this.#sendAll(message.chatId);
  }

  /** @param {Unsent} message */
  discard(message) {
    this.#dropUnsent(message.chatId, message.clientMsgId);
    this.#emit('timeline', { chatId: message.chatId });
  }

  /** One at a time in a chat, or a retried message would fall behind a later one. */
  async #sendAll(chatId) {
    if (this.#sending.has(chatId)) return;
    this.#sending.add(chatId);
    const next = () => this.unsent(chatId).find((message) => message.state === 'pending');
    for (let message; (message = next()); ) await this.#deliver(message);
    this.#sending.delete(chatId);
  }

  /** Sends until there is an answer: the same id makes all attempts one message. @param {Unsent} message */
  async #deliver(message) {
    const { chatId, clientMsgId, content } = message;
    const patience = AbortSignal.timeout(SEND_PATIENCE_MS);
    for (let attempt = 0; ; attempt++) {
      await this.#untilOnline(patience);
      // Meanwhile it may have been seen in the chat, been discarded, or the user signed out.
      if (!this.unsent(chatId).includes(message)) return;
      try {
        const sent = await this.request('send_message', { chatId, clientMsgId, content });
        const { user } = this;
        return this.#onEntry({ ...sent, senderId: user.id, sender: user, contentType: 'text', content });
      } catch (error) {
        if (!error.retryable || patience.aborted) {
          message.state = 'failed';
          message.error = error;
          return this.#emit('timeline', { chatId });
        }
        await sleep(Math.max(error.retryAfterMs ?? 0, backoff(attempt)), patience);
      }
    }
  }

  #dropUnsent(chatId, clientMsgId) {
    const list = this.unsent(chatId).filter((message) => message.clientMsgId !== clientMsgId);
    if (list.length) this.#unsent.set(chatId, list);
    else this.#unsent.delete(chatId);
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
      this.#signal('typing_start', { chatId });
    } else if (!typing && last !== undefined) {
      this.#typed.delete(chatId);
      this.#signal('typing_stop', { chatId });
    }
  }

  /** Watches these people's presence, instead of those watched before. @param {string[]} userIds */
  watch(userIds) {
    const wanted = [...new Set(userIds)].filter((id) => id !== this.user?.id).slice(0, MAX_WATCHED).sort();
    if (wanted.join() === this.#watched.join()) return;
    this.#watched = wanted;
    if (this.#live) this.#askPresence().catch(() => {}); // asked again with the next probe
  }

  async #askPresence() {
    const { items } = await this.request('presence_subscribe', { userIds: this.#watched });
    this.presence.clear();
    for (const { userId, ...presence } of items) this.presence.set(userId, presence);
    this.#emit('presence');
  }

  // ---- The connection ------------------------------------------------------------------------

  /** Connects, and stays connected until `disconnect` or the end of the session. */
  connect() {
    if (this.#lifetime || !this.#session) return;
    const lifetime = (this.#lifetime = new AbortController());
    this.#stayConnected(lifetime.signal).finally(() => {
      if (this.#lifetime === lifetime) this.#lifetime = null;
    });
  }

  disconnect() {
    this.#lifetime?.abort();
    this.#lifetime = null;
  }

  /** @param {AbortSignal} signal */
  async #stayConnected(signal) {
    for (let failures = 0; !signal.aborted; ) {
      this.#setState('connecting');
      let end = { code: 1006, heldMs: 0, wasReady: false, afterMs: undefined };
      try {
        end = await this.#connection(await this.#freshToken(), signal);
        // A browser hides why a handshake was refused. REST does not, and it refreshes the token
        // or finds the session ended; both also after a close for the token's sake.
        if (end.code === 4401) await this.#refresh();
        else if (!end.wasReady) await this.#rest('GET', '/users/me');
      } catch {
        // No network, or no session any more: then the signal is aborted.
      }
      if (signal.aborted) break;
      failures = end.heldMs > STABLE_MS ? 0 : failures + 1;
      if (end.code === 4403) return this.#signOut('this device was signed out');
      // Coming back by itself would push out another connection of this device, and so on.
      if (end.code === 4409) return this.#setState('displaced');
      this.#setState('waiting');
      await this.#pause(reconnectDelay(end, failures), signal);
    }
    this.#setState('offline');
  }

  /** Waits before reconnecting, but no longer than until the network is back. */
  async #pause(ms, signal) {
    const wake = new AbortController();
    const options = { signal: wake.signal };
    globalThis.addEventListener?.('online', () => wake.abort(), options);
    signal.addEventListener('abort', () => wake.abort(), options);
    await sleep(ms, wake.signal);
    wake.abort();
  }

  /**
   * One connection, from the handshake to its end.
   * @param {string} token @param {AbortSignal} signal
   * @returns {Promise<{code: number, heldMs: number, wasReady: boolean, afterMs?: number}>}
   */
  #connection(token, signal) {
    return new Promise((resolve) => {
      // A browser cannot set headers on a WebSocket, and a URL ends up in logs: so the token
      // travels among the subprotocols.
      const url = `${this.origin.replace(/^http/, 'ws')}/v1/ws`;
      const socket = new WebSocket(url, ['natter.v1', `bearer.${token}`]);
      const ended = new AbortController();
      const begun = Date.now();
      let afterMs, probe;

      const finish = (code) => {
        if (ended.signal.aborted) return;
        ended.abort();
        clearTimeout(deadline);
        clearInterval(probe);
        signal.removeEventListener('abort', abandon);
        const wasReady = this.#live?.socket === socket;
        if (wasReady) this.#onDisconnected();
        resolve({ code, heldMs: Date.now() - begun, wasReady, afterMs });
      };
      // Not waiting for the close event: on a dead network it takes minutes.
      const abandon = () => {
        socket.close();
        finish(1006);
      };
      const deadline = setTimeout(abandon, REQUEST_TIMEOUT_MS);
      signal.addEventListener('abort', abandon);

      socket.onclose = ({ code }) => finish(code);
      socket.onmessage = ({ data: text }) => {
        if (ended.signal.aborted) return;
        this.#lastHeard = Date.now();
        const { event, reply, data, error } = JSON.parse(text);
        if (reply !== undefined) return this.#onReply(reply, data, error);
        if (event === 'reconnect') afterMs = data.afterMs; // the close follows
        if (event !== 'ready') return this.#onEvent(event, data);
        clearTimeout(deadline);
        this.#live = { socket, signal: ended.signal, abandon };
        probe = setInterval(() => this.#probe(2 * data.heartbeatMs), data.heartbeatMs);
        this.#onConnected(ended.signal);
      };
    });
  }

  /** A page does not see the server's pings. If all is quiet, any answer proves it alive. */
  #probe(quietMs) {
    if (Date.now() - this.#lastHeard > quietMs) this.#askPresence().catch(() => {});
  }

  /** What was missed is fetched afresh; live events come meanwhile and are merged. @param {AbortSignal} signal */
  #onConnected(signal) {
    this.#setState('online');
    for (const chatId of this.timelines.keys()) this.#keepUp(chatId, signal);
    this.#persist(signal, () => this.#refreshChats());
    if (this.#watched.length) this.#persist(signal, () => this.#askPresence());
  }

  #onDisconnected() {
    this.#live = null;
    for (const { settle } of this.#pending.values()) {
      settle(new NatterError('offline', 'The connection was lost.', { outcome: 'unknown' }));
    }
    this.#typed.clear();
    const typed = [...this.typing.keys()];
    this.typing.clear();
    for (const chatId of typed) this.#emit('typing', { chatId });
    this.presence.clear();
    this.#emit('presence');
  }

  /** Repeats `task` until it succeeds, the error is final, or the connection has ended. */
  async #persist(signal, task) {
    for (let attempt = 0; !signal.aborted; attempt++) {
      try {
        return await task();
      } catch (error) {
        if (signal.aborted || !this.#session) return;
        this.#emit('trouble', { error });
        if (!error.retryable) return;
        await sleep(Math.max(error.retryAfterMs ?? 0, backoff(attempt)), signal);
      }
    }
  }

  /** @param {AbortSignal} signal */
  async #untilOnline(signal) {
    if (this.#live || signal.aborted) return;
    await new Promise((resolve) => {
      const check = () => {
        if (!this.#live && !signal.aborted) return;
        this.removeEventListener('state', check);
        signal.removeEventListener('abort', check);
        resolve();
      };
      this.addEventListener('state', check);
      signal.addEventListener('abort', check);
    });
  }

  /**
   * Sends an event and waits for its reply.
   * @param {string} event @param {object} data
   * @returns {Promise<any>}
   */
  request(event, data, timeoutMs = REQUEST_TIMEOUT_MS) {
    const live = this.#live;
    if (!live) return Promise.reject(new NatterError('offline', 'Not connected.', { outcome: 'not_sent' }));
    if (this.#pending.size >= MAX_PENDING) {
      return Promise.reject(new NatterError('busy', 'Too many requests are waiting.', { outcome: 'not_sent' }));
    }
    const id = this.#nextId++;
    const asked = Date.now();
    return new Promise((resolve, reject) => {
      const settle = (error, answer) => {
        this.#pending.delete(id);
        clearTimeout(timer);
        if (error) reject(error);
        else resolve(answer);
      };
      const timer = setTimeout(() => {
        settle(new NatterError('timeout', 'No answer in time.', { outcome: 'unknown' }));
        // Nothing else either: then it is not the answer that is slow, the connection is dead.
        if (this.#lastHeard < asked) live.abandon();
      }, timeoutMs);
      this.#pending.set(id, { settle });
      live.socket.send(JSON.stringify({ event, id, data }));
    });
  }

  /** Sends an event that may be lost and needs no reply. */
  #signal(event, data) {
    this.#live?.socket.send(JSON.stringify({ event, data }));
  }

  #onReply(id, data, error) {
    const { code, message, ...more } = error ?? {};
    this.#pending.get(id)?.settle(error ? new NatterError(code, message, more) : null, data);
  }

  #onEvent(event, data) {
    switch (event) {
      case 'message':
      case 'system':
        return this.#onEntry(data);
      case 'user_typing': {
        const who = this.typing.get(data.chatId) ?? new Set();
        who[data.typing ? 'add' : 'delete'](data.userId);
        this.typing.set(data.chatId, who);
        return this.#emit('typing', data);
      }
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
        if (data.deviceId === this.deviceId) this.#signOut('this device was signed out');
    }
    // Others are of a newer server: what they change is there when it is next fetched.
  }

  /** A live entry, or an own message whose reply has come: it stands in the feed like any other. */
  #onEntry(entry) {
    this.#take(entry);
    const { chatId } = entry;
    const timeline = this.timelines.get(chatId);
    const { fresh, gap } = timeline?.accept(entry) ?? { fresh: true, gap: false };
    if (gap && this.#live) this.#keepUp(chatId, this.#live.signal);
    const chat = this.chats.get(chatId);
    if (chat && !entry.kind && entry.seq > (chat.lastMessage?.seq ?? 0)) {
      this.chats.set(chatId, { ...chat, lastMessage: entry });
      this.#emit('chats');
    } else if (this.#live && (!chat || entry.kind)) {
      // A chat not listed yet, or its participants or title have changed.
      this.#persist(this.#live.signal, () => this.#fetchChat(chatId));
    }
    this.#emit('timeline', { chatId });
    if (fresh && entry.senderId !== this.user?.id) this.#emit('incoming', { entry });
  }

  /** What every entry passes, live or from history. @param {Entry} entry */
  #take(entry) {
    // History nests what a live `system` event has at the top.
    if (entry.system) Object.assign(entry, entry.system);
    if (entry.sender?.name) this.names.set(entry.sender.id, entry.sender.name);
    if (entry.senderId === this.user?.id) this.#dropUnsent(entry.chatId, entry.clientMsgId);
  }

  #setState(state) {
    if (state === this.state) return;
    this.state = state;
    this.#emit('state', { state });
  }

  #emit(type, detail = {}) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/**
 * @param {{code: number, afterMs?: number}} end how the connection ended
 * @param {number} failures in a row, this one included
 * @returns {number} milliseconds to wait before the next one
 */
function reconnectDelay({ code, afterMs }, failures) {
  if (code === 4401 && failures <= 1) return 0; // the token is fresh now
  if (code === 4429) return 5_000 + backoff(failures);
  return afterMs ?? backoff(failures);
}
