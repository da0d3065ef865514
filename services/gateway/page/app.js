/**
 * The page: signing in, the list of chats, starting and joining chats.
 *
 * It shows how a client is built on `natter.js`: every change arrives as an event, and the parts
 * of the page that it touches are drawn again from the client's state.
 */

import { Account } from './account.js';
import { Conversation } from './conversation.js';
import { Found } from './found.js';
import { summary } from './media.js';
import { NatterClient } from './natter.js';
import { $, avatar, el, loadWhenSeen, presenceDot, reconcile, searchBox, when } from './view.js';

/** Characters of a message that the list shows. */
const PREVIEW = 200;
/** How long a change may take to be drawn where there are no pictures. */
const UNSEEN_MS = 250;
const CHAT_ID = /^[0-9a-f-]{36}$/i;
/** In the address of the page, or pasted: what a link into a group ends with. */
const INVITE = /(?:#invite=|\/v1\/invites\/)([\w-]{1,64})$/;
const STATES = {
  online: 'Connected',
  connecting: 'Connecting…',
  waiting: 'No connection, trying again…',
  displaced: 'In use in another window',
  offline: 'Offline',
};

/** In the tab, not in the browser: so two tabs can be two users. */
const store = {
  load: () => JSON.parse(sessionStorage.getItem('natter') ?? 'null'),
  save: (saved) => sessionStorage.setItem('natter', JSON.stringify(saved)),
};

/**
 * A duplicated tab starts with a copy of the session. Were both to use the refresh token, the
 * server would take it for stolen and end the session; so the copy is dropped, and only the tab
 * that holds the device's lock goes on. A reloaded page gets the lock as soon as the old is gone.
 */
async function dropCopiedSession() {
  const saved = store.load();
  if (saved?.tokens && !(await lock(saved.deviceId, 2_000))) store.save(null);
}

/**
 * Holds the lock of a device for as long as the page lives.
 * @param {string} deviceId @param {number} patienceMs
 * @returns {Promise<boolean>} whether it was to be had
 */
function lock(deviceId, patienceMs) {
  if (!navigator.locks) return Promise.resolve(true); // not on plain HTTP from another machine
  return new Promise((resolve) => {
    const hold = () => {
      resolve(true);
      return new Promise(() => {});
    };
    const options = { signal: AbortSignal.timeout(patienceMs) };
    navigator.locks.request(`natter ${deviceId}`, options, hold).catch(() => resolve(false));
  });
}

await dropCopiedSession();
const client = new NatterClient({ store });
const conversation = new Conversation(client, notify);
new Account(client, notify);
const messagesFound = new Found(client, notify, async (chatId, seq) => {
  location.hash = chatId;
  openFromAddress(); // now, and not only with the event
  return conversation.jump((entry) => entry.seq === seq);
});
/** A link by which the page was opened, until somebody is signed in. @type {?string} */
let invited = null;

/** @param {Error|string} problem */
function notify(problem) {
  const toast = $('toast');
  // Above the dialogs too.
  toast.hidePopover?.();
  toast.textContent = problem.message ?? problem;
  toast.showPopover?.();
  clearTimeout(notify.timer);
  notify.timer = setTimeout(() => toast.hidePopover?.(), 5_000);
}

/**
 * Calls `draw` once for all changes until the next picture: however fast messages come, the page draws
 * no more of them than it can. What is not in sight gets no pictures, but a title.
 * @param {() => void} draw
 */
function batched(draw) {
  let due = false;
  return () => {
    if (due || !client.user) return;
    due = true;
    const run = () => {
      if (!due) return;
      due = false;
      if (client.user) draw();
    };
    requestAnimationFrame(run);
    setTimeout(run, UNSEEN_MS);
  };
}

// ---- Signing in ------------------------------------------------------------------------------

let registering = false;

function showSession() {
  const signedIn = client.user !== null;
  $('auth').hidden = signedIn;
  $('shell').hidden = !signedIn;
  if (!signedIn) {
    conversation.open(null);
    invited = INVITE.exec(location.hash)?.[1] ?? invited;
    history.replaceState(null, '', location.pathname);
    $('search').value = '';
    matches = null;
    messagesFound.list([]);
    for (const dialog of document.querySelectorAll('dialog')) dialog.close();
    $('chats').replaceChildren();
    chatsShown.clear();
    document.title = 'Natter';
    $('auth-login').focus();
    return;
  }
  $('my-name').textContent = client.user.name;
  client.connect();
  if (invited) location.hash = `invite=${invited}`;
  invited = null;
  openFromAddress();
  renderChats();
}

function showAuthMode() {
  $('auth-title').textContent = registering ? 'Create an account' : 'Log in to Natter';
  $('auth-submit').textContent = registering ? 'Create account' : 'Log in';
  $('auth-switch').textContent = registering ? 'I have an account' : 'New here? Create an account';
  $('auth-name-field').hidden = !registering;
  $('auth-password').autocomplete = registering ? 'new-password' : 'current-password';
  $('auth-error').textContent = '';
}

/** What the form asks for, or the reason why it cannot be sent. */
function readAuthForm() {
  const login = $('auth-login').value.trim();
  const password = $('auth-password').value;
  const name = $('auth-name').value.trim();
  if (registering && !name) throw new Error('A name is needed: it is what others see.');
  if (!login) throw new Error('An e-mail address or a phone number is needed.');
  if (registering && password.length < 8) throw new Error('The password needs at least 8 characters.');
  const phone = login.replace(/[\s().-]/g, '');
  const who = /^\+?\d+$/.test(phone) ? { phone } : { email: login };
  const device = { name: 'Web page', platform: 'web' };
  return { ...(registering && { name }), ...who, password, device };
}

function authProblem(error) {
  if (error.code === 'unauthenticated') return 'No account with this e-mail or phone and this password.';
  if (error.code === 'conflict') return 'There is an account with this e-mail or phone already.';
  return error.message;
}

$('auth-switch').addEventListener('click', () => {
  registering = !registering;
  showAuthMode();
  $(registering ? 'auth-name' : 'auth-login').focus();
});

$('auth-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  $('auth-error').textContent = '';
  $('auth-submit').disabled = true;
  try {
    const account = readAuthForm();
    await (registering ? client.register(account) : client.login(account));
    $('auth-form').reset();
  } catch (error) {
    $('auth-error').textContent = authProblem(error);
  } finally {
    $('auth-submit').disabled = false;
  }
});

