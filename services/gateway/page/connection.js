/**
 * A device's WebSocket: kept up over any number of connections, with requests and replies.
 */

import { NatterError, backoff, sleep } from './session.js';

/** Requests that wait for their reply at once. */
const MAX_PENDING = 64;
const REQUEST_TIMEOUT_MS = 10_000;
/** A connection that held this long was a good one: the next backoff starts from the bottom. */
const STABLE_MS = 10_000;

/** What the user is told when this device may no longer connect. */
export const REVOKED = 'This device was signed out.';

/** The same when nobody may connect as this user. */
export const DISABLED = 'This account is disabled.';

/** Why a connection ended; the server's own codes start at 4400. */
const CLOSED = {
  abnormally: 1006,
  unauthenticated: 4401,
  deviceRevoked: 4403,
  accountDisabled: 4423,
  tooManyConnections: 4409,
  rateLimited: 4429,
};

/**
 * @typedef {'offline'|'connecting'|'online'|'waiting'|'displaced'} State `waiting` to reconnect;
 *   `displaced` by another connection of this device: only `open` brings it back
 */

export class Connection {
  /** @type {State} */
  state = 'offline';

  /** From `open` to `close`, over all sockets. @type {?AbortController} */
  #lifetime = null;
  /**
   * The socket while it is ready; `signal` tells its end.
   * @type {?{socket: WebSocket, signal: AbortSignal, abandon: () => void}}
   */
  #live = null;
  #lastHeard = 0;
  /** @type {Map<number, (error: ?NatterError, data?: any) => void>} */
  #pending = new Map();
  #nextId = 1;
  /** Where this device stands on all its feeds: the next connection resumes from there. @type {?string} */
  #cursor = null;

  /**
   * @param {object} options
   * @param {import('./session.js').Session} options.session
   * @param {() => void} options.onState
   * @param {(signal: AbortSignal, resumed: boolean) => void} options.onReady connected; `signal` tells
   *   the end of it, `resumed` that whatever was missed comes as events
   * @param {() => void} options.onDown what only lives with a connection is gone
   * @param {(event: string, data: any) => void} options.onEvent
   * @param {() => Promise<unknown>} options.probe asks the server for anything
   */
  constructor({ session, onState, onReady, onDown, onEvent, probe }) {
    Object.assign(this, { session, onState, onReady, onDown, onEvent, probe });
  }

  /** Aborted when the present connection ends; null without one. @returns {?AbortSignal} */
  get signal() {
    return this.#live?.signal ?? null;
  }

