/**
 * The open chat: its messages, who types, its participants.
 */

import { Attachments } from './attachments.js';
import { Composer } from './composer.js';
import { problemText, summary } from './media.js';
import {
  $,
  avatar,
  dayName,
  el,
  loadWhenSeen,
  presenceDot,
  presenceText,
  reconcile,
  systemText,
  timeOfDay,
  typingText,
} from './view.js';

/** Messages of one sender within this time stand together, under one name. */
const GROUP_MS = 5 * 60_000;
/** What one can react with at once. */
const LIKE = '👍';
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
  /** Participants beyond those that the chat itself lists. */
  #more = { items: [], cursor: '' };

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
    log.addEventListener('scroll', () => this.#onScroll());
    document.addEventListener('visibilitychange', () => this.#read());
    const resized = new ResizeObserver(() => this.#atEnd && this.#toEnd());
    for (const node of [log, $('entries')]) resized.observe(node);
    $('to-newest').addEventListener('click', () => this.#toEnd());
    loadWhenSeen($('older'), log, () => client.older(this.chatId), notify);

    $('chat-info').addEventListener('click', () => this.#openDetails());
    $('leave').addEventListener('click', () => this.#leave());
    $('more-participants').addEventListener('click', () => this.#moreParticipants());
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
    this.#more = { items: [], cursor: '' };
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
    $('older').hidden = !timeline.hasOlder;
    $('log-empty').hidden = this.#shown.size > 0;
    $('log-empty').textContent = timeline.loaded ? 'No messages yet.' : 'Loading…';

    if (this.#atEnd) this.#toEnd();
    this.#read();
    if (!this.#atEnd && grownAbove) log.scrollTop = log.scrollHeight - fromEnd; // what was in sight stays
  }

  /** @param {import('./timeline.js').Entry[]} entries */
  #items(entries) {
    const items = [];
    let day = '';
    let before = null; // the message just before, which this one may join
    for (const entry of [...entries, ...this.client.unsent(this.chatId)]) {
      const name = dayName(entry.createdAt);
      if (name !== day) {
        const make = () => el('li', { class: 'day' }, el('span', {}, name));
        items.push({ key: `day ${entry.seq ?? entry.clientMsgId}`, look: name, make });
        day = name;
        before = null;
      }
      if (entry.kind) {
        const text = systemText(entry, (id) => this.#nameOf(id, 'You'));
        const make = () => el('li', { class: 'system' }, text);
        items.push({ key: `seq ${entry.seq}`, look: text, make });
      } else {
        items.push(this.#messageItem(entry, before));
      }
      before = entry.kind ? null : entry;
    }
    return items;
  }

  /** A message of the chat, or an own one that is not stored yet. */
  #messageItem(entry, before) {
    const { user } = this.client;
    const own = entry.state !== undefined || entry.senderId === user.id;
    const sender = own ? user.id : entry.senderId;
    const beforeSender = before && (before.state !== undefined ? user.id : before.senderId);
    const leads =
      beforeSender !== sender || Date.parse(entry.createdAt) - Date.parse(before.createdAt) > GROUP_MS;
    return {
      // The sender's own id: so the node stays the same when the message becomes stored.
      key: own ? `own ${entry.clientMsgId}` : `seq ${entry.seq}`,
      look: JSON.stringify([
        entry.state,
        leads,
        entry.createdAt,
        entry.error?.message,
        this.chat?.isGroup,
        entry.content,
        entry.editedAt,
        entry.deleted,
        entry.reactions,
      ]),
      make: () => this.#messageNode(entry, own, leads),
    };
  }

  #messageNode(entry, own, leads) {
    const sender = entry.senderId ?? this.client.user.id;
    const name = own ? 'You' : (this.#nameOf(entry.senderId) ?? 'Someone');
    const pictured = !own && this.chat?.isGroup;
    const head =
      leads && pictured
        ? el('span', { class: 'sender' }, name)
        : el('span', { class: 'hidden' }, `${name}:`);
    const bubble = el(
      'div',
      { class: entry.media ? 'bubble media' : 'bubble' },
      head,
      entry.quote && el('blockquote', {}, `${entry.quote.senderName}: ${summary(entry.quote)}`),
      entry.media && this.attachments.node(entry),
      entry.content && el('p', {}, entry.content),
      entry.deleted && el('p', { class: 'gone' }, summary(entry)),
      this.#stateLine(entry),
      entry.id && !entry.deleted && this.#actions(entry, own),
    );
    const picture = leads ? avatar(name, sender) : el('span', { class: 'avatar' });
    const classes = ['message', own && 'own', leads && 'leads', entry.state].filter(Boolean).join(' ');
    return el('li', { class: classes }, pictured && picture, bubble);
  }

  #stateLine(entry) {
    const line = el('span', { class: 'meta' });
    if (entry.state === 'pending') line.append(entry.file ? 'Uploading…' : 'Sending…');
    else if (entry.state !== 'failed') {
      line.append(`${entry.editedAt ? 'edited ' : ''}${timeOfDay(entry.createdAt)}`);
    }
    else {
      const retry = { class: 'link', type: 'button', onclick: () => this.client.retry(entry) };
      const discard = { class: 'link', type: 'button', onclick: () => this.client.discard(entry) };
      line.append(`Not sent: ${entry.file ? problemText(entry.error) : entry.error.message} `);
      line.append(el('button', retry, 'Try again'), ' ', el('button', discard, 'Discard'));
    }
    return line;
  }

  /** How people have reacted, and what one can do. */
  #actions(entry, own) {
    const ask = (request) => request.catch((error) => this.notify(error));
    const button = (label, text, onclick, more = {}) => {
      const about = { title: label, 'aria-label': label };
      return el('button', { class: 'action', type: 'button', ...about, ...more, onclick }, text);
    };
    const shown = entry.reactions ?? [];
    const liked = shown.some(({ emoji }) => emoji === LIKE);
    const offered = liked ? [] : [{ emoji: LIKE, count: 0, mine: false }];
    const reactions = [...shown, ...offered].map(({ emoji, count, mine }) =>
      button(
        mine ? `Take ${emoji} back` : `React with ${emoji}`,
        count ? `${emoji} ${count}` : emoji,
        () => ask(this.client.react(entry, emoji, !mine)),
        { 'aria-pressed': mine },
      ),
    );
    const edit = () => {
      const content = window.prompt('Edit the message', entry.content);
      if (content !== null && content !== entry.content) ask(this.client.edit(entry, content));
    };
    const remove = () => {
      if (window.confirm('Delete the message for everybody?')) ask(this.client.remove(entry));
    };
    const manages = this.chat?.isGroup && this.chat.me.role !== 'member';
    return el(
      'span',
      { class: 'actions' },
      ...reactions,
      own && button('Edit', '✎', edit),
      (own || manages) && button('Delete', '✕', remove),
    );
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
    if (!here && entry.kind) return;
    const message = here ? `${name}: ${summary(entry)}` : `A message from ${name}`;
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
    if ($('info-dialog').open) this.#renderDetails();
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

  // ---- Details -------------------------------------------------------------------------------

  #openDetails() {
    this.#renderDetails();
    $('info-dialog').showModal();
  }

  #renderDetails() {
    const { chat, client } = this;
    if (!chat) return $('info-dialog').close();
    const listed = new Set(chat.participants.map(({ id }) => id));
    const people = [...chat.participants, ...this.#more.items.filter(({ id }) => !listed.has(id))];
    $('participants').replaceChildren(...people.map((person) => this.#participant(person)));
    $('more-participants').hidden = people.length >= chat.participantCount || this.#more.cursor === null;
    $('info-kind').textContent = chat.isGroup
      ? `A group, ${chat.open ? 'open to whoever has its id' : 'private'}.`
      : `Between you and ${chat.me.name}.`;
    $('info-id').textContent = chat.id;
    $('leave').hidden = !chat.isGroup;
  }

  #participant({ id, name, role }) {
    const own = id === this.client.user.id;
    const presence = own ? { online: this.client.state === 'online' } : this.client.presence.get(id);
    const about = [role !== 'member' && role, presenceText(presence)].filter(Boolean).join(', ');
    return el(
      'li',
      {},
      avatar(name, id),
      el('span', { class: 'grow' }, own ? `${name} (you)` : name, el('span', { class: 'sub' }, about)),
      presenceDot(Boolean(presence?.online)),
    );
  }

  async #moreParticipants() {
    const { chatId } = this;
    try {
      const page = await this.client.participants(chatId, this.#more.cursor);
      if (chatId !== this.chatId) return;
      this.#more = { items: [...this.#more.items, ...page.items], cursor: page.nextCursor ?? null };
      this.#renderDetails();
    } catch (error) {
      this.notify(error);
    }
  }

  async #leave() {
    try {
      await this.client.leaveChat(this.chatId);
      $('info-dialog').close();
    } catch (error) {
      this.notify(error);
    }
  }
}
