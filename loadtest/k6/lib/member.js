/**
 * A member of a chat: somebody's one device. It keeps its connection up until it is told to leave,
 * comes back to the next gateway with its cursor, and keeps its token fresh.
 */

import { now, sleep } from './clock.js';
import * as metrics from './metrics.js';
import { call } from './rest.js';
import { urls } from './settings.js';

/** A connection that is not `ready` by then is given up, and tried elsewhere. */
const READY_MS = 20_000;
/** A request that is not answered by then has an outcome that nobody knows. */
const REPLY_MS = 15_000;
/** Between two tries to connect: at random up to here, doubled each time, up to the most. */
const BACK_OFF_MS = 200;
const BACK_OFF_MOST_MS = 5_000;
/** A token is renewed when it has this share of its time left, at the least. */
const RENEW_SHARE = 0.3;

export class Member {
  /** Whether it is connected and has been told all that it missed. */
  up = false;
  /** Counts connections: what was seen on one may not be asked of another. */
  connection = 0;

  #account;
  #dial;
  #tags;
  #onEvent;
  #turn;
  #wire = null;
  #cursor = null;
  #requests = new Map();
  #asked = 0;
  #tries = 0;
  #left = false;
  #timers = new Set();
  #waiting = [];

  /**
   * @param {object} account as `gather` made it
   * @param {object} how
   * @param {Function} how.dial `native`, or one of Socket.IO's
   * @param {number} how.turn which gateway it comes to first
   * @param {object} how.tags of its metrics
   * @param {(event: string, data: object) => void} how.onEvent
   */
  constructor(account, { dial, turn, tags, onEvent }) {
    this.#account = account;
    this.#dial = dial;
    this.#turn = turn;
    this.#tags = tags;
    this.#onEvent = onEvent;
  }

  get id() {
    return this.#account.id;
  }

  get token() {
    return this.#account.token;
  }

  /** Connects, and stays connected. */
  come() {
    this.#connect();
    this.#renewLater();
  }

  /** Waits until it is up; who waits first goes first. @returns {Promise<boolean>} */
  here(ms) {
    if (this.up) return Promise.resolve(true);
    return new Promise((done) => {
      const timer = this.#later(ms, () => done(false));
      this.#waiting.push(() => {
        this.#forget(timer);
        done(true);
      });
    });
  }

  /** Cuts the connection, as a phone that loses its network; it comes back by itself. */
  drop() {
    if (this.up) this.#down(true);
  }

  /** Ends the connection for good. */
  leave() {
    this.#left = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#down(true);
  }

  /**
   * Asks, and waits for the reply.
   * @returns {Promise<object>} its data; rejects with `{code, retryAfterMs?}`, `cut` where the
   *   connection ended before
   */
  request(event, data) {
    if (!this.up) return Promise.reject({ code: 'cut' });
    this.#asked += 1;
    const id = this.#asked;
    return new Promise((done, failed) => {
      const timer = this.#later(REPLY_MS, () => {
        this.#requests.delete(id);
        failed({ code: 'timeout' });
      });
      this.#requests.set(id, { done, failed, timer });
      this.#wire.send(event, id, data);
    });
  }

  #connect() {
    const began = now();
    const resuming = this.#cursor !== null;
    const base = urls[this.#turn % urls.length];
    this.#turn += 1;
    this.connection += 1;
    const connection = this.connection;
    // What comes after it was given up was not received: the next connection is told again.
    const live = () => connection === this.connection;
    const patience = this.#later(READY_MS, () => {
      if (live()) this.#lost('not_ready');
    });
    const here = (metric) => {
      this.#forget(patience);
      this.#tries = 0;
      this.up = true;
      metric.add(now() - began, this.#tags);
      for (const go of this.#waiting.splice(0)) go();
    };
    this.#wire = this.#dial(base, { token: this.#account.token, cursor: this.#cursor }, {
      frame: (frame) => live() && this.#take(frame, resuming, here),
      closed: (code) => {
        this.#forget(patience);
        if (live()) this.#lost(`closed_${code}`);
      },
    });
  }

  #take(frame, resuming, here) {
    const { event, data, cursor } = frame;
    if (cursor) this.#cursor = cursor;
    if (frame.reply !== undefined) this.#settle(frame);
    else if (event === 'ready') this.#ready(data, cursor, resuming, here);
    else if (event === 'resume_done') {
      this.#cursor = cursor || data.cursor;
      metrics.resumed.add(1, this.#tags);
      here(metrics.resume);
    } else if (event === 'exception' || event === 'refused') this.#fail(data?.code || event);
    else this.#onEvent(event, data);
  }

  #ready(data, cursor, resuming, here) {
    if (resuming && data.resumed) return;
    this.#cursor = cursor || data.cursor;
    if (resuming) {
      metrics.unresumed.add(1, this.#tags);
      this.#fail(`not_resumed_${data.resumeReason}`);
    }
    here(metrics.connect);
  }

  #settle({ reply, data, error }) {
    const request = this.#requests.get(reply);
    if (!request) return;
    this.#requests.delete(reply);
    this.#forget(request.timer);
    if (error) request.failed(error);
    else request.done(data);
  }

  #lost(why) {
    if (this.up) metrics.cuts.add(1, { ...this.#tags, what: why });
    else this.#fail(why);
    this.#down(false);
  }

  #fail(what) {
    metrics.failed(what, this.#tags);
  }

  #down(ours) {
    const wire = this.#wire;
    this.#wire = null;
    this.up = false;
    this.connection += 1;
    for (const { failed, timer } of this.#requests.values()) {
      this.#forget(timer);
      failed({ code: 'cut' });
    }
    this.#requests.clear();
    // One that was never open, or is closed already, has nothing to close.
    try {
      wire?.close();
    } catch (_) {
      // Nor has one that k6 is still dialling.
    }
    if (this.#left) return;
    // Somebody whom we cut comes back at once, as in a storm.
    const most = Math.min(BACK_OFF_MOST_MS, BACK_OFF_MS * 2 ** this.#tries);
    this.#tries += 1;
    this.#later(ours ? 0 : Math.random() * most, () => this.#connect());
  }

  #later(ms, act) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, ms);
    this.#timers.add(timer);
    return timer;
  }

  #forget(timer) {
    clearTimeout(timer);
    this.#timers.delete(timer);
  }

  #renewLater() {
    const left = this.#account.expiresAt - Date.now();
    this.#later(Math.max(1_000, left * (1 - RENEW_SHARE)), () => this.#renew());
  }

  async #renew() {
    const { refreshToken } = this.#account;
    const base = urls[this.#turn % urls.length];
    const response = await call('refresh', base, '/auth/refresh', { body: { refreshToken } });
    if (this.#left) return;
    if (response.status !== 200) {
      this.#fail(`refresh_${response.status}`);
      await sleep(1_000);
    } else {
      const answer = response.json();
      this.#account = {
        ...this.#account,
        token: answer.accessToken,
        refreshToken: answer.refreshToken,
        expiresAt: Date.parse(answer.expiresAt),
      };
      // The connection lives as long as its token; one that is just coming back shows the new one.
      await this.request('authenticate', { token: answer.accessToken }).catch(() => {});
    }
    if (!this.#left) this.#renewLater();
  }
}
