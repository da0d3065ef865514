/**
 * Participants that a text names: `@` and a name, offered while it is written; and how that is shown.
 */

import { $, avatar, el } from './view.js';

/** Names offered at once. */
const MAX_OFFERED = 5;
/** Participants that a message names. */
const MAX_MENTIONS = 50;
/** What stands from an `@` at the start of a word to the caret, short enough to be a name. */
const BEGUN = /(?:^|\s)@([^@\n]{0,40})$/u;

const lower = (text) => text.toLocaleLowerCase();

/**
 * Whom a text names.
 * @param {string} text @param {{id: string, name: string}[]} people @returns {string[]} ids
 */
export function mentionsIn(text, people) {
  const named = people.filter(({ name }) => text.includes(`@${name}`));
  // "@Ann" is the beginning of "@Anna" too.
  const alone = ({ name }) => {
    const longer = named.filter((other) => other.name !== name && other.name.startsWith(name));
    return longer.reduce((rest, other) => rest.replaceAll(`@${other.name}`, ''), text).includes(`@${name}`);
  };
  return named.filter(alone).slice(0, MAX_MENTIONS).map(({ id }) => id);
}

/**
 * A text in which those whom it names stand out.
 * @param {string} text @param {string[]} ids @param {(id: string) => ?string} nameOf
 * @param {string} [me] the viewer's id
 * @returns {(string|Node)[]}
 */
export function withMentions(text, ids, nameOf, me) {
  const marks = ids.flatMap((id) => [`@${id}`, nameOf(id) && `@${nameOf(id)}`].map((mark) => ({ mark, id })));
  const known = marks.filter(({ mark }) => mark).sort((a, b) => b.mark.length - a.mark.length);
  const parts = [];
  let plain = 0;
  for (let at = text.indexOf('@'); at >= 0; at = text.indexOf('@', at)) {
    const found = known.find(({ mark }) => text.startsWith(mark, at));
    if (found) {
      const name = `@${nameOf(found.id) ?? 'somebody'}`;
      const look = { class: found.id === me ? 'mention me' : 'mention', dir: 'auto' };
      parts.push(text.slice(plain, at), el('span', look, name));
      plain = at + found.mark.length;
    }
    at = found ? plain : at + 1;
  }
  return [...parts, text.slice(plain)];
}

/** Offers names in the input. */
export class Suggestions {
  /** @type {{id: string, name: string}[]} */
  #offered = [];
  #chosen = 0;

  /**
   * @param {HTMLTextAreaElement} input
   * @param {() => {id: string, name: string}[]} people who can be named
   */
  constructor(input, people) {
    Object.assign(this, { input, people });
    input.addEventListener('input', () => this.#offer());
    input.addEventListener('blur', () => this.close());
    input.addEventListener('click', () => this.#offer());
  }

  /** Deals with a key while names are offered. @param {KeyboardEvent} event @returns {boolean} */
  onKey(event) {
    if (!this.#offered.length || event.isComposing) return false;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      this.#chosen = (this.#chosen + step + this.#offered.length) % this.#offered.length;
      this.#show();
    } else if (event.key === 'Escape') this.close();
    else if (event.key === 'Tab' || (event.key === 'Enter' && !event.shiftKey)) this.#take(this.#chosen);
    else return false;
    event.preventDefault();
    return true;
  }

  close() {
    this.#offered = [];
    this.#show();
  }

  #begun() {
    const { value, selectionStart, selectionEnd } = this.input;
    if (selectionStart !== selectionEnd) return null;
    return BEGUN.exec(value.slice(Math.max(0, selectionStart - 60), selectionStart))?.[1] ?? null;
  }

  #offer() {
    const begun = this.#begun();
    const fits = ({ name }) => lower(name).startsWith(lower(begun)) && name !== begun;
    this.#offered = begun === null ? [] : this.people().filter(fits).slice(0, MAX_OFFERED);
    this.#chosen = 0;
    this.#show();
  }

  #show() {
    const options = this.#offered.map(({ id, name }, index) => {
      const option = { id: `name-${index}`, role: 'option', 'aria-selected': String(index === this.#chosen) };
      // Not a click: by then the input has lost the focus, and the names are gone.
      const onpointerdown = (event) => {
        event.preventDefault();
        this.#take(index);
      };
      return el('li', { ...option, onpointerdown }, avatar(name, id), el('span', { dir: 'auto' }, name));
    });
    $('names').replaceChildren(...options);
    $('names').hidden = options.length === 0;
    if (options.length) this.input.setAttribute('aria-activedescendant', `name-${this.#chosen}`);
    else this.input.removeAttribute('aria-activedescendant');
  }

  #take(index) {
    const begun = this.#begun() ?? '';
    const { input } = this;
    const { name } = this.#offered[index];
    const end = input.selectionStart;
    input.setRangeText(`@${name} `, end - begun.length - 1, end, 'end');
    this.close();
    input.dispatchEvent(new Event('input', { bubbles: true }));
  }
}
