// Official Socket.IO clients, as many as are asked for: does what lines of JSON on its input say,
// and tells all that happens in lines of JSON on its output. See ../src/peers/process.rs.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { io } = createRequire(`${process.argv[2]}/`)("socket.io-client");
const sockets = new Map();
// Checkpoints that have not been acknowledged, of clients that are not to do so yet.
const unacknowledged = new Map();

const tell = (name, what) => process.stdout.write(`${JSON.stringify({ name, ...what })}\n`);

// JSON has no bytes.
const argument = (value) => (value?.$bytes ? Buffer.from(value.$bytes) : value);

const actions = {
  connect({ name, url, auth, options }) {
    const socket = io(url, { ...options, auth, forceNew: true });
    sockets.set(name, socket);
    const event = (event, ...args) => tell(name, { event, args });
    const transport = () => socket.io.engine.transport.name;
    socket.on("connect", () => {
      event("connect", { id: socket.id, recovered: socket.recovered, transport: transport() });
    });
    socket.on("disconnect", (reason) => event("disconnect", { reason, active: socket.active }));
    socket.on("connect_error", ({ message, data = null }) => {
      event("connect_error", { message, data, active: socket.active });
    });
    // Each time the connection is opened its engine is another one.
    socket.io.on("open", () => {
      socket.io.engine.on("upgrade", () => event("upgrade", { transport: transport() }));
    });
    socket.onAny(event);
    unacknowledged.set(name, []);
    socket.on("checkpoint", (_, acknowledge) => {
      const waiting = unacknowledged.get(name);
      if (waiting) waiting.push(acknowledge);
      else acknowledge();
    });
  },

  emit({ name, event, args, ack }) {
    const socket = sockets.get(name);
    args = args.map(argument);
    if (ack === null) return socket.emit(event, ...args);
    // Clients that send again tell their own failures in a first argument.
    const own = socket.io.opts.retries === undefined ? 0 : 1;
    return socket.emit(event, ...args, (...answer) => tell(name, { ack, args: answer.slice(own) }));
  },

  state({ name, ack }) {
    const socket = sockets.get(name);
    const { connected, recovered, _pid: pid, _lastOffset: offset } = socket;
    const transport = socket.io.engine?.transport?.name;
    tell(name, { ack, args: [{ ok: true, data: { connected, recovered, pid, offset, transport } }] });
  },

  // What the client is going to recover with, made up.
  forge({ name, what }) {
    const socket = sockets.get(name);
    if ("pid" in what) socket._pid = what.pid ?? undefined;
    if ("offset" in what) socket._lastOffset = what.offset ?? undefined;
  },

  auth({ name, auth }) {
    sockets.get(name).auth = auth;
  },

  acknowledge({ name }) {
    unacknowledged.get(name)?.forEach((acknowledge) => acknowledge());
    unacknowledged.delete(name);
  },

  // As if the network had gone: nobody is told, and the client comes back by itself.
  drop({ name }) {
    sockets.get(name).io.engine.close();
  },

  disconnect({ name }) {
    sockets.get(name).disconnect();
  },

  reconnect({ name }) {
    sockets.get(name).connect();
  },
};

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const { action, ...what } = JSON.parse(line);
    actions[action](what);
  })
  .on("close", () => process.exit());
