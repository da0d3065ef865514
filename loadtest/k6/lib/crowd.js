/** Setup: users of this run alone, and chats among them. */

import exec from 'k6/execution';

import { all } from './rest.js';
import { SETUP_BYTES } from './settings.js';

const PASSWORD = 'correct horse battery';

/**
 * Registers everybody and makes the chats. Every user is in one chat.
 * @param {{kind: 'group'|'direct', size: number}[]} plan
 * @param {number} vus that each get a copy
 * @returns {{chats: {id: string, kind: string, members: object[]}[]}}
 */
export function gather(plan, vus) {
  const run = `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`;
  const people = plan.flatMap(({ size }, chat) => Array.from({ length: size }, (_, n) => `${chat}-${n}`));
  const accounts = all('register', people.map((who) => ({ path: '/auth/register', body: account(run, who) })));
  const members = accounts.map(({ user, accessToken, refreshToken, expiresAt }) => ({
    id: user.id,
    token: accessToken,
    refreshToken,
    expiresAt: Date.parse(expiresAt),
  }));
  let from = 0;
  const chats = plan.map(({ kind, size }) => {
    from += size;
    return { kind, members: members.slice(from - size, from) };
  });
  const made = all('create_chat', chats.map(({ kind, members: [first, ...others] }, n) => ({
    path: '/chats',
    token: first.token,
    body: {
      isGroup: kind === 'group',
      ...(kind === 'group' && { title: `Load ${n}` }),
      participantIds: others.map(({ id }) => id),
    },
  })));
  made.forEach(({ id }, n) => (chats[n].id = id));
  const bytes = JSON.stringify(chats).length;
  if (bytes * vus > SETUP_BYTES) {
    throw new Error(`${people.length} users for ${vus} VUs: use fewer VUs, or several k6 processes`);
  }
  return { chats };
}

function account(run, who) {
  return { name: `Load ${who}`, email: `load-${run}-${who}@example.com`, password: PASSWORD };
}

/** This VU's share of the chats. */
export function share({ chats }, vus) {
  return chats.filter((_, n) => n % vus === exec.scenario.iterationInTest);
}
