/**
 * Thumbnails of images, fetched when they come into sight, and kept in bounded number.
 */

import { backoff, sleep } from './session.js';
import { el } from './view.js';

/** Thumbnails kept. */
const KEPT = 64;
/** Thumbnails fetched at once. */
const AT_ONCE = 4;
/** A thumbnail is made shortly after its image was sent: asked for then, and twice again. */
const MADE_AFTER_MS = 1_000;
const MADE_WITHIN_MS = [1_000, 3_000];
/** Without a thumbnail, an image of up to so many bytes stands for itself. */
const ITSELF_BYTES = 4 * 1024 * 1024;
/** Tries while the server is not to be reached. */
const TRIES = 5;
/** As large as it gets in the timeline, in CSS pixels. */
const SIDE_PX = 320;
const LEAST_PX = 72;

/** What stands in a frame without its image; the second is tried again when it is next in sight. */
const NO_PREVIEW = 'No preview';
const NOT_LOADED = 'Not loaded';

/** @typedef {import('./timeline.js').Entry} Entry */

export class Pictures {
  /** What stands for images in the page, in sight or not. @type {Map<Element, {entry: Entry, seen: boolean}>} */
  #frames = new Map();
  /** Object URLs by message, the one used last at the end. @type {Map<string, string>} */
  #urls = new Map();
  /** By message, what ends the fetching of those under way. @type {Map<string, AbortController>} */
  #loading = new Map();

  /**
   * @param {import('./natter.js').NatterClient} client
   * @param {Element} root what scrolls
   */
  constructor(client, root) {
    this.client = client;
    const onSeen = (changes) => {
      for (const { target, isIntersecting } of changes) {
        const frame = this.#frames.get(target);
        if (!frame) continue;
        frame.seen = isIntersecting;
        if (isIntersecting && target.dataset.problem === NOT_LOADED) delete target.dataset.problem;
      }
      this.#load();
    };
    this.observer = new IntersectionObserver(onSeen, { root, rootMargin: '200px' });
  }

  /** An empty frame of the image's proportions, which fills by itself. @param {Entry} entry */
  frame(entry) {
    const frame = el('span', { class: 'frame' }, el('img', { alt: '', hidden: true }));
    const { width, height } = frameSize(entry.media);
    frame.style.width = `${width}px`;
    frame.style.aspectRatio = `${width} / ${height}`;
    this.#frames.set(frame, { entry, seen: false });
    this.observer.observe(frame);
    return frame;
  }

  /** The thumbnail of a message, if it is there. @param {Entry} entry @returns {string|undefined} */
  url(entry) {
    return this.#urls.get(entry.id);
  }

  /** Lets go of what has left the page. */
  sweep() {
    for (const frame of this.#frames.keys()) {
      if (frame.isConnected) continue;
      this.observer.unobserve(frame);
      this.#frames.delete(frame);
    }
    const ids = new Set([...this.#frames.values()].map(({ entry }) => entry.id));
    for (const id of this.#urls.keys()) if (!ids.has(id)) this.#revoke(id);
    for (const [id, abort] of this.#loading) if (!ids.has(id)) abort.abort();
  }

  /** Fetches what is in sight and not there, the newest first. */
  #load() {
    for (const [node, { entry, seen }] of [...this.#frames].reverse()) {
      const { id } = entry;
      if (!seen || node.dataset.problem) continue;
      if (this.#urls.has(id)) this.#show(id, this.#urls.get(id));
      else if (this.#loading.size < AT_ONCE && !this.#loading.has(id)) this.#fetch(entry);
    }
  }

  async #fetch(entry) {
    const abort = new AbortController();
    this.#loading.set(entry.id, abort);
    let blob = null;
    let problem = NO_PREVIEW;
    try {
      blob = await this.#picture(entry, abort.signal);
    } catch (error) {
      if (error.code !== 'not_found') problem = NOT_LOADED;
    }
    this.#loading.delete(entry.id);
    if (!abort.signal.aborted) {
      if (blob) this.#show(entry.id, URL.createObjectURL(blob));
      else this.#fail(entry.id, problem);
    }
    this.#load();
  }

  /** The thumbnail; when there is none, the image itself, if it is small. @returns {Promise<?Blob>} */
  async #picture(entry, signal) {
    const { media } = entry;
    const waits = [...MADE_WITHIN_MS];
    const age = Math.max(0, this.client.serverNow - Date.parse(entry.createdAt));
    if (media.thumbnail && age < MADE_AFTER_MS) await sleep(MADE_AFTER_MS - age, signal);
    for (let tries = 0; ; ) {
      try {
        if (media.thumbnail) return await this.client.thumbnail(entry, { signal });
        break;
      } catch (error) {
        if (signal.aborted) throw error;
        if (error.code === 'not_found') {
          if (!waits.length) break;
          await sleep(waits.shift(), signal);
        } else if (error.retryable && ++tries < TRIES) {
          await sleep(Math.max(error.retryAfterMs ?? 0, backoff(tries)), signal);
        } else throw error;
      }
    }
    if (media.size > ITSELF_BYTES) return null;
    return this.client.file(entry, { signal });
  }

  #show(id, url) {
    if (this.#urls.get(id) !== url) this.#revoke(id);
    this.#urls.delete(id);
    this.#urls.set(id, url);
    for (const image of this.#images(id)) {
      if (image.src === url) continue;
      image.addEventListener('error', () => image.src === url && this.#fail(id, NO_PREVIEW), { once: true });
      image.src = url;
      image.hidden = false;
    }
    this.#evict();
  }

  /** The ones that are longest out of use go; in sight again, they are fetched again. */
  #evict() {
    const seen = new Set();
    for (const frame of this.#frames.values()) if (frame.seen) seen.add(frame.entry.id);
    const others = [...this.#urls.keys()].filter((id) => !seen.has(id));
    const order = [...others, ...this.#urls.keys()];
    while (this.#urls.size > KEPT) this.#revoke(order.shift());
  }

  #revoke(id) {
    for (const image of this.#images(id)) {
      image.hidden = true;
      image.removeAttribute('src');
    }
    const url = this.#urls.get(id);
    if (url) URL.revokeObjectURL(url);
    this.#urls.delete(id);
  }

  #fail(id, problem) {
    this.#revoke(id);
    for (const [node, { entry }] of this.#frames) if (entry.id === id) node.dataset.problem = problem;
  }

  #images(id) {
    const nodes = [...this.#frames].filter(([, { entry }]) => entry.id === id);
    return nodes.map(([node]) => node.querySelector('img'));
  }
}

/** Known before the image is, so that the timeline does not jump. */
function frameSize({ width, height }) {
  if (!width || !height) return { width: 240, height: 180 };
  const scale = Math.min(1, SIDE_PX / Math.max(width, height));
  const within = (side) => Math.max(LEAST_PX, Math.round(side * scale));
  return { width: within(width), height: within(height) };
}
