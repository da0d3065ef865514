/**
 * Notifications of this device while no page of it is open: what the server is told of them, and what the
 * user wants to be notified of.
 */

/**
 * @typedef {{from: string, until: string, timeZone: string}} QuietHours
 * @typedef {{preview: 'full'|'sender'|'none', mentionsThroughMute: boolean,
 *   quietHours: ?QuietHours}} Wishes
 * @typedef {{provider: string, gone: boolean, last?: {state: string, answer?: string, at: string}}} Target
 */

export class Notifications {
  /** @param {import('./session.js').Session} session */
  constructor(session) {
    this.session = session;
  }

  /** What browsers subscribe with; none where the server does not do Web Push. @returns {Promise<?string>} */
  async key() {
    return (await this.session.rest('GET', '/push/key')).publicKey ?? null;
  }

  /**
   * This device is notified by this subscription from now on, and no other is; also to renew it.
   * @param {PushSubscription} subscription
   * @returns {Promise<Target>}
   */
  register(subscription) {
    return this.session.rest('PUT', this.#path(), { provider: 'webpush', ...subscription.toJSON() });
  }

  /** @returns {Promise<?Target>} none while this device has not registered */
  target() {
    return this.#unlessMissing(this.session.rest('GET', this.#path()));
  }

  /** This device is notified no more. */
  drop() {
    return this.#unlessMissing(this.session.rest('DELETE', this.#path()));
  }

  /** Notifies this device of nothing; what comes of it is in {@link target}. */
  test() {
    return this.session.rest('POST', `${this.#path()}/test`, {});
  }

  /** @returns {Promise<Wishes>} */
  wishes() {
    return this.session.rest('GET', '/users/me/notifications');
  }

  /** @param {Partial<Wishes>} wishes @returns {Promise<Wishes>} */
  wish(wishes) {
    return this.session.rest('PATCH', '/users/me/notifications', wishes);
  }

  #path() {
    return `/devices/${this.session.deviceId}/push`;
  }

  async #unlessMissing(call) {
    try {
      return await call;
    } catch (error) {
      if (error.code === 'not_found') return null;
      throw error;
    }
  }
}
