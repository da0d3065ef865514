/**
 * A message as it stands in the conversation, and what can be done with it.
 */

import { problemText, summary } from './media.js';
import { withMentions } from './mentions.js';
import { choice, openMenu } from './menu.js';
import { avatar, el, timeOfDay } from './view.js';

/** Messages of one sender within this time stand together, under one name. */
const GROUP_MS = 5 * 60_000;
/** What one can react with at once; any other emoji, once somebody has. */
const EMOJI = ['👍', '❤️', '😂', '😮', '😢', '🙏', '🎉', '👎'];
/** Names of those who have read a message. */
const MAX_READERS = 20;

/** @typedef {import('./timeline.js').Entry} Entry */

export class Messages {
  /**
   * @param {object} options
   * @param {import('./natter.js').NatterClient} options.client
   * @param {import('./attachments.js').Attachments} options.attachments
   * @param {() => import('./natter.js').Chat|undefined} options.chat the open one
   * @param {(id: string, own?: string) => ?string} options.nameOf
   * @param {(problem: Error|string) => void} options.notify
   * @param {(entry: Entry) => void} options.onReply @param {(entry: Entry) => void} options.onEdit
   * @param {(messageId: string) => void} options.onQuote
   */
  constructor(options) {
    Object.assign(this, options);
  }

  /**
   * A message of the chat, or an own one that is not stored yet.
   * @param {Entry|import('./natter.js').Unsent} entry @param {?Entry} before the one just before
   */
  item(entry, before) {
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
        this.chat()?.isGroup,
        entry.content,
        (entry.mentions ?? []).map((id) => this.nameOf(id)),
        entry.editedAt,
        entry.deleted,
        entry.quote,
        entry.reactions,
        own && this.#receipt(entry),
      ]),
      make: () => this.#node(entry, own, leads),
    };
  }

  #node(entry, own, leads) {
    const { user } = this.client;
    const name = own ? 'You' : (this.nameOf(entry.senderId) ?? 'Someone');
    const pictured = !own && this.chat()?.isGroup;
    const head =
      leads && pictured
        ? el('span', { class: 'sender', dir: 'auto' }, name)
        : el('span', { class: 'hidden' }, `${name}:`);
    const text = withMentions(entry.content, entry.mentions ?? [], (id) => this.nameOf(id), user.id);
    const bubble = el(
      'div',
      { class: entry.media ? 'bubble media' : 'bubble' },
      head,
      entry.quote && this.#quote(entry.quote),
      entry.media && this.attachments.node(entry),
      entry.content && el('p', { dir: 'auto' }, ...text),
      entry.deleted && el('p', { class: 'gone' }, summary(entry)),
      this.#stateLine(entry, own),
      entry.reactions?.length > 0 && this.#reactions(entry),
    );
    const picture = leads ? avatar(name, entry.senderId ?? user.id) : el('span', { class: 'avatar' });
    const named = !own && entry.mentions?.includes(user.id);
    const classes = ['message', own && 'own', leads && 'leads', named && 'named', entry.state];
    const more = entry.id && !entry.deleted && this.#more(entry, own, name);
    return el('li', { class: classes.filter(Boolean).join(' ') }, pictured && picture, bubble, more);
  }

  #quote(quote) {
    const label = `Answers ${quote.senderName}: show that message`;
    const show = { class: 'quote', type: 'button', title: label, onclick: () => this.onQuote(quote.id) };
    const name = el('strong', { dir: 'auto' }, quote.senderName);
    return el('button', show, name, el('span', { dir: 'auto' }, summary(quote)));
  }

  #stateLine(entry, own) {
    const line = el('span', { class: 'meta' });
    if (entry.state === 'pending') line.append(entry.file ? 'Uploading…' : 'Sending…');
    else if (entry.state !== 'failed') {
      if (entry.editedAt) line.append('edited ');
      line.append(timeOfDay(entry.createdAt));
      const receipt = own && !entry.deleted && this.#receipt(entry);
      if (receipt) line.append(` · ${receipt}`);
    } else {
      const retry = { class: 'link', type: 'button', onclick: () => this.client.retry(entry) };
      const discard = { class: 'link', type: 'button', onclick: () => this.client.discard(entry) };
      line.append(`Not sent: ${entry.file ? problemText(entry.error) : entry.error.message} `);
      line.append(el('button', retry, 'Try again'), ' ', el('button', discard, 'Discard'));
    }
    return line;
  }

  /** How far an own message has come. */
  #receipt(entry) {
    if (!entry.seq) return '';
    const { read, delivered } = this.client.receipts.count(entry);
    const chat = this.chat();
    if (!chat?.isGroup) return read ? 'read' : delivered ? 'delivered' : '';
    const all = chat.participantCount - 1;
    if (read) return read >= all ? 'read by all' : `read by ${read}`;
    return all > 0 && delivered >= all ? 'delivered' : '';
  }

  #reactions(entry) {
    const buttons = entry.reactions.map(({ emoji, count, mine }) => {
      const label = `${emoji} ${count}: ${mine ? 'take yours back' : 'react too'}`;
      const about = { title: label, 'aria-label': label, 'aria-pressed': String(mine) };
      const react = () => this.#ask(this.client.react(entry, emoji, !mine));
      return el('button', { class: 'reaction', type: 'button', ...about, onclick: react }, `${emoji} ${count}`);
    });
    return el('span', { class: 'reactions' }, ...buttons);
  }

  // ---- What can be done ----------------------------------------------------------------------

  #more(entry, own, name) {
    const label = `What to do with the message of ${own ? 'yours' : name}`;
    const about = { title: 'More', 'aria-label': label, 'aria-expanded': 'false', 'data-of': entry.id };
    const onclick = ({ currentTarget }) => this.#open(currentTarget, entry, own);
    return el('button', { class: 'more', type: 'button', ...about, onclick }, '⋯');
  }

  #open(button, entry, own) {
    const { client } = this;
    const mine = (emoji) => entry.reactions?.some((known) => known.emoji === emoji && known.mine) ?? false;
    const emoji = EMOJI.map((emoji) => {
      const label = mine(emoji) ? `Take ${emoji} back` : `React with ${emoji}`;
      const about = { class: 'emoji', title: label, 'aria-label': label, 'aria-pressed': String(mine(emoji)) };
      return choice(emoji, () => this.#ask(client.react(entry, emoji, !mine(emoji))), about);
    });
    const remove = () => {
      if (confirm('Delete the message for everybody?')) this.#ask(client.remove(entry));
    };
    const chat = this.chat();
    const manages = chat?.isGroup && chat.me.role !== 'member';
    const readers = own && chat?.isGroup ? client.receipts.readers(entry) : [];
    const names = readers.slice(0, MAX_READERS).map((id) => this.nameOf(id) ?? 'Someone');
    const more = readers.length > names.length ? `, and ${readers.length - names.length} more` : '';
    openMenu(
      button,
      'Message',
      el('div', { class: 'emojis' }, ...emoji),
      choice('Reply', () => this.onReply(entry)),
      own && choice('Edit', () => this.onEdit(entry)),
      (own || manages) && choice('Delete', remove, { class: 'choice danger' }),
      names.length > 0 && el('p', { class: 'hint', dir: 'auto' }, `Read by ${names.join(', ')}${more}`),
    );
  }

  #ask(request) {
    request.catch((error) => this.notify(error));
  }
}
