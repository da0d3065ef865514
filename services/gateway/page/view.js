/**
 * How single things look: elements, names, times, and lists that change in place.
 *
 * Whatever comes from the server is put in as text, never as markup.
 */

/** How long typing in a search box must pause before the server is asked. */
const SEARCH_PAUSE_MS = 250;
/** A download has begun by then; its bytes may go. */
const SAVED_WITHIN_MS = 60_000;

/** @param {string} id @returns {any} the element of the page with this id */
export const $ = (id) => document.getElementById(id);

/**
 * @param {string} tag
 * @param {Record<string, any>} [properties] `class`, `data-…`, `aria-…`, `on…` listeners, or
 *   properties of the element
 * @param {...(Node|string|null|undefined|false)} children
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'class' || name.includes('-')) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child || child === 0));
  return element;
}

/** Hands bytes to the browser's downloads. @param {Blob} blob @param {string} name made safe by the browser */
export function saveAs(blob, name) {
  const url = URL.createObjectURL(blob);
  el('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), SAVED_WITHIN_MS);
}

/** A round picture: the initials on one of eight colours. @param {string} name @param {string} id */
export function avatar(name, id) {
  const words = name.trim().split(/\s+/);
  const letters = [words[0], words.length > 1 ? words.at(-1) : ''].map((word) => [...word][0] ?? '');
  // The end of a UUIDv7 is random, its start is the time.
  const hue = parseInt(id.slice(-1), 16) % 8 || 0;
  return el('span', { class: `avatar hue-${hue}`, 'aria-hidden': 'true' }, letters.join('').toUpperCase());
}

/** @param {boolean} online */
export function presenceDot(online) {
  return el('span', { class: online ? 'dot online' : 'dot', title: online ? 'online' : 'offline' });
}

/**
 * Makes the children of `list` what `items` says, in order, touching only what differs: so focus,
 * selection and scroll position survive.
 * @param {HTMLElement} list
 * @param {Map<string, {look: string, node: HTMLElement}>} shown what it shows now, by key
 * @param {{key: string, look: string, make: () => HTMLElement}[]} items an item is made anew when
 *   its `look` changes
 */
export function reconcile(list, shown, items) {
  const focused = document.activeElement;
  const keys = new Set(items.map(({ key }) => key));
  for (const [key, { node }] of shown) {
    if (keys.has(key)) continue;
    node.remove();
    shown.delete(key);
  }
  let next = list.firstElementChild;
  let focus = list.contains(focused) ? focused : null;
  for (const { key, look, make } of items) {
    let kept = shown.get(key);
    if (kept?.look !== look) {
      const node = make();
      if (kept?.node.contains(focused)) {
        const buttons = [...node.querySelectorAll('button')];
        focus = buttons.find(({ className }) => className === focused.className) ?? buttons[0];
      }
      if (kept?.node === next) next = node;
      kept?.node.replaceWith(node);
      kept = { look, node };
      shown.set(key, kept);
    }
    if (kept.node === next) next = next.nextElementSibling;
    else list.insertBefore(kept.node, next);
  }
  // A node that is moved or replaced loses the focus.
  if (focus && focus !== document.activeElement) focus.focus({ preventScroll: true });
}

/**
 * Runs `load` while `button` can be seen or is pressed: a list that grows as it is scrolled.
 * @param {HTMLElement} button at the end of the list
 * @param {HTMLElement} root what scrolls
 * @param {() => Promise<void>} load
 * @param {(error: Error) => void} onError
 */
export function loadWhenSeen(button, root, load, onError) {
  let loading = false;
  const run = async () => {
    if (loading) return;
    loading = true;
    try {
      await load();
      // Still in sight? Only a new observation tells.
      observer.unobserve(button);
      observer.observe(button);
    } catch (error) {
      onError(error);
    } finally {
      loading = false;
    }
  };
  const seen = ([{ isIntersecting }]) => isIntersecting && run();
  const observer = new IntersectionObserver(seen, { root, rootMargin: '200px' });
  observer.observe(button);
  button.addEventListener('click', run);
}

/**
 * Asks once typing pauses, and forgets answers that come too late.
 * @param {HTMLInputElement} input
 * @param {(text: string) => Promise<() => void>} search gives what shows the answer
 * @param {(error: Error) => void} onError
 */
export function searchBox(input, search, onError) {
  let asked = 0;
  let timer = 0;
  const ask = async () => {
    const mine = ++asked;
    try {
      const show = await search(input.value.trim());
      if (mine === asked) show();
    } catch (error) {
      onError(error);
    }
  };
  input.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(ask, SEARCH_PAUSE_MS);
  });
}

