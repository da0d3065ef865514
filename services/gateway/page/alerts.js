/**
 * Notifications of this browser: asked for, tried and ended, and what they are to show.
 *
 * A browser has one subscription for all its tabs. It is the device's that has asked for it last.
 */

import { $ } from './view.js';

/** Whose the browser's subscription is: in the browser, not in the tab. */
const HOLDER = 'natter-notified';
/** How often, and how long, it is looked what came of a test. */
const OUTCOME = { everyMs: 500, looks: 20 };
const STATES = {
  delivered: 'Sent: it should show in a moment.',
  gone: 'The browser has given this subscription up: ask for notifications again.',
  refused: 'The push service has refused it',
  retrying: 'The push service has failed; it is tried again.',
  given_up: 'The push service has failed for too long.',
};

export class Alerts {
  /**
   * @param {import('./natter.js').NatterClient} client
   * @param {(problem: Error|string) => void} notify
   */
  constructor(client, notify) {
    Object.assign(this, { client, notify });
    $('alerts-on').addEventListener('click', () => this.#attempt(() => this.#begin()));
    $('alerts-off').addEventListener('click', () => this.#attempt(() => this.#end()));
    $('alerts-test').addEventListener('click', () => this.#attempt(() => this.#test()));
    $('alerts-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#attempt(() => this.#save());
    });
    $('alerts-quiet').addEventListener('change', () => this.#showHours());
    client.addEventListener('session', () => this.#onSession());
    navigator.serviceWorker?.addEventListener('message', ({ data }) => {
      if (data?.open) location.hash = data.open;
    });
    if (client.user) this.#renew();
  }

  /** What is so now. */
  async open() {
    for (const id of ['alerts-status', 'alerts-error']) $(id).textContent = '';
    await this.#attempt(async () => {
      const { notifications } = this.client;
      const [wishes, target] = await Promise.all([notifications.wishes(), notifications.target()]);
      this.#showTarget(target);
      $('alerts-preview').value = wishes.preview;
      $('alerts-mentions').checked = wishes.mentionsThroughMute;
      $('alerts-quiet').checked = wishes.quietHours !== null;
      $('alerts-from').value = wishes.quietHours?.from ?? '22:00';
      $('alerts-until').value = wishes.quietHours?.until ?? '07:00';
      this.#showHours();
    });
  }

  /** A subscription is good for a time, and the server may have another key by now. */
  async #renew() {
    const { deviceId } = this.client;
    if (localStorage.getItem(HOLDER) !== deviceId || !possible()) return;
    if (Notification.permission !== 'granted') return;
    await this.#subscribe().catch(() => {}); // next time
  }

  async #begin() {
    if (!possible()) throw new Error('This browser shows notifications of pages over HTTPS only, or not at all.');
    if ((await Notification.requestPermission()) !== 'granted') {
      throw new Error('The browser does not let this page notify you.');
    }
    this.#showTarget(await this.#subscribe());
    $('alerts-status').textContent = 'You are notified here while no page is open.';
  }

  async #subscribe() {
    const { notifications, deviceId } = this.client;
    const key = await notifications.key();
    if (!key) throw new Error('This server does not notify browsers.');
    await navigator.serviceWorker.register('/sw.js');
    const { pushManager } = await navigator.serviceWorker.ready;
    const options = { userVisibleOnly: true, applicationServerKey: key };
    const subscription = await pushManager.subscribe(options).catch(async (error) => {
      // With another key than the one before.
      const before = await pushManager.getSubscription();
      if (!before) throw error;
      await before.unsubscribe();
      return pushManager.subscribe(options);
    });
    const target = await notifications.register(subscription);
    localStorage.setItem(HOLDER, deviceId);
    this.held = deviceId;
    return target;
  }

  async #end() {
    await this.client.notifications.drop();
    await this.#unsubscribe(this.client.deviceId);
    this.#showTarget(null);
    $('alerts-status').textContent = 'You are not notified here any more.';
  }

  /** Unless another tab's user has it by now. @param {?string} deviceId */
  async #unsubscribe(deviceId) {
    if (!deviceId || localStorage.getItem(HOLDER) !== deviceId) return;
    localStorage.removeItem(HOLDER);
    const worker = await navigator.serviceWorker?.getRegistration();
    await (await worker?.pushManager.getSubscription())?.unsubscribe();
  }

  /** The server forgets the device with its login; the browser need not take anything for it any more. */
  #onSession() {
    if (this.client.user) return void this.#renew();
    this.#unsubscribe(this.held).catch(() => {});
    this.held = null;
  }

  async #test() {
    const { notifications } = this.client;
    const before = (await notifications.target())?.last?.at;
    await notifications.test();
    $('alerts-status').textContent = 'On its way…';
    for (let look = 0; look < OUTCOME.looks; look += 1) {
      await new Promise((resolve) => setTimeout(resolve, OUTCOME.everyMs));
      const target = await notifications.target();
      if (target?.last && target.last.at !== before) {
        const { state, answer } = target.last;
        this.#showTarget(target);
        $('alerts-status').textContent = STATES[state] ?? state;
        if (answer && state !== 'delivered') $('alerts-error').textContent = answer;
        return;
      }
    }
    $('alerts-status').textContent = 'Nothing has come of it yet.';
  }

  async #save() {
    const quiet = $('alerts-quiet').checked;
    const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
    await this.client.notifications.wish({
      preview: $('alerts-preview').value,
      mentionsThroughMute: $('alerts-mentions').checked,
      quietHours: quiet ? { from: $('alerts-from').value, until: $('alerts-until').value, timeZone } : null,
    });
    $('alerts-status').textContent = 'Saved, for all your devices.';
  }

  /** @param {?import('./notifications.js').Target} target */
  #showTarget(target) {
    const on = target !== null && !target.gone;
    $('alerts-on').hidden = on;
    for (const id of ['alerts-off', 'alerts-test']) $(id).hidden = !on;
  }

  #showHours() {
    $('alerts-hours').hidden = !$('alerts-quiet').checked;
  }

  /** @param {() => Promise<void>} act */
  async #attempt(act) {
    $('alerts-error').textContent = '';
    try {
      await act();
    } catch (error) {
      if ($('account-dialog').open) $('alerts-error').textContent = error.message;
      else this.notify(error);
    }
  }
}

/** Not on plain HTTP from another machine, and not in every browser. */
function possible() {
  return 'serviceWorker' in navigator && 'PushManager' in window && 'Notification' in window;
}
