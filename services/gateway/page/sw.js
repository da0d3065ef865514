/**
 * The page's service worker: it shows notifications while no page is there to show messages.
 *
 * What comes is one JSON object, decrypted by the browser: see `deploy/push.md`. The server may send a
 * notification twice, when it does not know whether the first has arrived: each `messageId` is shown
 * once. Of one chat only the newest is left, by its tag.
 */

/** Where it is kept which messages were shown: a worker is ended between two notifications. */
const SHOWN = { cache: 'natter-notifications', key: '/shown' };
/** How many of them. */
const REMEMBERED = 500;

/** Notifications are dealt with one after the other, so that none is shown twice. */
let turn = Promise.resolve();

/** @param {string} id @returns {Promise<boolean>} whether it is news, which it is once */
async function isNews(id) {
  const cache = await caches.open(SHOWN.cache);
  const known = await cache.match(SHOWN.key);
  const ids = known ? await known.json() : [];
  if (ids.includes(id)) return false;
  ids.push(id);
  await cache.put(SHOWN.key, new Response(JSON.stringify(ids.slice(-REMEMBERED))));
  return true;
}

/** @param {{messageId: string, chatId?: string, title: string, body?: string, unread: number,
 *   sentAt: string}} notice */
async function show({ messageId, chatId, title, body, unread, sentAt }) {
  if (!(await isNews(messageId))) return;
  const line = unread > 1 ? `${title} (${unread})` : title;
  await self.registration.showNotification(line, {
    body: body ?? '',
    tag: chatId ?? 'test',
    renotify: true,
    timestamp: Date.parse(sentAt) || Date.now(),
    data: { chatId, messageId },
  });
}

/** Brings the page to the front, with the chat; opens it where there is none. @param {?string} chatId */
async function open(chatId) {
  const pages = await self.clients.matchAll({ type: 'window', includeUncontrolled: true });
  const page = pages.find((page) => page.visibilityState === 'visible') ?? pages[0];
  if (!page) return self.clients.openWindow(chatId ? `/#${chatId}` : '/');
  if (chatId) page.postMessage({ open: chatId });
  return page.focus();
}

self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));

self.addEventListener('push', (event) => {
  let notice;
  try {
    notice = event.data.json();
  } catch {
    return; // no server of ours wrote it
  }
  turn = turn.then(() => show(notice)).catch(() => {});
  event.waitUntil(turn);
});

self.addEventListener('notificationclick', (event) => {
  event.notification.close();
  event.waitUntil(open(event.notification.data?.chatId));
});