const clock = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: 'short' });
const date = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });
const fullDate = new Intl.DateTimeFormat(undefined, { dateStyle: 'full' });
const fullTime = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });
const ago = new Intl.RelativeTimeFormat(undefined, { numeric: 'auto' });

const daysAgo = (at) =>
  Math.round((new Date().setHours(0, 0, 0, 0) - new Date(at).setHours(0, 0, 0, 0)) / 86_400_000);

/** The time of day. @param {string} at RFC 3339 */
export function timeOfDay(at) {
  return el('time', { dateTime: at, title: fullTime.format(new Date(at)) }, clock.format(new Date(at)));
}

/** When, for a list: the time of day, the weekday of the last days, or the date. @param {string} at RFC 3339 */
export function when(at) {
  const days = daysAgo(at);
  const format = days === 0 ? clock : days > 0 && days < 7 ? weekday : date;
  return el('time', { dateTime: at, title: fullTime.format(new Date(at)) }, format.format(new Date(at)));
}

/** The heading of a day: "today", "yesterday", or the date. @param {string} at RFC 3339 */
export function dayName(at) {
  const days = daysAgo(at);
  return days < 2 ? ago.format(-days, 'day') : fullDate.format(new Date(at));
}

const DAY = 86_400;
const UNITS = [['year', 365 * DAY], ['week', 7 * DAY], ['day', DAY], ['hour', 3_600], ['minute', 60], ['second', 1]];

/** In the largest unit that it is a whole number of. @param {number} secs */
export function timeText(secs) {
  const [unit, size] = UNITS.find(([, size]) => secs % size === 0);
  return new Intl.NumberFormat(undefined, { style: 'unit', unit, unitDisplay: 'long' }).format(secs / size);
}

/** For how long messages are kept. @param {?number} secs none: the chat has no time of its own */
export const keptText = (secs) => (secs === null ? 'as the server decides' : `for ${timeText(secs)}`);

/** @param {{online: boolean, lastSeenAt: ?string}|undefined} presence */
export function presenceText(presence) {
  if (presence?.online) return 'online';
  if (!presence?.lastSeenAt) return presence ? 'offline' : '';
  const minutes = Math.max(0, Math.round((Date.now() - Date.parse(presence.lastSeenAt)) / 60_000));
  if (minutes < 1) return 'last seen just now';
  if (minutes < 60) return `last seen ${ago.format(-minutes, 'minute')}`;
  if (minutes < 24 * 60) return `last seen ${ago.format(-Math.round(minutes / 60), 'hour')}`;
  return `last seen ${ago.format(-Math.round(minutes / 1440), 'day')}`;
}

/**
 * A name inside a sentence: whatever it does with the direction of its text ends with it.
 * @param {string} name
 */
const isolated = (name) => `\u2068${name}\u2069`;

/** @param {string[]} people */
export function typingText(people) {
  const names = people.map(isolated);
  if (names.length === 0) return '';
  if (names.length === 1) return `${names[0]} is typing…`;
  if (names.length === 2) return `${names[0]} and ${names[1]} are typing…`;
  return `${names.length} people are typing…`;
}

/**
 * A line of the chat itself.
 * @param {import('./timeline.js').Entry} entry
 * @param {(userId: string) => ?string} nameOf
 */
export function systemText(entry, nameOf) {
  const [actor, user] = [entry.actorId, entry.userId ?? entry.actorId].map((id) => nameOf(id) && isolated(nameOf(id)));
  // Names of people who have left may not be known here; the server's own words have them.
  if (!actor || !user) return entry.msg ?? entry.content ?? '';
  switch (entry.kind) {
    case 'created':
      return `${actor} created this chat`;
    case 'joined':
      return `${user} joined`;
    case 'left':
      return `${user} left`;
    case 'added':
      return `${actor} added ${user}`;
    case 'removed':
      return entry.banned ? `${actor} banned ${user}` : `${actor} removed ${user}`;
    case 'renamed':
      return entry.title ? `${actor} named this chat “${isolated(entry.title)}”` : `${actor} changed the title`;
    case 'described':
      return entry.description
        ? `${actor} changed the description: ${isolated(entry.description)}`
        : `${actor} took the description away`;
    case 'opened':
      return `${actor} opened this chat to anybody`;
    case 'closed':
      return `${actor} closed this chat`;
    case 'deleted':
      return `${actor} deleted this chat`;
    case 'retention':
      return `${actor} had messages kept ${keptText(entry.retentionSecs ?? null)}`;
    case 'role':
      return entry.role
        ? `${actor} made ${user} ${entry.role === 'member' ? 'a' : 'an'} ${entry.role}`
        : `${actor} changed what ${user} may do`;
    default:
      return entry.msg ?? entry.content ?? '';
  }
}