  /** Connects, and stays connected until `close` or the end of the session. */
  open() {
    if (this.#lifetime || !this.session.user) return;
    const lifetime = (this.#lifetime = new AbortController());
    this.#stayConnected(lifetime.signal).finally(() => {
      if (this.#lifetime === lifetime) this.#lifetime = null;
    });
  }

  close() {
    this.#lifetime?.abort();
    this.#lifetime = null;
    this.#cursor = null;
    this.#setState('offline');
  }

  /**
   * Sends an event and waits for its reply.
   * @param {string} event @param {object} data
   * @returns {Promise<any>}
   */
  request(event, data) {
    const live = this.#live;
    const refuse = (code, message) =>
      Promise.reject(new NatterError(code, message, { outcome: 'not_sent' }));
    if (!live) return refuse('offline', 'Not connected.');
    if (this.#pending.size >= MAX_PENDING) return refuse('busy', 'Too many requests are waiting.');
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
      }, REQUEST_TIMEOUT_MS);
      this.#pending.set(id, settle);
      live.socket.send(JSON.stringify({ event, id, data }));
    });
  }

  /** Sends an event that may be lost and needs no reply. @param {string} event @param {object} data */
  tell(event, data) {
    this.#live?.socket.send(JSON.stringify({ event, data }));
  }

  /** @param {AbortSignal} signal */
  async #stayConnected(signal) {
    for (let failures = 0; !signal.aborted; ) {
      this.#setState('connecting');
      let end = { code: CLOSED.abnormally, heldMs: 0, wasReady: false, afterMs: undefined };
      try {
        end = await this.#connection(await this.session.token(), signal);
        if (end.code === CLOSED.unauthenticated) await this.session.refresh();
        const refused = end.code === CLOSED.abnormally && !end.wasReady;
        // A browser hides why. REST does not, and on the way it refreshes the token or finds that
        // the session has ended.
        if (refused) await this.session.rest('GET', '/users/me');
      } catch {
        // No network, or no session any more: then the signal is aborted.
      }
      if (signal.aborted) return;
      if (end.code === CLOSED.deviceRevoked) return this.session.close(REVOKED);
      if (end.code === CLOSED.accountDisabled) return this.session.close(DISABLED);
      // Coming back by itself would push out another connection of this device, and so on.
      if (end.code === CLOSED.tooManyConnections) return this.#setState('displaced');
      failures = end.heldMs > STABLE_MS ? 0 : failures + 1;
      this.#setState('waiting');
      await pause(reconnectDelay(end, failures), signal);
    }
  }

  /**
   * One connection, from the handshake to its end.
   * @param {string} token @param {AbortSignal} signal
   * @returns {Promise<{code: number, heldMs: number, wasReady: boolean, afterMs?: number}>}
   */
  #connection(token, signal) {
    return new Promise((resolve) => {
      // A browser cannot set headers on a WebSocket, and URLs end up in logs: so the token travels
      // among the subprotocols.
      const resume = this.#cursor ? `?cursor=${this.#cursor}` : '';
      const url = `${this.session.origin.replace(/^http/, 'ws')}/v1/ws${resume}`;
      const socket = new WebSocket(url, ['natter.v1', `bearer.${token}`]);
      const ended = new AbortController();
      const begun = Date.now();
      let afterMs, prober;

      const finish = (code) => {
        if (ended.signal.aborted) return;
        ended.abort();
        clearTimeout(deadline);
        clearInterval(prober);
        signal.removeEventListener('abort', abandon);
        const wasReady = this.#live?.socket === socket;
        if (wasReady) this.#down();
        resolve({ code, heldMs: Date.now() - begun, wasReady, afterMs });
      };
      // Not waiting for the close event: on a dead network it takes minutes.
      const abandon = () => {
        socket.close();
        finish(CLOSED.abnormally);
      };
      const deadline = setTimeout(abandon, REQUEST_TIMEOUT_MS);
      signal.addEventListener('abort', abandon);

      socket.onclose = ({ code }) => finish(code);
      socket.onmessage = ({ data: text }) => {
        if (ended.signal.aborted) return;
        this.#lastHeard = Date.now();
        const { event, reply, data, error, cursor } = JSON.parse(text);
        // A reply carries one too, when it stands at its message's place in the feed.
        if (cursor) this.#cursor = cursor;
        if (reply !== undefined) return this.#onReply(reply, data, error);
        if (event === 'reconnect') afterMs = data.afterMs; // the close follows
        if (event === 'resume_done') return void (this.#cursor = data.cursor);
        if (event !== 'ready') return this.onEvent(event, data);
        this.#cursor = data.cursor;
        clearTimeout(deadline);
        this.#live = { socket, signal: ended.signal, abandon };
        prober = setInterval(() => this.#probe(2 * data.heartbeatMs), data.heartbeatMs);
        this.#setState('online');
        this.onReady(ended.signal, data.resumed);
      };
    });
  }

  /** A page does not see the server's pings. When all is quiet, any answer proves it alive. */
  #probe(quietMs) {
    if (Date.now() - this.#lastHeard > quietMs) this.probe().catch(() => {});
  }

  #onReply(id, data, error) {
    const { code, message, ...more } = error ?? {};
    this.#pending.get(id)?.(error ? new NatterError(code, message, more) : null, data);
  }

  #down() {
    this.#live = null;
    for (const settle of this.#pending.values()) {
      settle(new NatterError('offline', 'The connection was lost.', { outcome: 'unknown' }));
    }
    this.onDown();
  }

  /** @param {State} state */
  #setState(state) {
    if (state === this.state) return;
    this.state = state;
    this.onState();
  }
}

/**
 * @param {{code: number, afterMs?: number}} end how the connection ended
 * @param {number} failures in a row, this one included
 * @returns {number} milliseconds to wait before the next one
 */
function reconnectDelay({ code, afterMs }, failures) {
  if (code === CLOSED.unauthenticated && failures <= 1) return 0; // the token is fresh now
  if (code === CLOSED.rateLimited) return 5_000 + backoff(failures);
  return afterMs ?? backoff(failures);
}

/**
 * Waits, but no longer than until the network is back.
 * @param {number} ms @param {AbortSignal} signal
 */
async function pause(ms, signal) {
  const wake = new AbortController();
  const options = { signal: wake.signal };
  globalThis.addEventListener('online', () => wake.abort(), options);
  signal.addEventListener('abort', () => wake.abort(), options);
  await sleep(ms, wake.signal);
  wake.abort();
}