$('sign-out').addEventListener('click', () => client.logout());

// ---- The list of chats -----------------------------------------------------------------------

/** @type {Map<string, {look: string, node: HTMLElement}>} */
const chatsShown = new Map();
/** Ids of the chats that match the search; null without one. @type {?Set<string>} */
let matches = null;

const activity = (chat) => chat.lastMessage?.createdAt ?? chat.createdAt;
const other = (chat) => (chat.isGroup ? null : chat.participants.find(({ id }) => id !== client.user.id));

const renderChats = batched(() => {
  const chats = [...client.chats.values()]
    .filter(({ id, me }) => (matches ? matches.has(id) : !me.hidden))
    .sort((a, b) => (activity(a) < activity(b) ? 1 : -1));
  reconcile($('chats'), chatsShown, chats.map(chatItem));
  $('more-chats').hidden = matches !== null || !client.hasMoreChats;
  $('no-chats').hidden = chats.length > 0 || !$('hits').hidden;
  $('no-chats').textContent = matches ? 'Nothing found.' : 'No chats yet. Start one with +.';
  const { unread } = client;
  document.title = `${unread ? `(${unread}) ` : ''}${client.user.name} · Natter`;
  watchPresence(chats);
  conversation.renderHead();
});

function chatItem(chat) {
  const open = chat.id === conversation.chatId;
  const online = Boolean(client.presence.get(other(chat)?.id)?.online);
  const typing = [...(client.typing.get(chat.id) ?? [])];
  const preview = typing.length ? 'typing…' : previewOf(chat);
  const picture = avatar(chat.me.name, other(chat)?.id ?? chat.id);
  const unread = chat.me.unreadCount;
  const muted = client.isMuted(chat);
  const make = () =>
    el(
      'li',
      {},
      el(
        'button',
        {
          type: 'button',
          class: open ? 'chat open' : 'chat',
          'aria-current': String(open),
          onclick: () => (location.hash = chat.id),
        },
        el('span', { class: 'picture' }, picture, online && presenceDot(true)),
        el(
          'span',
          { class: 'grow' },
          el('span', { class: 'line' }, el('strong', { dir: 'auto' }, chat.me.name), muted && MUTED(), when(activity(chat))),
          el(
            'span',
            { class: 'line' },
            el('span', { class: typing.length ? 'preview live' : 'preview', dir: 'auto' }, preview),
            unread > 0 && el('span', { class: muted ? 'unread muted' : 'unread', 'aria-label': `${unread} unread` }, String(unread)),
          ),
        ),
      ),
    );
  return { key: chat.id, look: JSON.stringify([chat.me.name, activity(chat), preview, online, open, unread, muted]), make };
}

