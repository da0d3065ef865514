/**
 * The input: a text, and a file that goes with it.
 *
 * A file comes by the paperclip, by drag and drop or by pasting, one at a time; what was begun in a
 * chat is kept while another one is open.
 */

import { mediaOf, kindOf, sizeText } from './media.js';
import { $ } from './view.js';

export class Composer {
  /** @type {?string} */
  #chatId = null;
  /** @type {?File} */
  #file = null;
  /** What was begun and not sent, by chat. @type {Map<string, {text: string, file: ?File}>} */
  #drafts = new Map();
  /** Elements inside the drop zone that what is dragged has entered and not left. */
  #over = 0;

  /**
   * @param {import('./natter.js').NatterClient} client
   * @param {() => void} onSent
   * @param {(problem: Error|string) => void} notify
   */
  constructor(client, onSent, notify) {
    this.client = client;
    this.onSent = onSent;
    this.notify = notify;
    const { message } = this;
    $('composer').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#send();
    });
    message.addEventListener('input', () => this.#onInput());
    message.addEventListener('keydown', (event) => {
      // While an input method composes a word, Enter belongs to it.
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#send();
    });
    $('attach').addEventListener('change', () => {
      this.#take([...$('attach').files]);
      $('attach').value = ''; // so that the same file can be chosen again
    });
    $('attached-remove').addEventListener('click', () => {
      this.#attach(null);
      this.message.focus();
    });
    this.#takeDropped();
    this.#takePasted();
  }

  get message() {
    return $('message');
  }

  /** @param {?string} chatId null for none */
  open(chatId) {
    const { message } = this;
    if (this.#chatId) this.#drafts.set(this.#chatId, { text: message.value, file: this.#file });
    if (!this.client.user) this.#drafts.clear(); // the next one may be somebody else
    this.#chatId = chatId;
    const { text = '', file = null } = this.#drafts.get(chatId) ?? {};
    this.#drafts.delete(chatId);
    message.value = text;
    this.#attach(file);
    this.#fitInput();
  }

  #send() {
    const text = this.message.value.trim();
    if (!text && !this.#file) return;
    try {
      this.client.send(this.#chatId, text, this.#file ?? undefined);
    } catch (error) {
      return this.notify(error); // it stays in the input
    }
    this.message.value = '';
    this.#attach(null);
    this.#fitInput();
    this.onSent();
    this.message.focus();
  }

  #onInput() {
    this.#fitInput();
    this.client.setTyping(this.#chatId, this.message.value.trim() !== '');
  }

  #fitInput() {
    this.message.style.height = 'auto';
    this.message.style.height = `${this.message.scrollHeight}px`;
  }

  // ---- A file --------------------------------------------------------------------------------

  /** @param {File[]} files */
  #take(files) {
    if (!files.length) return;
    if (files.length > 1) return this.notify('One file at a time.');
    if (files[0].size === 0) return this.notify('This file is empty.');
    this.#attach(files[0]);
    this.message.focus();
  }

  /** @param {?File} file */
  #attach(file) {
    this.#file = file;
    $('attached').hidden = !file;
    this.message.placeholder = file ? 'Add a caption' : 'Message';
    const media = file && mediaOf(file);
    $('attached-icon').textContent = media ? kindOf(media).icon : '';
    $('attached-name').textContent = media?.name ?? '';
    $('attached-size').textContent = media ? sizeText(media.size) : '';
  }

  #takeDropped() {
    const zone = $('open-chat');
    const hasFile = ({ dataTransfer }) => dataTransfer?.types.includes('Files');
    const mark = (over) => {
      this.#over = over;
      zone.classList.toggle('dropping', over > 0);
    };
    zone.addEventListener('dragenter', (event) => hasFile(event) && mark(this.#over + 1));
    zone.addEventListener('dragleave', (event) => hasFile(event) && mark(Math.max(0, this.#over - 1)));
    // Beside the chat, a file that is let go would replace the page.
    addEventListener('dragover', (event) => {
      if (!hasFile(event)) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = zone.contains(event.target) ? 'copy' : 'none';
    });
    addEventListener('drop', (event) => {
      if (!hasFile(event)) return;
      event.preventDefault();
      mark(0);
      if (!zone.contains(event.target)) return;
      const items = [...event.dataTransfer.items];
      if (items.some((item) => item.webkitGetAsEntry?.()?.isDirectory)) {
        return this.notify('A folder cannot be sent.');
      }
      this.#take([...event.dataTransfer.files]);
    });
  }

  #takePasted() {
    $('open-chat').addEventListener('paste', (event) => {
      const { files, types } = event.clipboardData;
      // Office programs put a picture of a text beside the text.
      if (!files.length || types.includes('text/plain')) return;
      event.preventDefault();
      this.#take([...files]);
    });
  }
}
