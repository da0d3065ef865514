/**
 * Archives: fetched while one goes on with other things, then saved.
 */

import { sizeText } from './media.js';
import { $, saveAs } from './view.js';

/** A button that fetches an archive; while it does so, it says how far it is, and cancels. */
export class Export {
  /** @type {?AbortController} */
  #underWay = null;

  /**
   * @param {string} id of the button; of whether files are wanted and of what is said, with an end to it
   * @param {import('./natter.js').NatterClient} client
   * @param {() => {name: string,
   *   fetch: (files: boolean, transfer: import('./transfer.js').Transfer) => Promise<Blob>}} ask
   * @param {(error: Error) => void} fail
   */
  constructor(id, client, ask, fail) {
    Object.assign(this, { ask, fail });
    this.button = $(id);
    this.label = this.button.textContent;
    this.files = $(`${id}-files`);
    this.status = $(`${id}-status`);
    this.button.addEventListener('click', () => (this.#underWay ? this.#underWay.abort() : this.#run()));
    client.addEventListener('session', () => {
      if (client.user) return;
      this.#underWay?.abort();
      this.clear();
    });
  }

  /** Says no more of what is over. */
  clear() {
    if (!this.#underWay) this.status.textContent = '';
  }

  async #run() {
    const { name, fetch } = this.ask();
    const abort = (this.#underWay = new AbortController());
    // On the button, not in the status: that would be read out with every piece.
    const onProgress = (_, bytes) => (this.button.textContent = `Cancel (${sizeText(bytes)} so far)`);
    onProgress(0, 0);
    let said = '';
    this.status.textContent = `Fetching “${name}”…`;
    try {
      const blob = await fetch(this.files.checked, { signal: abort.signal, onProgress });
      if (abort.signal.aborted) return; // with its last piece
      saveAs(blob, `${name}.zip`);
      said = `“${name}” is fetched: ${sizeText(blob.size)}.`;
    } catch (error) {
      if (!abort.signal.aborted) this.fail(new Error(`“${name}”: ${problem(error)}`));
    } finally {
      this.#underWay = null;
      this.button.textContent = this.label;
      this.status.textContent = said;
    }
  }
}

/** @param {import('./natter.js').NatterError} error */
function problem({ code, message }) {
  if (code !== 'too_large') return message;
  return 'It is too large for this page. Without files it may not be; another client can fetch all of it.';
}