const MUTED = () => el('span', { class: 'sub', role: 'img', title: 'Muted', 'aria-label': 'Muted' }, '🔕');

function previewOf(chat) {
  const last = chat.lastMessage;
  if (!last) return 'No messages yet';
  const text = summary(last).slice(0, PREVIEW);
  if (last.senderId === client.user.id) return `You: ${text}`;
  return chat.isGroup ? `${client.names.get(last.senderId) ?? 'Someone'}: ${text}` : text;
}

/** The people of the open chat first: a connection may watch only so many. */
function watchPresence(chats) {
  const inOpen = conversation.chat?.participants ?? [];
  client.watch([...inOpen, ...chats.map(other)].filter(Boolean).map(({ id }) => id));
}

searchBox($('search'), async (text) => {
  const [found, hits] = text
    ? await Promise.all([client.searchChats(text), client.searchMessages(text)])
    : [null, []];
  return () => {
    matches = found ? new Set(found.map(({ id }) => id)) : null;
    messagesFound.list(hits);
    renderChats();
  };
}, notify);

loadWhenSeen($('more-chats'), $('chats-scroll'), () => client.moreChats(), notify);

$('chats').addEventListener('keydown', (event) => {
  const step = { ArrowDown: 'nextElementSibling', ArrowUp: 'previousElementSibling' }[event.key];
  const to = step && event.target.closest('li')?.[step]?.querySelector('button');
  if (!to) return;
  event.preventDefault();
  to.focus();
});

/** The open chat is in the address: so going back, reloading and bookmarks do what they should. */
function openFromAddress() {
  if (!client.user) return;
  const id = location.hash.slice(1);
  conversation.open(CHAT_ID.test(id) ? id : null);
  const code = INVITE.exec(location.hash)?.[1];
  if (code) showInvitation(code);
  renderChats();
}

addEventListener('hashchange', openFromAddress);
$('back').addEventListener('click', () => $('search').focus());

// ---- Links into groups -------------------------------------------------------------------------

/** What a link leads to, before one follows it. @param {string} code */
async function showInvitation(code) {
  history.replaceState(null, '', location.pathname); // nobody who goes back is asked again
  try {
    const { chatId, title, description, participantCount } = await client.groups.invitation(code);
    if (client.chats.has(chatId)) return void (location.hash = chatId);
    $('invite-title').textContent = title;
    $('invite-about').textContent = description ?? '';
    $('invite-count').textContent = `${participantCount} participant${participantCount === 1 ? '' : 's'}`;
    $('invite-error').textContent = '';
    $('invite-form').dataset.code = code;
    $('invite-dialog').showModal();
  } catch (error) {
    notify(error.code === 'not_found' ? 'This link is not good, or not any more.' : error);
  }
}

$('invite-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  try {
    const chat = await client.groups.join($('invite-form').dataset.code);
    $('invite-dialog').close();
    location.hash = chat.id;
  } catch (error) {
    $('invite-error').textContent = error.message;
  }
});

// ---- Blocked people ----------------------------------------------------------------------------

function renderBlocked() {
  const rows = [...client.blocks.people].map(([id, name]) => {
    const unblock = () => client.blocks.set(id, name, false).catch((error) => ($('blocked-error').textContent = error.message));
    const button = { type: 'button', class: 'small', 'aria-label': `Unblock ${name}`, onclick: unblock };
    return el('li', {}, avatar(name, id), el('span', { class: 'grow name', dir: 'auto' }, name), el('button', button, 'Unblock'));
  });
  $('blocked-people').replaceChildren(...rows);
  $('blocked-none').textContent = rows.length ? '' : 'You have blocked nobody.';
}

$('blocks').addEventListener('click', () => {
  $('blocked-error').textContent = '';
  renderBlocked();
  $('blocked-dialog').showModal();
});

// ---- New chats -------------------------------------------------------------------------------

/** Who the new chat is with, by id. @type {Map<string, string>} */
const chosen = new Map();

