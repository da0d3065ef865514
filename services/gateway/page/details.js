/**
 * The details of the open chat: its participants and what they may do, its links, who is banned, and
 * what the user wants of it. `keeping.js` has for how long it keeps messages, `exports.js` its archive.
 *
 * Everything is drawn from the client's state, which a change reaches by way of the server: whoever
 * made it. Only links and bans are asked for, when they are opened.
 */

import { Export } from './exports.js';
import { Keeping } from './keeping.js';
import { choice, openMenu } from './menu.js';
import { $, avatar, el, presenceDot, presenceText, searchBox, when } from './view.js';

const HOUR_MS = 3_600_000;

/** @typedef {import('./natter.js').Participant} Participant */

export class Details {
  /** @type {?string} */
  #chatId = null;
  /** Participants beyond those that the chat itself lists. */
  #more = { items: [], cursor: '' };

  /**
   * @param {import('./natter.js').NatterClient} client
   * @param {(problem: Error|string) => void} notify
   */
  constructor(client, notify) {
    this.client = client;
    this.notify = notify;
    const on = (id, act) => $(id).addEventListener('click', (event) => this.#try(() => act(event)));
    on('leave', () => this.#leave());
    on('delete-group', () => this.#delete());
    on('more-participants', () => this.#moreParticipants());
    on('mute', ({ currentTarget }) => this.#mute(currentTarget));
    on('hide', () => this.#hide());
    on('block', () => this.#block(this.#other));
    on('invite-make', () => this.#invite());
    on('invite-copy', () => navigator.clipboard.writeText($('invite-link').value));
    $('info-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#try(() => this.#change());
    });
    $('info-edit').addEventListener('toggle', () => this.#fillForm());
    $('info-invites').addEventListener('toggle', ({ target }) => target.open && this.#try(() => this.#listInvites()));
    $('info-bans').addEventListener('toggle', ({ target }) => target.open && this.#try(() => this.#listBans()));
    this.keeping = new Keeping(client, () => this.#chat, (act) => this.#try(act));
    this.archive = new Export('chat-export', client, () => this.#archive(), (error) => this.#fail(error));
    $('chat-export').addEventListener('click', () => ($('info-error').textContent = ''));
    searchBox($('add-search'), (text) => this.#search(text), (error) => this.#fail(error));
  }

  /** @returns {import('./natter.js').Chat|undefined} */
  get #chat() {
    return this.client.chats.get(this.#chatId);
  }

  /** The other one of a one-to-one. */
  get #other() {
    return this.#chat.participants.find(({ id }) => id !== this.client.user.id);
  }

  /** @param {string} chatId */
  open(chatId) {
    this.#chatId = chatId;
    this.#more = { items: [], cursor: '' };
    for (const part of $('info-dialog').querySelectorAll('details')) part.open = false;
    for (const list of ['add-found', 'invites', 'bans']) $(list).replaceChildren();
    for (const input of ['add-search', 'invite-link']) $(input).value = '';
    $('invite-made').hidden = true;
    $('info-error').textContent = '';
    this.keeping.open();
    this.archive.clear();
    $('info-dialog').showModal();
    this.render();
  }

  /** Something of the chat may have changed. */
  render() {
    if (!$('info-dialog').open) return;
    const { client } = this;
    const chat = this.#chat;
    if (!chat) return $('info-dialog').close();
    const { isGroup, me } = chat;
    const manages = isGroup && me.role !== 'member';
    const owns = isGroup && me.role === 'owner';
    $('info-title').textContent = me.name;
    $('info-description').textContent = chat.description ?? '';
    $('info-kind').textContent = isGroup
      ? `A group, ${chat.open ? 'open to whoever has its id' : 'private'}.`
      : `Between you and ${me.name}.`;
    $('info-id').textContent = chat.id;
    const muted = client.isMuted(chat);
    $('mute').textContent = muted ? 'Unmute' : 'Mute';
    const until = muted && me.mutedUntil && new Date(me.mutedUntil);
    $('muted-until').textContent = until ? `Muted until ${until.toLocaleString()}` : muted ? 'Muted' : '';
    for (const id of ['hide', 'block']) $(id).hidden = isGroup;
    if (!isGroup) $('block').textContent = client.blocks.people.has(this.#other?.id) ? 'Unblock' : 'Block';
    for (const id of ['info-edit', 'info-add', 'info-invites', 'info-bans']) $(id).hidden = !manages;
    $('info-open-field').hidden = !owns;
    $('leave').hidden = !isGroup;
    $('delete-group').hidden = !owns;
    this.keeping.render(chat);
    this.#renderPeople(chat, manages, owns);
  }

  /** Does what was asked for; what fails is said in the dialog. */
  async #try(act) {
    $('info-error').textContent = '';
    try {
      await act();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error) {
    if ($('info-dialog').open) $('info-error').textContent = error.message;
    else this.notify(error);
  }

  // ---- Participants --------------------------------------------------------------------------

  #renderPeople(chat, manages, owns) {
    const listed = new Set(chat.participants.map(({ id }) => id));
    const people = [...chat.participants, ...this.#more.items.filter(({ id }) => !listed.has(id))];
    $('participants-title').textContent = `${chat.participantCount} participants`;
    const focused = $('participants').contains(document.activeElement) && document.activeElement.dataset.of;
    $('participants').replaceChildren(...people.map((person) => this.#participant(person, manages, owns)));
    $('more-participants').hidden = people.length >= chat.participantCount || this.#more.cursor === null;
    if (focused) $('participants').querySelector(`[data-of="${focused}"]`)?.focus();
  }

  /** @param {Participant} person @param {boolean} manages @param {boolean} owns */
  #participant(person, manages, owns) {
    const { id, name, role } = person;
    const own = id === this.client.user.id;
    const blocked = this.client.blocks.people.has(id);
    const presence = own ? { online: this.client.state === 'online' } : this.client.presence.get(id);
    const about = [role !== 'member' && role, blocked && 'blocked', presenceText(presence)].filter(Boolean);
    const label = `What to do with ${name}`;
    const more = { class: 'icon', type: 'button', 'aria-label': label, 'aria-expanded': 'false', 'data-of': id };
    const open = ({ currentTarget }) => this.#openMenu(currentTarget, person, manages, owns);
    const may = own ? this.#chat.isGroup && role !== 'member' : true;
    return el(
      'li',
      {},
      avatar(name, id),
      el(
        'span',
        { class: 'grow' },
        el('span', { class: 'name', dir: 'auto' }, own ? `${name} (you)` : name),
        el('span', { class: 'sub' }, about.join(', ')),
      ),
      presenceDot(Boolean(presence?.online)),
      may && el('button', { ...more, onclick: open }, '⋯'),
    );
  }

  #openMenu(button, { id, name, role }, manages, owns) {
    const { groups, blocks } = this.client;
    const chatId = this.#chatId;
    const own = id === this.client.user.id;
    const ask = (text, act) => () => confirm(text) && this.#try(act);
    const become = (to) => choice(`Make ${to === 'member' ? 'a' : 'an'} ${to}`, () => this.#try(() => groups.setRole(chatId, id, to)));
    const step = (to) =>
      choice(`Step down to ${to}`, ask(`Step down to ${to}?`, () => groups.setRole(chatId, id, to)));
    const handOver = ask(`Make ${name} the owner, and become an admin?`, () => groups.setRole(chatId, id, 'owner', true));
    const remove = (ban) => ask(`Remove ${name}${ban ? ', for good' : ''}?`, async () => {
      await groups.remove(chatId, id, ban);
      if (ban && $('info-bans').open) await this.#listBans();
    });
    const danger = { class: 'choice danger' };
    const removes = !own && manages && (owns || role === 'member');
    openMenu(
      button,
      name,
      own && role === 'owner' && step('admin'),
      own && role !== 'member' && step('member'),
      !own && choice('Write to', () => this.#try(() => this.#writeTo(id))),
      ...(owns && !own ? ['owner', 'admin', 'member'].filter((to) => to !== role).map(become) : []),
      owns && !own && role !== 'owner' && choice('Hand the group over', handOver),
      removes && choice('Remove', remove(false), danger),
      removes && choice('Remove and ban', remove(true), danger),
      !own && choice(blocks.people.has(id) ? 'Unblock' : 'Block', () => this.#try(() => this.#block({ id, name })), danger),
    );
  }

  async #moreParticipants() {
    const chatId = this.#chatId;
    const page = await this.client.participants(chatId, this.#more.cursor);
    if (chatId !== this.#chatId) return;
    this.#more = { items: [...this.#more.items, ...page.items], cursor: page.nextCursor ?? null };
    this.render();
  }

  /** Who could be added. */
  async #search(text) {
    const users = text ? await this.client.users(text) : [];
    return () => {
      const there = new Set(this.#chat?.participants.map(({ id }) => id));
      const rows = users
        .filter(({ id }) => !there.has(id))
        .map(({ id, name }) => {
          const add = () =>
            this.#try(async () => {
              await this.client.groups.add(this.#chatId, [id]);
              $('add-search').value = '';
              $('add-found').replaceChildren();
              $('add-search').focus();
            });
          const button = { type: 'button', class: 'person', 'aria-label': `Add ${name}`, onclick: add };
          return el('li', {}, el('button', button, avatar(name, id), el('span', { dir: 'auto' }, name)));
        });
      $('add-found').replaceChildren(...rows);
      $('add-none').textContent = text && !rows.length ? 'Nobody found who is not in it.' : '';
    };
  }

  async #writeTo(userId) {
    const chat = await this.client.createChat({ isGroup: false, participantIds: [userId] });
    $('info-dialog').close();
    location.hash = chat.id;
  }

  // ---- The group -----------------------------------------------------------------------------

  #fillForm() {
    const chat = this.#chat;
    if (!chat || !$('info-edit').open) return;
    $('info-new-title').value = chat.title ?? '';
    $('info-new-description').value = chat.description ?? '';
    $('info-open').checked = chat.open;
  }

  async #change() {
    const chat = this.#chat;
    const title = $('info-new-title').value.trim();
    const description = $('info-new-description').value.trim();
    const open = $('info-open').checked;
    // Only what is another: somebody else may be changing the rest.
    const change = {
      ...(title !== chat.title && { title }),
      ...(description !== (chat.description ?? '') && { description: description || null }),
      ...(chat.me.role === 'owner' && open !== chat.open && { open }),
    };
    if (Object.keys(change).length) await this.client.groups.update(chat.id, change);
    $('info-edit').open = false;
    $('info-edit').querySelector('summary').focus();
  }

  async #leave() {
    if (!confirm(`Leave “${this.#chat.me.name}”?`)) return;
    await this.client.leaveChat(this.#chatId);
    $('info-dialog').close();
  }

  async #delete() {
    const { id, me } = this.#chat;
    if (!confirm(`Delete “${me.name}” for everybody? Nobody can read it any more.`)) return;
    await this.client.groups.delete(id);
    $('info-dialog').close();
  }

  // ---- Links and bans ------------------------------------------------------------------------

  async #invite() {
    const { code } = await this.client.groups.invite(this.#chatId);
    $('invite-link').value = `${location.origin}/#invite=${code}`;
    $('invite-made').hidden = false;
    $('invite-link').select();
    await this.#listInvites();
  }

  async #listInvites() {
    const chatId = this.#chatId;
    const invites = await this.client.groups.invites(chatId);
    if (chatId !== this.#chatId) return;
    const rows = invites.map((invite) => {
      const revoke = async () => {
        await this.client.groups.revokeInvite(chatId, invite.id);
        await this.#listInvites();
        $('invite-make').focus();
      };
      const uses = `${invite.uses}${invite.maxUses ? ` of ${invite.maxUses}` : ''} came by it`;
      const until = el('span', { class: 'sub' }, `${uses}, good until `, when(invite.expiresAt));
      return this.#row(el('span', { class: 'grow' }, 'Made ', when(invite.createdAt), until), 'Revoke', revoke);
    });
    $('invites').replaceChildren(...rows);
  }

  async #listBans() {
    const chatId = this.#chatId;
    const bans = await this.client.groups.bans(chatId);
    if (chatId !== this.#chatId) return;
    const rows = bans.map(({ user }) => {
      const lift = async () => {
        await this.client.groups.liftBan(chatId, user.id);
        await this.#listBans();
        $('info-bans').querySelector('summary').focus();
      };
      return this.#row(el('span', { class: 'grow name', dir: 'auto' }, user.name), 'Let back in', lift, user.name);
    });
    $('bans').replaceChildren(...rows);
    $('no-bans').textContent = rows.length ? '' : 'Nobody is banned.';
  }

  #row(text, label, act, whom = '') {
    const button = { type: 'button', class: 'small', 'aria-label': `${label} ${whom}`.trim() };
    return el('li', {}, text, el('button', { ...button, onclick: () => this.#try(act) }, label));
  }

  /** What is fetched when the chat is asked for as a whole. */
  #archive() {
    const { id, me } = this.#chat;
    const { rights } = this.client;
    return { name: me.name, fetch: (files, transfer) => rights.exportChat(id, files, transfer) };
  }

  // ---- What the user wants of the chat ---------------------------------------------------------

  #mute(button) {
    const { client } = this;
    const chatId = this.#chatId;
    if (client.isMuted(this.#chat)) return client.unmute(chatId);
    const mute = (hours) => () =>
      this.#try(() => client.mute(chatId, hours && new Date(client.serverNow + hours * HOUR_MS)));
    return openMenu(
      button,
      'Mute',
      choice('For an hour', mute(1)),
      choice('For 8 hours', mute(8)),
      choice('For a week', mute(7 * 24)),
      choice('For ever', mute(null)),
    );
  }

  async #hide() {
    await this.client.hide(this.#chatId);
    $('info-dialog').close();
    location.hash = '';
  }

  /** @param {{id: string, name: string}} user */
  async #block({ id, name }) {
    const { blocks } = this.client;
    const blocked = blocks.people.has(id);
    if (!blocked && !confirm(`Block ${name}? In your one-to-one neither of you can write.`)) return;
    await blocks.set(id, name, !blocked);
  }
}
