/**
 * The input: a text, a file that goes with it, the message that it answers; or a new text for an own
 * message.
 *
 * A file comes by the paperclip, by drag and drop or by pasting, one at a time; what was begun in a
 * chat is kept while another one is open.
 */

import { kindOf, mediaOf, sizeText, summary } from './media.js';
import { Suggestions, mentionsIn } from './mentions.js';
import { $ } from './view.js';

/** @typedef {import('./timeline.js').Entry} Entry */

export class Composer {
  /** @type {?string} */
  #chatId = null;
  /** @type {?File} */
  #file = null;
  /** The message that is answered. @type {?Entry} */
  #answers = null;
  /** The own message that is given another text, and what stood in the input before. */
  #edits = null;
  /**
   * What was begun and not sent, by chat.
   * @type {Map<string, {text: string, file: ?File, answers: ?Entry}>}
   */
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
    this.suggestions = new Suggestions(message, () => this.#others());
    message.addEventListener('keydown', (event) => {
      if (this.suggestions.onKey(event)) return;
      if (event.key === 'Escape' && (this.#edits || this.#answers)) {
        event.preventDefault();
        return this.#withdraw();
      }
      if (event.key === 'ArrowUp' && !message.value && !this.#edits) return this.#editLast(event);
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
    $('about-remove').addEventListener('click', () => this.#withdraw());
    this.#takeDropped();
    this.#takePasted();
  }

  get message() {
    return $('message');
  }

  /** @param {?string} chatId null for none */
  open(chatId) {
    const { message } = this;
    this.#endEdit();
    const draft = { text: message.value, file: this.#file, answers: this.#answers };
    if (this.#chatId) this.#drafts.set(this.#chatId, draft);
    if (!this.client.user) this.#drafts.clear(); // the next one may be somebody else
    this.#chatId = chatId;
    const { text = '', file = null, answers = null } = this.#drafts.get(chatId) ?? {};
    this.#drafts.delete(chatId);
    message.value = text;
    this.#attach(file);
    this.#about(answers);
    this.suggestions.close();
    this.#fitInput();
  }

  /** What is written next answers a message. @param {Entry} entry */
  answer(entry) {
    this.#endEdit();
    this.#about(entry);
    this.message.focus();
  }

  /** Gives an own message another text. @param {Entry} entry */
  edit(entry) {
    this.#endEdit();
    this.#edits = { entry, before: this.message.value, file: this.#file, answers: this.#answers };
    this.#attach(null);
    this.#about(null);
    this.message.value = entry.content;
    this.#fitInput();
    this.message.focus();
  }

  /** The last own message that can be, as an arrow in an empty input asks for. */
  #editLast(event) {
    const { timelines, user } = this.client;
    const own = ({ senderId, deleted, kind }) => senderId === user.id && !deleted && !kind;
    const last = timelines.get(this.#chatId)?.entries.findLast(own);
    if (!last) return;
    event.preventDefault();
    this.edit(last);
  }

  /** The message stays as it is; what was begun before comes back. */
  #endEdit() {
    if (!this.#edits) return;
    const { before, file, answers } = this.#edits;
    this.#edits = null;
    this.message.value = before;
    this.#attach(file);
    this.#about(answers);
    this.#fitInput();
  }

  #withdraw() {
    if (this.#edits) this.#endEdit();
    else this.#about(null);
    this.message.focus();
  }

  /** What the text is about. @param {?Entry} answers */
  #about(answers) {
    this.#answers = answers;
    const edited = this.#edits?.entry;
    const about = edited ?? answers;
    $('about').hidden = !about;
    $('composer').classList.toggle('edits', Boolean(edited));
    if (!about) return;
    const name = about.senderId === this.client.user.id ? 'you' : (about.sender?.name ?? 'someone');
    $('about-what').textContent = edited ? 'Editing' : `Answering ${name}`;
    $('about-text').textContent = summary(about).slice(0, 200);
    const end = edited ? 'Leave it as it is' : 'Do not answer';
    $('about-remove').title = end;
    $('about-remove').setAttribute('aria-label', end);
  }

  /** The other participants that are known. */
  #others() {
    const people = this.client.chats.get(this.#chatId)?.participants ?? [];
    return people.filter(({ id }) => id !== this.client.user.id);
  }

  async #sendEdit() {
    const { entry } = this.#edits;
    const text = this.message.value.trim();
    if (!text && !entry.media) return this.notify('A message needs a text. It can be deleted instead.');
    try {
      const everybody = this.client.chats.get(this.#chatId)?.participants ?? [];
      await this.client.edit(entry, text, mentionsIn(text, everybody));
      if (this.#edits?.entry === entry) this.#endEdit();
    } catch (error) {
      this.notify(error); // it stays in the input
    }
  }

  #send() {
    this.suggestions.close();
    if (this.#edits) return this.#sendEdit();
    const text = this.message.value.trim();
    if (!text && !this.#file) return;
    try {
      const mentions = mentionsIn(text, this.#others());
      this.client.send(this.#chatId, text, { file: this.#file, answers: this.#answers, mentions });
    } catch (error) {
      return this.notify(error); // it stays in the input
    }
    this.message.value = '';
    this.#attach(null);
    this.#about(null);
    this.#fitInput();
    this.onSent();
    this.message.focus();
  }

  #onInput() {
    this.#fitInput();
    if (this.#edits) return; // nothing new comes of it
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
    if (this.#edits) return this.notify('A message that is edited keeps its file.');
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
