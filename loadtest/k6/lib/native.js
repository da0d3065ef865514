/** Natter's own WebSocket. */

import { WebSocket } from './websocket.js';

/**
 * Dials. A transport says `on.frame({event, data, cursor} | {reply, data | error, cursor})`, and
 * `on.closed(code)` once.
 * @param {string} base URL of a gateway
 * @param {{token: string, cursor: ?string}} at who, and up to where they have been told
 */
export function native(base, { token, cursor }, on) {
  // Shown in the first frame: a URL with a cursor would be a new one to k6's metrics every time.
  const socket = new WebSocket(`${base.replace(/^http/, 'ws')}/v1/ws`, null, {
    tags: { name: 'socket' },
  });
  const say = (frame) => socket.send(JSON.stringify(frame));
  socket.onopen = () => say({ event: 'authenticate', data: { token, ...(cursor && { cursor }) } });
  socket.onmessage = ({ data }) => on.frame(JSON.parse(data));
  socket.onclose = ({ code }) => on.closed(code);
  // A close follows, but not where it could not be dialled.
  socket.onerror = () => on.closed(0);
  return {
    send: (event, id, data) => say({ event, id, data }),
    close: () => socket.close(),
  };
}
