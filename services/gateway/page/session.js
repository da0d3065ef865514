/**
 * A signed-in device: its tokens, and REST calls in its name.
 *
 * - {@link Session}: register, log in, refresh with rotation, log out; authenticated calls
 * - {@link NatterError}: whatever went wrong, with the server's stable `code`; {@link failure}
 *   reads it from an answer
 * - {@link backoff}, {@link sleep}: how long to wait before trying again, and waiting
 */

const REST_TIMEOUT_MS = 15_000;
/** Timers take no more than 2^31 ms; renewing a long-lived token early does no harm. */
const MAX_TIMER_MS = 12 * 3_600_000;
/** A token is renewed after this part of its life, so that a failing refresh has time to repeat. */
const RENEW_AFTER = 0.75;

/**
 * @typedef {{id: string, name: string}} User
 * @typedef {{user: User, device: {id: string}, accessToken: string, refreshToken: string,
 *   expiresAt: string}} Tokens as register, log in and refresh answer
 * @typedef {{tokens: ?(Tokens & {renewAt: number}), login: ?string, deviceId: ?string}} Saved
 *   `renewAt` by this machine's clock, ms since 1970; `deviceId` is the device of `login`, kept
 *   when it signs out, so that it is the same device when it comes back
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
 * Exponential backoff with full jitter: after a node's death all its clients come back, and any
 * delay that they share would bring them back at the same moment.
 * @param {number} attempt from 0
 * @returns {number} milliseconds
 */
export function backoff(attempt) {
  return Math.random() * Math.min(30_000, 500 * 2 ** attempt);
}

/**
 * @param {number} ms
 * @param {AbortSignal} [signal] ends the wait early, without an error
 * @returns {Promise<void>}
 */
