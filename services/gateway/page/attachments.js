/**
 * Files in messages: pictures and the whole image, sound and video, downloads.
 */

import { FETCHED_BYTES, PLAYED_BYTES, kindOf, problemText, sizeText } from './media.js';
import { Pictures } from './pictures.js';
import { $, el, saveAs } from './view.js';

/** Files fetched at once. */
const MAX_FETCHES = 3;

/** @typedef {import('./timeline.js').Entry} Entry */

export class Attachments {
  /** What ends the fetching of those under way. @type {Set<AbortController>} */
  #fetches = new Set();
  /** The one video or sound that plays. @type {?{node: HTMLElement, stop: () => void}} */
  #playing = null;
  /** The image in the dialog. @type {?{entry: Entry, abort: AbortController, url: ?string}} */
  #viewed = null;

  /**
   * @param {import('./natter.js').NatterClient} client
   * @param {Element} root what scrolls
   * @param {(problem: Error|string) => void} notify
   */
  constructor(client, root, notify) {
    this.client = client;
    this.notify = notify;
    this.pictures = new Pictures(client, root);
    $('picture-dialog').addEventListener('close', () => this.#closePicture());
    $('picture-dialog').addEventListener('click', ({ target, currentTarget }) => {
      if (target === currentTarget) currentTarget.close(); // beside it
    });
    $('picture-save').addEventListener('click', () => {
      if (this.#viewed) this.#save(this.#viewed.entry, $('picture-save'));
    });
  }

  /** How a message's file looks, stored or on its way. @param {Entry|import('./natter.js').Unsent} message */
  node(message) {
    if (message.state) return this.#unsentNode(message);
    return message.media.kind === 'image' ? this.#pictureNode(message) : this.#fileNode(message);
  }

  /** Lets go of what has left the page. */
  sweep() {
    this.pictures.sweep();
    if (this.#playing && !this.#playing.node.isConnected) this.#playing.stop();
  }

  /** The user has signed out. */
  clear() {
    for (const abort of this.#fetches) abort.abort();
    this.sweep();
  }

  /** More of an unsent file has gone. @param {Element} node @param {number} part */
  static showProgress(node, { part, media }) {
    const progress = node.querySelector('progress');
    if (!progress) return;
    progress.value = part;
    node.querySelector('.progress-text').textContent = progressText(part, media.size);
  }

  // ---- On its way ----------------------------------------------------------------------------

  #unsentNode(message) {
    const { media, state, part } = message;
    const card = this.#card(media);
    if (state === 'pending') {
      const cancel = { class: 'link', type: 'button', onclick: () => this.client.discard(message) };
      card.append(
        el('progress', { max: 1, value: part, 'aria-label': `Uploading ${media.name}` }),
        el(
          'span',
          { class: 'actions' },
          el('span', { class: 'sub progress-text' }, progressText(part, media.size)),
          el('button', { ...cancel, 'aria-label': `Cancel ${media.name}` }, 'Cancel'),
        ),
      );
    }
    return card;
  }

  /** @param {import('./media.js').Media} media */
  #card(media) {
    const { icon } = kindOf(media);
    const about = el('span', { class: 'sub' }, sizeText(media.size));
    const text = el('span', { class: 'grow' }, el('strong', { title: media.name }, media.name), about);
    return el('div', { class: 'file' }, el('span', { class: 'file-icon', 'aria-hidden': 'true' }, icon), text);
  }

  // ---- Files to be saved or played -----------------------------------------------------------

  #fileNode(entry) {
    const { media } = entry;
    const card = this.#card(media);
    const actions = el('span', { class: 'actions' });
    card.append(actions);
    if (media.size > FETCHED_BYTES) {
      actions.append(el('span', { class: 'sub' }, 'Too large for this page: fetch it with another client.'));
      return card;
    }
    if (['video', 'audio'].includes(media.kind) && media.size <= PLAYED_BYTES) {
      const play = el('button', { class: 'link', type: 'button', 'aria-label': `Play ${media.name}` }, 'Play');
      play.addEventListener('click', () => this.#play(entry, card, play));
      actions.append(play);
    }
    const name = { 'aria-label': `Download ${media.name}` };
    const save = el('button', { class: 'link', type: 'button', ...name }, 'Download');
    save.addEventListener('click', () => this.#save(entry, save));
    actions.append(save);
    return card;
  }

  /** @param {Entry} entry @param {HTMLButtonElement} button */
  async #save(entry, button) {
    const blob = await this.#fetch(entry, button);
    if (blob) saveAs(blob, entry.media.name);
  }

  /** @param {Entry} entry @param {HTMLElement} card @param {HTMLButtonElement} button */
  async #play(entry, card, button) {
    const blob = await this.#fetch(entry, button);
    if (!blob || !card.isConnected) return;
    this.#playing?.stop();
    const url = URL.createObjectURL(blob);
    const { name, kind } = entry.media;
    const player = el(kind, { controls: true, 'aria-label': name });
    const stop = () => {
      if (this.#playing?.node === player) this.#playing = null;
      player.remove();
      URL.revokeObjectURL(url);
      button.hidden = false;
    };
    player.addEventListener('error', () => {
      if (this.#playing?.node !== player) return;
      stop();
      this.notify('This browser cannot play it. It can be downloaded.');
    });
    this.#playing = { node: player, stop };
    button.hidden = true;
    card.prepend(player);
    player.src = url;
    player.focus();
    player.play().catch(() => {}); // then by its own button
  }

  /**
   * Fetches the file of a message while the button that asked for it shows how far it is; pressed
   * again, it cancels.
   * @param {Entry} entry @param {HTMLButtonElement} button
   * @returns {Promise<?Blob>} null when it did not come to that
   */
  async #fetch(entry, button) {
    if (button.cancel) return button.cancel();
    if (this.#fetches.size >= MAX_FETCHES) {
      this.notify('Other files are being fetched: one moment.');
      return null;
    }
    const abort = new AbortController();
    const label = button.textContent;
    const onProgress = (part) => (button.textContent = `Cancel (${Math.round(part * 100)} %)`);
    button.cancel = () => void abort.abort();
    this.#fetches.add(abort);
    onProgress(0);
    try {
      return await this.client.file(entry, { signal: abort.signal, onProgress });
    } catch (error) {
      if (!abort.signal.aborted) this.notify(`${entry.media.name}: ${problemText(error)}`);
      return null;
    } finally {
      this.#fetches.delete(abort);
      button.cancel = null;
      button.textContent = label;
    }
  }

  // ---- Pictures ------------------------------------------------------------------------------

  #pictureNode(entry) {
    const name = { title: entry.media.name, 'aria-label': `Photo ${entry.media.name}: open` };
    const open = { class: 'picture-button', type: 'button', onclick: () => this.#openPicture(entry) };
    return el('button', { ...open, ...name }, this.pictures.frame(entry));
  }

  /** The thumbnail at once, and the whole image as soon as it is there. */
  async #openPicture(entry) {
    const { media } = entry;
    const viewed = (this.#viewed = { entry, abort: new AbortController(), url: null });
    const image = $('picture');
    const thumbnail = this.pictures.url(entry);
    $('picture-name').textContent = media.name;
    $('picture-about').textContent = [sizeText(media.size), pixels(media)].filter(Boolean).join(' · ');
    image.alt = media.name;
    image.hidden = !thumbnail;
    if (thumbnail) image.src = thumbnail;
    if (media.width) image.width = media.width;
    if (media.height) image.height = media.height;
    const tooLarge = media.size > PLAYED_BYTES;
    const status = (text) => ($('picture-status').textContent = text);
    status(tooLarge ? 'Too large to be shown here. It can be downloaded.' : 'Loading…');
    $('picture-dialog').showModal();
    if (tooLarge) return;
    try {
      const blob = await this.client.file(entry, { signal: viewed.abort.signal });
      if (this.#viewed !== viewed) return;
      viewed.url = URL.createObjectURL(blob);
      image.hidden = false;
      image.src = viewed.url;
      await image.decode();
      if (this.#viewed === viewed) status('');
    } catch (error) {
      if (this.#viewed !== viewed) return;
      image.hidden = Boolean(viewed.url) || !thumbnail;
      status(viewed.url ? 'This browser cannot show it. It can be downloaded.' : problemText(error));
    }
  }

  #closePicture() {
    if (!this.#viewed) return;
    const { abort, url } = this.#viewed;
    this.#viewed = null;
    abort.abort();
    const image = $('picture');
    for (const attribute of ['src', 'width', 'height']) image.removeAttribute(attribute);
    if (url) URL.revokeObjectURL(url);
  }
}

const pixels = ({ width, height }) => (width && height ? `${width} × ${height}` : '');

function progressText(part, size) {
  if (part === 0) return 'Waiting…';
  return part < 1 ? `${sizeText(part * size)} sent` : 'Being stored…';
}
