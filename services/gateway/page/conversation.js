/**
 * The open chat: its messages and who types.
 */

import { Attachments } from './attachments.js';
import { Composer } from './composer.js';
import { Details } from './details.js';
import { summary } from './media.js';
import { Messages } from './message.js';
import { $, avatar, dayName, el, loadWhenSeen, presenceText, reconcile, systemText, typingText } from './view.js';

/** Characters of a message that are read out as it comes. */
const ANNOUNCED = 300;
/** For how long a message that was jumped to stands out. */
const SHOWN_MS = 2_500;
/** As near to the end as this counts as reading along. */
const NEAR_END_PX = 80;

export class Conversation {
  /** @type {?string} */
  chatId = null;

  /** What the list shows, by key. @type {Map<string, {look: string, node: HTMLElement}>} */
  #shown = new Map();
  /** Whether the end is in sight, and so should stay. */
  #atEnd = true;
  #oldestSeq = 0;
  /** What was unread when the chat was opened begins after this entry. */
  #readBefore = Infinity;

  /**
   * @param {import('./natter.js').NatterClient} client
   * @param {(error: Error|string) => void} notify
   */
  constructor(client, notify) {
    this.client = client;
    this.notify = notify;
    const { log } = this;
    this.attachments = new Attachments(client, log, notify);
    this.composer = new Composer(client, () => this.#toEnd(), notify);
    this.details = new Details(client, notify);
    this.messages = new Messages({
      client,
      notify,
      attachments: this.attachments,
      chat: () => this.chat,
      nameOf: (id, own) => this.#nameOf(id, own),
      onReply: (entry) => this.composer.answer(entry),
      onEdit: (entry) => this.composer.edit(entry),
      onQuote: (id) => this.jump((entry) => entry.id === id).catch(notify),
    });
    log.addEventListener('scroll', () => this.#onScroll());
    document.addEventListener('visibilitychange', () => this.#read());
    const resized = new ResizeObserver(() => this.#atEnd && this.#toEnd());
    for (const node of [log, $('entries')]) resized.observe(node);
    $('to-newest').addEventListener('click', () => this.#toEnd());
    $('entries').addEventListener('keydown', (event) => this.#step(event));
    loadWhenSeen($('older'), log, () => client.older(this.chatId), notify);
    $('chat-info').addEventListener('click', () => this.chat && this.details.open(this.chatId));
    $('unblock').addEventListener('click', () => {
      const { id, name } = this.#other ?? {};
      if (id) client.blocks.set(id, name, false).catch(notify);
    });
  }

  get log() {
    return $('log');
  }

  /** @returns {import('./natter.js').Chat|undefined} */
  get chat() {
    return this.client.chats.get(this.chatId);
  }

  /** @param {?string} chatId null for none */
  open(chatId) {
    if (chatId === this.chatId) return;
    if (this.chatId) {
      this.client.setTyping(this.chatId, false);
      this.client.closeChat(this.chatId);
    }
    this.chatId = chatId;
    this.#shown.clear();
    $('entries').replaceChildren();
    this.attachments.sweep();
    this.#atEnd = true;
    this.#readBefore = this.chat?.me.unreadCount ? this.chat.me.readSeq : Infinity;
    for (const name of ['info-dialog', 'picture-dialog']) $(name).close();
    $('shell').classList.toggle('has-open', chatId !== null);
    $('open-chat').hidden = chatId === null;
    $('nothing-open').hidden = chatId !== null;
    this.composer.open(chatId);
    if (!this.client.user) this.attachments.clear();
    if (!chatId) return;
    this.client.openChat(chatId);
    this.renderHead();
    this.renderEntries();
    this.renderTyping();
    this.composer.message.focus();
  }

  // ---- Messages ------------------------------------------------------------------------------

  renderEntries() {
    const timeline = this.client.timelines.get(this.chatId);
    if (!timeline) return;
    const { log } = this;
    if (this.#atEnd) timeline.trim();
    const fromEnd = log.scrollHeight - log.scrollTop;
    const oldest = timeline.entries[0]?.seq ?? 0;
    const grownAbove = this.#shown.size > 0 && oldest < this.#oldestSeq;
    this.#oldestSeq = oldest;

    reconcile($('entries'), this.#shown, this.#items(timeline.entries));
    this.attachments.sweep();
    this.#oneTabStop();
    $('older').hidden = !timeline.hasOlder;
    $('log-empty').hidden = this.#shown.size > 0;
    $('log-empty').textContent = timeline.loaded ? 'No messages yet.' : 'Loading…';

    if (this.#atEnd) this.#toEnd();
    this.#read();
    if (!this.#atEnd && grownAbove) log.scrollTop = log.scrollHeight - fromEnd; // what was in sight stays
  }

  /**
   * Shows an entry of the open chat, wherever it stands.
   * @param {(entry: import('./timeline.js').Entry) => boolean} isIt
   * @returns {Promise<boolean>} `false` when it lies too far back
   */
  async jump(isIt) {
    this.#atEnd = false; // what is fetched for it stays
    const entry = await this.client.reach(this.chatId, isIt);
    if (!entry) {
      this.#onScroll();
      return false;
    }
    this.renderEntries();
    const own = entry.senderId === this.client.user.id && !entry.kind;
    const { node } = this.#shown.get(own ? `own ${entry.clientMsgId}` : `seq ${entry.seq}`);
    node.scrollIntoView({ block: 'center' });
    node.classList.add('shown');
    node.tabIndex = -1;
    node.focus({ preventScroll: true });
    setTimeout(() => node.classList.remove('shown'), SHOWN_MS);
    return true;
  }

  /** @param {import('./timeline.js').Entry[]} entries */
  #items(entries) {
    const items = [];
    let day = '';
    let before = null; // the message just before, which this one may join
    let unread = false;
    for (const entry of [...entries, ...this.client.unsent(this.chatId)]) {
      const name = dayName(entry.createdAt);
      if (name !== day) {
        const make = () => el('li', { class: 'day' }, el('span', {}, name));
        items.push({ key: `day ${entry.seq ?? entry.clientMsgId}`, look: name, make });
        day = name;
        before = null;
      }
      if (!unread && !entry.kind && entry.seq > this.#readBefore && entry.senderId !== this.client.user.id) {
        unread = true;
        before = null;
        const make = () => el('li', { class: 'day unread-from' }, el('span', {}, 'Unread'));
        items.push({ key: 'unread', look: '', make });
      }
      if (entry.kind) {
        const text = systemText(entry, (id) => this.#nameOf(id, 'You'));
        const make = () => el('li', { class: 'system' }, text);
        items.push({ key: `seq ${entry.seq}`, look: text, make });
      } else {
        items.push(this.messages.item(entry, before));
      }
      before = entry.kind ? null : entry;
    }
    return items;
  }

  /** With the arrows from one message to another: hundreds of tab stops would be none. */
  #step(event) {
    const step = { ArrowUp: 'previousElementSibling', ArrowDown: 'nextElementSibling' }[event.key];
    if (!step || !event.target.classList.contains('more')) return;
    event.preventDefault();
    let to = event.target.closest('li')[step];
    while (to && !to.querySelector('.more')) to = to[step];
    to?.querySelector('.more').focus();
    to?.scrollIntoView({ block: 'nearest' });
    this.#oneTabStop();
  }

  #oneTabStop() {
    const all = [...$('entries').querySelectorAll('.more')];
    const stop = all.find((button) => button === document.activeElement) ?? all.at(-1);
    for (const button of all) button.tabIndex = button === stop ? 0 : -1;
  }

  /** More of an unsent file has gone. @param {import('./natter.js').Unsent} message */
  renderProgress(message) {
    const shown = this.#shown.get(`own ${message.clientMsgId}`);
    if (shown) Attachments.showProgress(shown.node, message);
  }

  /** Says a live entry to those who do not see it. @param {import('./timeline.js').Entry} entry */
  announce(entry) {
    const here = entry.chatId === this.chatId;
    const nameOf = (id) => this.#nameOf(id, 'You');
    const name = nameOf(entry.senderId) ?? 'Someone';
    if (here && !this.#atEnd) $('to-newest').hidden = false;
    const named = entry.mentions?.includes(this.client.user?.id);
    const chat = this.client.chats.get(entry.chatId);
    // Even of a muted chat one hears when one is named.
    if (!here && (entry.kind || (chat && this.client.isMuted(chat) && !named))) return;
    const what = here ? summary(entry).slice(0, ANNOUNCED) : `in ${chat?.me.name ?? 'a new chat'}`;
    const message = here ? `${name}: ${what}` : `A message from ${name}, ${what}${named ? ', names you' : ''}`;
    const text = entry.kind ? systemText(entry, nameOf) : message;
    const line = el('p', {}, text);
    $('announcer').append(line);
    setTimeout(() => line.remove(), 10_000);
  }

  #onScroll() {
    const { scrollHeight, scrollTop, clientHeight } = this.log;
    this.#atEnd = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
    if (this.#atEnd) $('to-newest').hidden = true;
    this.#read();
  }

  /** What is in sight is read. */
  #read() {
    if (this.#atEnd && this.chatId && !document.hidden) this.client.read(this.chatId);
  }

  #toEnd() {
    this.#atEnd = true;
    this.log.scrollTop = this.log.scrollHeight;
    $('to-newest').hidden = true;
  }

  // ---- Who is there --------------------------------------------------------------------------

  renderTyping() {
    const who = [...(this.client.typing.get(this.chatId) ?? [])];
    const text = typingText(who.map((id) => this.#nameOf(id) ?? 'Someone'));
    // Set only when it changes: the same text again would be read out again.
    if ($('typing').textContent !== text) $('typing').textContent = text;
  }

  /** Title and presence. */
  renderHead() {
    const { chat } = this;
    $('chat-name').textContent = chat?.me.name ?? '…';
    $('chat-avatar').replaceChildren(chat ? avatar(chat.me.name, this.#pictured(chat)) : '');
    $('chat-presence').textContent = chat ? this.#presenceOf(chat) : '';
    const other = this.#other;
    const blocked = Boolean(other && this.client.blocks.people.has(other.id));
    $('blocked').hidden = !blocked;
    $('composer').hidden = blocked;
    $('blocked-who').textContent = blocked ? `You have blocked ${other.name}.` : '';
    this.details.render();
  }

  /** The other one of a one-to-one. */
  get #other() {
    const { chat } = this;
    return chat && !chat.isGroup ? chat.participants.find(({ id }) => id !== this.client.user.id) : null;
  }

  #presenceOf(chat) {
    const { presence, user } = this.client;
    if (!chat.isGroup) return presenceText(presence.get(this.#pictured(chat)));
    const others = chat.participants.filter(({ id }) => id !== user.id);
    const online = others.filter(({ id }) => presence.get(id)?.online).length;
    const people = `${chat.participantCount} participant${chat.participantCount === 1 ? '' : 's'}`;
    return online ? `${people}, ${online} online` : people;
  }

  /** The other one in a one-to-one, or the group. */
  #pictured(chat) {
    const other = chat.participants.find(({ id }) => id !== this.client.user.id);
    return chat.isGroup || !other ? chat.id : other.id;
  }

  #nameOf(userId, own = null) {
    return own && userId === this.client.user?.id ? own : this.client.names.get(userId);
  }
}