export function sleep(ms, signal) {
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

/** The tokens of one device, always fresh, and what can be asked with them. */
export class Session {
  /** @type {Saved} */
  #saved;
  /** @type {?Promise<void>} */
  #refreshing = null;
  #timer = 0;
  /** How far the server's clock is ahead of this machine's. */
  #skewMs = 0;

  /**
   * @param {object} options
   * @param {string} options.origin of the server
   * @param {{load: () => ?Saved, save: (saved: Saved) => void}} options.store keeps the session
   *   beyond this page
   * @param {() => void} options.onRenewed there is a new access token
   * @param {(reason: string) => void} options.onEnded signed out, or refused by the server
   */
  constructor({ origin, store, onRenewed, onEnded }) {
    this.origin = origin;
    this.store = store;
    this.onRenewed = onRenewed;
    this.onEnded = onEnded;
    this.#saved = store.load() ?? { tokens: null, login: null, deviceId: null };
    if (this.#saved.tokens) this.#scheduleRenewal();
  }

  /** @returns {?User} */
  get user() {
    return this.#saved.tokens?.user ?? null;
  }

  /** @returns {?string} */
  get deviceId() {
    return this.#saved.deviceId;
  }

  /** The time on the server, ms since 1970; good to about a second. */
  get serverNow() {
    return Date.now() + this.#skewMs;
  }

  /**
   * @param {'register'|'login'} how
   * @param {{name?: string, email?: string, phone?: string, password: string,
   *   device?: {name?: string, platform?: string}}} account
   */
  async begin(how, account) {
    const login = (account.email ?? account.phone).toLowerCase();
    const id = how === 'login' && this.#saved.login === login ? this.#saved.deviceId : undefined;
    const device = { ...account.device, ...(id && { id }) };
    this.#adopt(await this.#fetch('POST', `/auth/${how}`, { ...account, device }), login);
  }

  /** Signs out here and on the server; here even when the server cannot be reached. */
  async end() {
    try {
      await this.#refreshing; // else the rotated token would outlive the session it came from
      await this.rest('POST', '/auth/logout');
    } catch {
      // The tokens are forgotten below; the refresh token is never used again.
    }
    this.close('You are signed out.');
  }

  /** Forgets the tokens. @param {string} reason a sentence for the user */
  close(reason) {
    if (!this.#saved.tokens) return;
    clearTimeout(this.#timer);
    this.#save({ ...this.#saved, tokens: null });
    this.onEnded(reason);
  }

  /** Forgets even who it was. @param {string} reason a sentence for the user */
  forget(reason) {
    this.close(reason);
    this.#save({ tokens: null, login: null, deviceId: null });
  }

  /** An access token that is good for a while. @returns {Promise<string>} */
  async token() {
    if (this.#tokens.renewAt <= Date.now()) await this.refresh();
    return this.#tokens.accessToken;
  }

  /**
   * Exchanges the refresh token. It works once, and a second use looks like theft to the server
   * and ends the session: hence one exchange at a time, whoever asks for it.
   * @returns {Promise<void>}
   */
  refresh() {
    this.#refreshing ??= this.#rotate().finally(() => (this.#refreshing = null));
    return this.#refreshing;
  }

  /**
   * An authenticated call.
   * @param {string} method @param {string} path below `/v1` @param {object} [body]
   * @returns {Promise<any>}
   */
  rest(method, path, body) {
    return this.authorized((token) => this.#fetch(method, path, body, token));
  }

  /**
   * An authenticated call that is never repeated: for when 401 tells of what is in `body`.
   * @param {string} method @param {string} path below `/v1` @param {object} [body]
   * @returns {Promise<any>}
   */
  async restOnce(method, path, body) {
    return this.#fetch(method, path, body, await this.token());
  }

  /**
   * Calls with an access token; when the token turns out to be stale, with the next one.
   * @template T
   * @param {(token: string) => Promise<T>} call
   * @returns {Promise<T>}
   */
  async authorized(call) {
    const token = await this.token();
    try {
      return await call(token);
    } catch (error) {
      if (error.status !== 401) throw error;
      // Unless another call has refreshed it in the meantime.
      if (token === this.#tokens.accessToken) await this.refresh();
      return call(this.#tokens.accessToken);
    }
  }

  get #tokens() {
    if (!this.#saved.tokens) throw new NatterError('unauthenticated', 'Signed out.');
    return this.#saved.tokens;
  }

  /** @param {Saved} saved */
  #save(saved) {
    this.#saved = saved;
    this.store.save(saved);
  }

  /** @param {Tokens} tokens @param {?string} login */
  #adopt(tokens, login) {
    const lifetime = Date.parse(tokens.expiresAt) - this.serverNow;
    const renewAt = Date.now() + Math.max(1_000, lifetime * RENEW_AFTER);
    this.#save({ tokens: { ...tokens, renewAt }, login, deviceId: tokens.device.id });
    this.#scheduleRenewal();
  }

  #scheduleRenewal(afterMs = Math.max(0, this.#tokens.renewAt - Date.now())) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => this.refresh().catch(() => this.#saved.tokens && this.#scheduleRenewal(1_000 + backoff(3))),
      Math.min(afterMs, MAX_TIMER_MS),
    );
  }

  async #rotate() {
    const { refreshToken } = this.#tokens;
    try {
      this.#adopt(await this.#fetch('POST', '/auth/refresh', { refreshToken }), this.#saved.login);
    } catch (error) {
      const ended = error.status === 401 || error.status === 403;
      if (ended) this.close('The session has ended: please log in again.');
      throw error;
    }
    this.onRenewed();
  }

  async #fetch(method, path, body, token) {
    const headers = { accept: 'application/json' };
    if (token) headers.authorization = `Bearer ${token}`;
    if (body !== undefined) headers['content-type'] = 'application/json';
    let response, text;
    try {
      response = await fetch(`${this.origin}/v1${path}`, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: AbortSignal.timeout(REST_TIMEOUT_MS),
        cache: 'no-store',
        credentials: 'omit',
      });
      text = await response.text();
    } catch {
      throw new NatterError('offline', 'The server cannot be reached.', { outcome: 'unknown' });
    }
    const date = Date.parse(response.headers.get('date') ?? '');
    if (date) this.#skewMs = date - Date.now();
    const answer = parse(text);
    if (response.ok) return answer;
    throw failure(response.status, response.headers.get('retry-after'), answer);
  }
}

/**
 * What an answer says that is none.
 * @param {number} status @param {?string} retryAfter the header
 * @param {any} answer its body, if that was JSON
 */
export function failure(status, retryAfter, answer) {
  const seconds = Number(retryAfter);
  return new NatterError(
    answer?.code ?? (status >= 500 ? 'unavailable' : 'bad_request'),
    answer?.detail ?? answer?.message ?? answer?.title ?? `HTTP ${status}`,
    {
      status,
      retryAfterMs: answer?.retryAfterMs ?? (seconds ? seconds * 1000 : undefined),
      outcome: answer?.outcome,
    },
  );
}

/** @param {string} text @returns {any} null for an empty body, or a proxy's own error page */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
