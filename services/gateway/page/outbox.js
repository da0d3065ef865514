/**
 * Own messages that are not yet known to be stored.
 *
 * A text goes over the socket, a file with its caption by upload. Whatever becomes of an attempt,
 * the next one bears the same `clientMsgId`, so the server makes one message of them all.
 */

import { NatterError, backoff, sleep } from './session.js';
import { mediaOf } from './media.js';
import { upload } from './transfer.js';

/** Unsent messages of one chat. */
const MAX_UNSENT = 50;
/** How long a message is retried before the user is asked. */
const SEND_PATIENCE_MS = 120_000;

/**
 * @typedef {{chatId: string, clientMsgId: string, content: string, createdAt: string,
 *   state: 'pending'|'failed', error: ?NatterError, file?: File,
 *   media?: import('./media.js').Media, part?: number, replyTo?: string, quote?: object,
 *   mentions?: string[]}} Unsent with a `file`: `content` is its caption, and `part` of it, from 0 to
 *   1, has gone
 */

/**
 * A UUIDv7. The server recognises a repeated message by it for ever, and its time tells the server
 * cheaply that a message is new; so it should follow the server's clock.
 * @param {number} now milliseconds since 1970
 */
export function uuidv7(now) {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  for (let i = 0; i < 6; i++) bytes[i] = Math.floor(now / 2 ** (8 * (5 - i))) % 256;
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

export class Outbox {
  /** By chat, in the order written. @type {Map<string, Unsent[]>} */
  #unsent = new Map();
  /** Chats whose texts, or whose files, are being sent. @type {Set<string>} */
  #sending = new Set();
  /** What ends an upload under way. @type {Map<Unsent, AbortController>} */
  #uploads = new Map();

  /**
   * @param {object} options
   * @param {import('./session.js').Session} options.session
   * @param {import('./connection.js').Connection} options.connection
   * @param {(patience: AbortSignal) => Promise<void>} options.untilOnline or out of patience
   * @param {(chatId: string) => void} options.onChange
   * @param {(message: Unsent) => void} options.onProgress
   * @param {(entry: import('./timeline.js').Entry) => void} options.onSent is to `drop` it
   */
  constructor({ session, connection, untilOnline, onChange, onProgress, onSent }) {
    Object.assign(this, { session, connection, untilOnline, onChange, onProgress, onSent });
  }

  /** @param {string} chatId @returns {Unsent[]} */
  of(chatId) {
    return this.#unsent.get(chatId) ?? [];
  }

  get isEmpty() {
    return this.#unsent.size === 0;
  }

  /**
   * @param {string} chatId @param {string} content
   * @param {{file?: ?File, answers?: ?import('./timeline.js').Entry, mentions?: string[]}} more
   */
  add(chatId, content, { file, answers, mentions = [] }) {
    const list = this.of(chatId);
    if (list.length >= MAX_UNSENT) throw new NatterError('busy', 'Too many messages are waiting.');
    if (file?.size === 0) throw new NatterError('bad_request', 'The file is empty.');
    const now = this.session.serverNow;
    const createdAt = new Date(now).toISOString();
    const message = { chatId, clientMsgId: uuidv7(now), content, createdAt, state: 'pending', error: null };
    if (file) Object.assign(message, { file, media: mediaOf(file), part: 0 });
    if (answers) Object.assign(message, { replyTo: answers.id, quote: quoteOf(answers) });
    if (mentions.length) message.mentions = mentions;
    list.push(message);
    this.#unsent.set(chatId, list);
    this.onChange(chatId);
    this.#sendAll(chatId, Boolean(file));
  }

  /** Tries a failed message again, under the same id: it may have arrived. @param {Unsent} message */
  retry(message) {
    message.state = 'pending';
    if (message.file) message.part = 0;
    this.onChange(message.chatId);
    this.#sendAll(message.chatId, Boolean(message.file));
  }

  /** A message is stored, or no longer wanted. @param {string} chatId @param {string} clientMsgId */
  drop(chatId, clientMsgId) {
    const list = this.of(chatId);
    const left = list.filter((message) => message.clientMsgId !== clientMsgId);
    if (left.length) this.#unsent.set(chatId, left);
    else this.#unsent.delete(chatId);
    this.#endUploads();
  }

  /** Nothing more is sent to a chat. @param {string} chatId */
  forget(chatId) {
    this.#unsent.delete(chatId);
    this.#endUploads();
  }

  clear() {
    this.#unsent.clear();
    this.#endUploads();
  }

  #endUploads() {
    for (const [message, abort] of this.#uploads) if (!this.#holds(message)) abort.abort();
  }

  #holds(message) {
    return this.of(message.chatId).includes(message);
  }

  /**
   * One at a time in a chat, or a retried message would fall behind a later one. Only texts do not
   * wait for files, which may take minutes.
   */
  async #sendAll(chatId, files) {
    const lane = `${chatId} ${files}`;
    if (this.#sending.has(lane)) return;
    this.#sending.add(lane);
    const isNext = ({ state, file }) => state === 'pending' && Boolean(file) === files;
    for (let message; (message = this.of(chatId).find(isNext)); ) await this.#deliver(message);
    this.#sending.delete(lane);
  }

  /** Sends until there is an answer: its id makes all attempts one message. @param {Unsent} message */
  async #deliver(message) {
    const patience = AbortSignal.timeout(SEND_PATIENCE_MS);
    for (let attempt = 0; ; attempt++) {
      await this.untilOnline(patience);
      // Meanwhile it may have been seen in the chat, been discarded, or the user signed out.
      if (!this.#holds(message)) return;
      try {
        const sent = await (message.file ? this.#upload(message) : this.#tell(message));
        // What was seen in the chat is gone from here already.
        return this.#holds(message) && this.onSent(sent);
      } catch (error) {
        if (!this.#holds(message)) return;
        // A file is not sent a second time unasked, unless there was no room to begin it.
        const final = message.file ? error.code !== 'rate_limited' : !error.retryable;
        if (final || patience.aborted) {
          Object.assign(message, { state: 'failed', error });
          return this.onChange(message.chatId);
        }
        await sleep(Math.max(error.retryAfterMs ?? 0, backoff(attempt)), patience);
      }
    }
  }

  async #tell({ chatId, clientMsgId, content, replyTo, quote, mentions }) {
    const draft = { chatId, clientMsgId, content, replyTo, mentions };
    const sent = await this.connection.request('send_message', draft);
    return { ...sent, ...this.#mine, contentType: 'text', content, replyTo, quote, mentions };
  }

  /** Uploads and sends in one step. @param {Unsent} message */
  async #upload(message) {
    const { chatId, clientMsgId, content, file, replyTo, quote } = message;
    const abort = new AbortController();
    const onProgress = (part) => this.onProgress(Object.assign(message, { part }));
    this.#uploads.set(message, abort);
    try {
      await firstByte(file);
      // What is said of the file goes first: if it is refused, the file need not go.
      const form = new FormData();
      form.append('clientMsgId', clientMsgId);
      if (replyTo) form.append('replyTo', replyTo);
      if (content) form.append('caption', content);
      else form.append('send', 'true');
      form.append('file', file, message.media.name);
      const url = `${this.session.origin}/v1/chats/${chatId}/media`;
      const send = (token) => upload(url, token, form, { signal: abort.signal, onProgress });
      const { media, message: sent } = await this.session.authorized(send);
      return { ...sent, ...this.#mine, contentType: 'media', content, media, replyTo, quote };
    } finally {
      this.#uploads.delete(message);
    }
  }

  get #mine() {
    const { user } = this.session;
    return { senderId: user?.id, sender: user };
  }
}

/** Of a message that is answered, until the server shows it. @param {import('./timeline.js').Entry} entry */
function quoteOf({ id, senderId, sender, contentType, content, media }) {
  return { id, senderId, senderName: sender?.name ?? 'Someone', contentType, content: content.slice(0, 100), media };
}

/** A folder, or what was deleted or changed since: a request would only say that it failed. */
async function firstByte(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new NatterError('bad_request', 'The file cannot be read.');
  }
}
