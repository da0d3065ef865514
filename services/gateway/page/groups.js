/**
 * Managing groups, and who is blocked: calls of REST.
 *
 * What they change comes back over the socket, to all devices of all whom it concerns; so nothing is
 * kept here but whom the user has blocked.
 */

/** Items of a page. */
const PAGE = 100;
/** Pages of blocked people that are kept. */
const MAX_BLOCK_PAGES = 10;

/**
 * @typedef {'owner'|'admin'|'member'} Role
 * @typedef {{id: string, createdAt: string, expiresAt: string, uses: number, maxUses?: number}} Invite
 *   a link into a group, without the code that is shared
 * @typedef {{chatId: string, title: string, description?: string, participantCount: number,
 *   expiresAt: string}} Invitation what a link leads to
 */

export class Groups {
  /**
   * @param {import('./session.js').Session} session
   * @param {(chat: import('./natter.js').Chat) => import('./natter.js').Chat} learn
   */
  constructor(session, learn) {
    Object.assign(this, { session, learn });
  }

  /** @param {string} chatId @param {string[]} userIds all of them, or none */
  async add(chatId, userIds) {
    return this.learn(await this.#call('POST', chatId, '/participants', { userIds }));
  }

  /** @param {string} chatId @param {string} userId @param {boolean} ban they may not come back */
  remove(chatId, userId, ban) {
    return this.#call('DELETE', chatId, `/participants/${userId}${ban ? '?ban=true' : ''}`);
  }

  /**
   * @param {string} chatId @param {string} userId @param {Role} role
   * @param {boolean} [transfer] with `owner`: the user becomes an admin in the same change
   */
  setRole(chatId, userId, role, transfer = false) {
    return this.#call('PATCH', chatId, `/participants/${userId}`, { role, transfer });
  }

  /**
   * @param {string} chatId
   * @param {{title?: string, description?: ?string, open?: boolean, retentionSecs?: ?number}} change
   *   `retentionSecs` also of one-to-ones
   */
  async update(chatId, change) {
    return this.learn(await this.#call('PATCH', chatId, '', change));
  }

  /** Deletes a group for everybody. @param {string} chatId */
  delete(chatId) {
    return this.#call('DELETE', chatId, '');
  }

  /** The first of those who may not come back. @param {string} chatId */
  async bans(chatId) {
    return (await this.#call('GET', chatId, `/bans?limit=${PAGE}`)).items;
  }

  /** @param {string} chatId @param {string} userId */
  liftBan(chatId, userId) {
    return this.#call('DELETE', chatId, `/bans/${userId}`);
  }

  /** @param {string} chatId @returns {Promise<Invite[]>} */
  async invites(chatId) {
    return (await this.#call('GET', chatId, '/invites')).items;
  }

  /** Makes a link into a group: the only time that its code is told. @param {string} chatId */
  invite(chatId) {
    return this.#call('POST', chatId, '/invites', {});
  }

  /** @param {string} chatId @param {string} inviteId */
  revokeInvite(chatId, inviteId) {
    return this.#call('DELETE', chatId, `/invites/${inviteId}`);
  }

  /** @param {string} code @returns {Promise<Invitation>} */
  invitation(code) {
    return this.session.rest('GET', `/invites/${encodeURIComponent(code)}`);
  }

  /** @param {string} code @returns {Promise<import('./natter.js').Chat>} */
  async join(code) {
    return this.learn((await this.session.rest('POST', `/invites/${encodeURIComponent(code)}/join`)).chat);
  }

  #call(method, chatId, path, body) {
    return this.session.rest(method, `/chats/${chatId}${path}`, body);
  }
}

/** Whom the user has blocked, on whichever device. */
export class Blocks {
  /** Names, by user id. @type {Map<string, string>} */
  people = new Map();

  /**
   * @param {import('./session.js').Session} session
   * @param {() => void} onChange
   */
  constructor(session, onChange) {
    Object.assign(this, { session, onChange });
  }

  async refresh() {
    const people = new Map();
    let cursor = '';
    for (let pages = 0; pages < MAX_BLOCK_PAGES && cursor !== null; pages++) {
      const query = new URLSearchParams({ limit: String(PAGE), ...(cursor && { cursor }) });
      const page = await this.session.rest('GET', `/blocks?${query}`);
      for (const { user } of page.items) people.set(user.id, user.name);
      cursor = page.nextCursor ?? null;
    }
    this.people = people;
    this.onChange();
  }

  /** @param {string} userId @param {string} name @param {boolean} blocked from now on */
  async set(userId, name, blocked) {
    await this.session.rest(blocked ? 'PUT' : 'DELETE', `/users/${userId}/block`);
    this.told(userId, name, blocked);
  }

  /** Here, or on another of the user's devices. */
  told(userId, name, blocked) {
    if (blocked) this.people.set(userId, name);
    else this.people.delete(userId);
    this.onChange();
  }
}
