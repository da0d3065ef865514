/**
 * The user's own account: all that is theirs to take along, what they are notified of, and its end.
 */

import { Alerts } from './alerts.js';
import { Export } from './exports.js';
import { $ } from './view.js';

export class Account {
  /**
   * @param {import('./natter.js').NatterClient} client
   * @param {(problem: Error|string) => void} notify
   */
  constructor(client, notify) {
    Object.assign(this, { client, notify });
    const ask = () => ({
      name: `Natter ${client.user.name}`,
      fetch: (files, transfer) => client.rights.exportMine(files, transfer),
    });
    this.alerts = new Alerts(client, notify);
    this.mine = new Export('mine-export', client, ask, (error) => this.#fail(error));
    $('mine-export').addEventListener('click', () => ($('account-error').textContent = ''));
    $('account').addEventListener('click', () => this.#open());
    $('account-dialog').addEventListener('close', () => this.#clear());
    $('account-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#delete();
    });
  }

  #open() {
    $('account-name').textContent = this.client.user.name;
    this.#clear();
    $('account-dialog').showModal();
    this.alerts.open();
  }

  /** No password stays behind. */
  #clear() {
    $('account-form').reset();
    $('account-end').open = false;
    for (const id of ['account-error', 'account-end-error']) $(id).textContent = '';
    this.mine.clear();
  }

  #fail(error) {
    if ($('account-dialog').open) $('account-error').textContent = error.message;
    else this.notify(error);
  }

  async #delete() {
    const problem = $('account-end-error');
    problem.textContent = '';
    const password = $('account-password').value;
    if (!password) return this.#missing('account-password', 'The password is needed.');
    if (!$('account-sure').checked) return this.#missing('account-sure', 'Say that you mean it, too.');
    $('account-delete').disabled = true;
    try {
      await this.client.rights.deleteAccount(password);
      // Its socket may have been closed before: as if from elsewhere.
      this.notify('Your account is deleted.');
    } catch (error) {
      if ($('account-dialog').open) problem.textContent = error.message;
      else this.notify(error);
    } finally {
      $('account-delete').disabled = false;
    }
  }

  #missing(id, why) {
    $('account-end-error').textContent = why;
    $(id).focus();
  }
}
