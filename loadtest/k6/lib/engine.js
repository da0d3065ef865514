/**
 * Socket.IO 5 over Engine.IO 4, as stock clients speak it: over a WebSocket, or over polling, whose
 * requests go to every gateway in turn.
 */

import http from 'k6/http';

import { urls } from './settings.js';
import { WebSocket } from './websocket.js';

const SEPARATOR = '\u001e';
const QUERY = 'EIO=4&transport=';

/** The packets of one session, whatever carries them. */
class Session {
  /** What it shows when it comes back: which session, */
  pid = null;
  /** and the last string that an event ended with. */
  offset = null;

  constructor({ token, cursor }, on, put) {
    this.on = on;
    this.put = put;
    const [pid, offset] = cursor ? JSON.parse(cursor) : [];
    this.auth = { token, ...(pid && { pid }), ...(offset && { offset }) };
    this.pid = pid ?? null;
    this.offset = offset ?? null;
  }

  /** @param {string} packet of Engine.IO */
  take(packet) {
    if (packet === '2') this.put('3');
    else if (packet[0] === '0') this.put(`40${JSON.stringify(this.auth)}`);
    else if (packet[0] === '4') this.#message(packet[1], packet.slice(2));
    else if (packet[0] === '1') this.on.closed(0);
  }

  #message(kind, text) {
    if (kind === '0') this.pid = JSON.parse(text).pid;
    else if (kind === '1') this.on.closed(0);
    else if (kind === '4') this.on.frame({ event: 'refused', data: JSON.parse(text).data });
    else if (kind === '2') this.#event(JSON.parse(text));
    else if (kind === '3') {
      const at = text.indexOf('[');
      const [{ ok, data, error }] = JSON.parse(text.slice(at));
      this.on.frame({ reply: Number(text.slice(0, at)), ...(ok ? { data } : { error }), cursor: this.#cursor() });
    }
  }

  #event([event, ...args]) {
    const last = args[args.length - 1];
    // As a stock client does it, which knows no event's meaning.
    if (typeof last === 'string') this.offset = last;
    this.on.frame({ event, data: args[0], cursor: this.#cursor() });
  }

  #cursor() {
    return JSON.stringify([this.pid, this.offset]);
  }

  emit(event, id, data) {
    this.put(`42${id}${JSON.stringify([event, data])}`);
  }
}

/** Over a WebSocket from the beginning. See `native` for what it is called with. */
export function websocket(base, at, on) {
  const url = `${base.replace(/^http/, 'ws')}/socket.io/?${QUERY}websocket`;
  const socket = new WebSocket(url, null, { tags: { name: 'socket.io' } });
  const session = new Session(at, on, (packet) => socket.send(packet));
  socket.onmessage = ({ data }) => session.take(data);
  socket.onclose = ({ code }) => on.closed(code);
  socket.onerror = () => on.closed(0);
  return {
    send: (event, id, data) => session.emit(event, id, data),
    close: () => socket.close(),
  };
}

/** Over requests alone. See `native` for what it is called with. */
export function polling(base, at, on) {
  let turn = Math.max(0, urls.indexOf(base));
  let over = false;
  let sid = '';
  let posting = false;
  const waiting = [];
  const url = () => {
    turn += 1;
    return `${urls[turn % urls.length]}/socket.io/?${QUERY}polling${sid && `&sid=${sid}`}`;
  };
  const closed = () => {
    if (!over) on.closed(0);
    over = true;
  };
  const ask = async (method, body, name) => {
    const response = await http.asyncRequest(method, url(), body, { tags: { name }, timeout: '60s' });
    if (response.status !== 200) closed();
    return over ? '' : response.body;
  };
  // One POST at a time: a second one beside it would end the session.
  const flush = async () => {
    if (posting) return;
    posting = true;
    while (waiting.length > 0 && !over) await ask('POST', waiting.splice(0).join(SEPARATOR), 'poll_post');
    posting = false;
  };
  const session = new Session(at, { frame: (frame) => over || on.frame(frame), closed }, (packet) => {
    waiting.push(packet);
    flush();
  });
  const poll = async () => {
    while (!over) {
      const packets = (await ask('GET', null, 'poll')).split(SEPARATOR).filter(Boolean);
      for (const packet of packets) {
        if (packet[0] === '0') sid = JSON.parse(packet.slice(1)).sid;
        session.take(packet);
      }
    }
  };
  poll();
  return {
    send: (event, id, data) => session.emit(event, id, data),
    close: async () => {
      if (over) return;
      over = true;
      // Also ends the poll under way, which nobody else could.
      if (sid) await http.asyncRequest('POST', url(), '1', { tags: { name: 'poll_close' } });
      on.closed(0);
    },
  };
}