function renderChosen() {
  const chips = [...chosen].map(([id, name]) => {
    const remove = () => {
      chosen.delete(id);
      renderChosen();
      $('people').focus();
    };
    const chip = { type: 'button', class: 'chip', 'aria-label': `Without ${name}`, onclick: remove };
    return el('li', {}, el('button', chip, `${name} ×`));
  });
  $('chosen').replaceChildren(...chips);
  if (chosen.size > 1) $('is-group').checked = true;
  $('is-group').disabled = chosen.size > 1;
  $('group-fields').hidden = !$('is-group').checked;
}

function renderFound(users, text) {
  const rows = users
    .filter(({ id }) => id !== client.user.id && !chosen.has(id))
    .map(({ id, name }) => {
      const choose = () => {
        chosen.set(id, name);
        $('people').value = '';
        renderFound([], '');
        renderChosen();
        $('people').focus();
      };
      const person = { type: 'button', class: 'person', onclick: choose };
      return el('li', {}, el('button', person, avatar(name, id), el('span', { dir: 'auto' }, name)));
    });
  $('found').replaceChildren(...rows);
  $('found-none').textContent = text && !rows.length ? 'Nobody found.' : '';
}

searchBox($('people'), async (text) => {
  const users = text ? await client.users(text) : [];
  return () => renderFound(users, text);
}, notify);
$('is-group').addEventListener('change', renderChosen);

/**
 * @param {string} name of the dialog
 * @param {() => Promise<import('./natter.js').Chat>} act what its form does; its chat is opened
 */
function chatDialog(name, act) {
  const problem = $(`${name}-error`);
  $(`${name}-chat`).addEventListener('click', () => {
    $(`${name}-form`).reset();
    problem.textContent = '';
    chosen.clear();
    renderChosen();
    renderFound([], '');
    $(`${name}-dialog`).showModal();
  });
  $(`${name}-form`).addEventListener('submit', async (event) => {
    event.preventDefault();
    problem.textContent = '';
    try {
      const chat = await act();
      $(`${name}-dialog`).close();
      location.hash = chat.id;
    } catch (error) {
      problem.textContent = error.message;
    }
  });
}

chatDialog('new', () => {
  const isGroup = $('is-group').checked;
  const title = $('group-title').value.trim();
  if (!isGroup && !chosen.size) throw new Error('Choose somebody to chat with.');
  if (isGroup && !title) throw new Error('A group needs a title.');
  const group = isGroup && { title, open: $('group-open').checked };
  return client.createChat({ isGroup, participantIds: [...chosen.keys()], ...group });
});

chatDialog('join', () => {
  const text = $('join-id').value.trim();
  const code = INVITE.exec(text)?.[1];
  if (code) return client.groups.join(code);
  if (!CHAT_ID.test(text)) throw new Error('This is neither the id of a chat nor a link.');
  return client.joinChat(text);
});

for (const button of document.querySelectorAll('[data-close]')) {
  button.addEventListener('click', () => button.closest('dialog').close());
}

// ---- What the client tells -------------------------------------------------------------------

const renderEntries = batched(() => conversation.renderEntries());
const renderTyping = batched(() => conversation.renderTyping());

client.addEventListener('session', ({ detail }) => {
  if (client.user) lock(client.deviceId, 2_000);
  else notify(detail.reason);
  showSession();
});
client.addEventListener('state', () => {
  $('state').textContent = STATES[client.state];
  $('state').dataset.state = client.state;
  $('connect-here').hidden = client.state !== 'displaced';
});
client.addEventListener('chats', () => {
  if (conversation.chatId && !client.timelines.has(conversation.chatId)) {
    notify('You are not in this chat.');
    location.hash = '';
  }
  renderChats();
  renderEntries(); // a group shows its senders' names: known once the chat is
});
client.addEventListener('timeline', ({ detail }) => {
  if (detail.chatId === conversation.chatId) renderEntries();
});
client.addEventListener('progress', ({ detail }) => conversation.renderProgress(detail.message));
client.addEventListener('incoming', ({ detail }) => conversation.announce(detail.entry));
client.addEventListener('typing', () => {
  renderTyping();
  renderChats();
});
client.addEventListener('presence', renderChats);
client.addEventListener('blocks', () => {
  renderChats();
  renderBlocked();
});
client.addEventListener('trouble', ({ detail }) => notify(detail.error));

$('connect-here').addEventListener('click', () => client.connect());
// Connection state and "last seen" go by the clock.
setInterval(renderChats, 60_000);
addEventListener('beforeunload', (event) => client.hasUnsent && event.preventDefault());

showAuthMode();
showSession();
