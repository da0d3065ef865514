/**
 * Messages that were searched for: each leads to its place in its chat, or, where that is too far back
 * to be scrolled to, to what stands around it.
 */

import { summary } from './media.js';
import { $, avatar, el, systemText, timeOfDay, when } from './view.js';

/** Code units shown before the first word that was found. */
const BEFORE = 24;

export class Found {
  /**
   * @param {import('./natter.js').NatterClient} client
   * @param {(error: Error|string) => void} notify
   * @param {(chatId: string, seq: number) => Promise<boolean>} show a place in a chat, if it can be
   */
  constructor(client, notify, show) {
    Object.assign(this, { client, notify, show });
    $('around-open').addEventListener('click', () => {
      $('around-dialog').close();
      location.hash = $('around-open').dataset.chat;
    });
  }

  /** @param {import('./natter.js').Hit[]} hits */
  list(hits) {
    $('hits').hidden = hits.length === 0;
    $('hit-list').replaceChildren(...hits.map((hit) => this.#item(hit)));
  }

  #item(hit) {
    const { message, chat } = hit;
    const open = { type: 'button', class: 'chat', onclick: () => this.#open(hit) };
    const head = el('span', { class: 'line' }, el('strong', { dir: 'auto' }, chat.name), when(message.createdAt));
    const text = el('span', { class: 'preview' }, `${message.sender.name}: `, ...snippet(hit));
    return el('li', {}, el('button', open, avatar(chat.name, chat.id), el('span', { class: 'grow' }, head, text)));
  }

  async #open(hit) {
    try {
      if (!(await this.show(hit.chat.id, hit.message.seq))) await this.#around(hit);
    } catch (error) {
      this.notify(error);
    }
  }

  async #around({ message, chat, highlights }) {
    const page = await this.client.around(chat.id, message.seq);
    $('around-title').textContent = chat.name;
    $('around-open').dataset.chat = chat.id;
    const lines = page.messages.map((entry) => {
      const here = entry.seq === message.seq;
      const text = here ? marked(entry.content, highlights) : [textOf(entry)];
      const name = el('strong', { dir: 'auto' }, entry.sender.name);
      const head = el('span', { class: 'line' }, name, timeOfDay(entry.createdAt));
      return el('li', { class: here ? 'here' : 'there' }, head, el('p', { dir: 'auto' }, ...text));
    });
    $('around-list').replaceChildren(...lines);
    $('around-dialog').showModal();
    $('around-list').querySelector('.here')?.scrollIntoView({ block: 'center' });
  }
}

/** @param {import('./timeline.js').Entry} entry */
function textOf(entry) {
  return entry.system ? systemText({ ...entry, ...entry.system }, () => null) : summary(entry);
}

/** From shortly before the first word that was found. @param {import('./natter.js').Hit} hit */
function snippet({ message, highlights }) {
  const { content } = message;
  const [first] = highlights;
  if (!first || first.start <= BEFORE) return content ? marked(content, highlights) : [summary(message)];
  // At a space, so that no character is cut in two.
  const space = content.indexOf(' ', first.start - BEFORE);
  const start = space >= 0 && space < first.start ? space : first.start;
  const ranges = highlights.map((mark) => ({ start: mark.start - start, end: mark.end - start }));
  return ['…', ...marked(content.slice(start), ranges)];
}

/**
 * A text in which ranges are marked.
 * @param {string} text @param {{start: number, end: number}[]} ranges in order
 */
function marked(text, ranges) {
  const parts = [];
  let at = 0;
  for (const { start, end } of ranges) {
    parts.push(text.slice(at, start), el('mark', {}, text.slice(start, end)));
    at = end;
  }
  return [...parts, text.slice(at)];
}
