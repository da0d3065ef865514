/**
 * For how long a chat keeps its messages: everybody is told, some may change it.
 */

import { $, el, keptText, timeText } from './view.js';

const DAY = 86_400;
/** Seconds that are offered. */
const TIMES = [DAY, 7 * DAY, 30 * DAY, 365 * DAY];

/** @typedef {import('./natter.js').Chat} Chat */

export class Keeping {
  /** What the choice was drawn from: it stays as the user has set it until that is another. */
  #drawn = '';

  /**
   * @param {import('./natter.js').NatterClient} client
   * @param {() => Chat|undefined} chat
   * @param {(act: () => Promise<void>) => void} attempt tells what fails
   */
  constructor(client, chat, attempt) {
    Object.assign(this, { client, chat });
    // By a button: with the arrow keys alone one would come by each shorter time.
    $('keep-form').addEventListener('submit', (event) => {
      event.preventDefault();
      attempt(() => this.#change());
    });
  }

  /** Forgets a choice that was not made. */
  open() {
    this.#drawn = '';
  }

  /** @param {Chat} chat */
  render(chat) {
    const secs = chat.retentionSecs ?? null;
    $('info-kept').textContent = `Messages are kept ${keptText(secs)}.`;
    $('keep-form').hidden = chat.isGroup && chat.me.role === 'member';
    const drawn = `${chat.id} ${secs}`;
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    const times = [...new Set([...TIMES, ...(secs === null ? [] : [secs])])].sort((a, b) => a - b);
    const choices = times.map((time) => el('option', { value: String(time) }, keptText(time)));
    $('keep').replaceChildren(el('option', { value: '' }, keptText(null)), ...choices);
    $('keep').value = String(secs ?? '');
  }

  async #change() {
    const { id, me, retentionSecs = null } = this.chat();
    const secs = $('keep').value ? Number($('keep').value) : null;
    if (secs === retentionSecs) return;
    const shorter = secs !== null && (retentionSecs === null || secs < retentionSecs);
    const warning = shorter && `Remove what is older than ${timeText(secs)} from “${me.name}”, for everybody?`;
    if (warning && !confirm(warning)) return;
    await this.client.groups.update(id, { retentionSecs: secs });
  }
}
