/**
 * What a user can have of the server at any time: all data, and the end of the account.
 */

import { download } from './transfer.js';

/** Bytes of an archive that are taken: it passes through the browser's blobs. */
const ARCHIVE_BYTES = 2 * 1024 ** 3;

/** @typedef {import('./transfer.js').Transfer} Transfer */

export class Rights {
  /** @param {import('./session.js').Session} session */
  constructor(session) {
    this.session = session;
  }

  /**
   * All of a chat, as a ZIP archive. One export of a user at a time: else `rate_limited`.
   * @param {string} chatId @param {boolean} files those of its messages too
   * @param {Transfer} [transfer] how long it gets is not known before its end
   * @returns {Promise<Blob>}
   */
  exportChat(chatId, files, transfer) {
    return this.#archive(`/chats/${chatId}/export`, files, transfer);
  }

  /** All that is the user's, likewise. @param {boolean} files @param {Transfer} [transfer] */
  exportMine(files, transfer) {
    return this.#archive('/users/me/export', files, transfer);
  }

  /**
   * Deletes the account, for good, and forgets it here.
   * @param {string} password @throws `unauthenticated` when it is wrong
   */
  async deleteAccount(password) {
    await this.session.restOnce('DELETE', '/users/me', { password });
    this.session.forget('Your account is deleted.');
  }

  #archive(path, files, transfer) {
    const url = `${this.session.origin}/v1${path}${files ? '' : '?media=false'}`;
    return this.session.authorized((token) => download(url, token, { ...transfer, most: ARCHIVE_BYTES }));
  }
}
