"""The Socket.IO client for Python, as many as are asked for: does what lines of JSON on its input
say, and tells all that happens in lines of JSON on its output. See ../src/peers/process.rs."""

import asyncio
import json
import sys

import socketio

clients = {}
auths = {}
# Set once a client is to acknowledge checkpoints.
acknowledging = {}
# Tasks are forgotten unless somebody holds them.
tasks = set()


def tell(name, **what):
    # JSON has no bytes.
    print(json.dumps({"name": name, **what}, default=lambda it: {"$bytes": list(it)}), flush=True)


def argument(value):
    return bytes(value["$bytes"]) if isinstance(value, dict) and "$bytes" in value else value


async def connect(name, url, auth, options):
    client = clients[name] = socketio.AsyncClient(
        reconnection=options.get("reconnection", True),
        reconnection_delay=options["reconnectionDelay"] / 1000,
        reconnection_delay_max=options["reconnectionDelayMax"] / 1000,
    )
    auths[name] = auth

    def event(event, *args):
        tell(name, event=event, args=args)

    def connected():
        event("connect", {"id": client.sid, "recovered": False, "transport": client.transport()})

    def refused(data=None):
        told = data if isinstance(data, dict) else {"message": str(data)}
        event("connect_error", {"data": None, **told})

    client.on("connect", connected)
    client.on("disconnect", lambda reason: event("disconnect", {"reason": reason}))
    client.on("connect_error", refused)
    client.on("*", event)
    acknowledges = acknowledging[name] = asyncio.Event()

    async def checkpoint(*args):
        event("checkpoint", *args)
        # What a handler returns is the acknowledgement.
        await acknowledges.wait()

    client.on("checkpoint", checkpoint)
    try:
        transports = options.get("transports")
        await client.connect(url, auth=lambda: auths[name], transports=transports)
    except socketio.exceptions.ConnectionError:
        pass  # Told as `connect_error`.


async def emit(name, event, args, ack):
    def answered(*answer):
        tell(name, ack=ack, args=answer)

    callback = None if ack is None else answered
    args = tuple(argument(value) for value in args)
    try:
        await clients[name].emit(event, args, callback=callback)
    except socketio.exceptions.BadNamespaceError:
        pass  # Sent while away: this client drops it.


async def state(name, ack):
    client = clients[name]
    data = {"connected": client.connected, "transport": client.transport()}
    tell(name, ack=ack, args=[{"ok": True, "data": data}])


async def auth(name, auth):
    auths[name] = auth


async def acknowledge(name):
    acknowledging[name].set()


async def drop(name):
    """As if the network had gone: nobody is told, and the client comes back by itself."""
    engine = clients[name].eio
    if engine.ws:
        await engine.ws.close()
    else:
        await engine.http.close()


async def disconnect(name):
    await clients[name].disconnect()


ACTIONS = {
    action.__name__: action for action in (connect, emit, state, auth, acknowledge, drop, disconnect)
}


async def main():
    lines = asyncio.StreamReader(limit=2**24)
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while line := await lines.readline():
        what = json.loads(line)
        action = ACTIONS[what.pop("action")](**what)
        # Connecting takes its time; all else is done in order.
        if action.__name__ == "connect":
            task = asyncio.create_task(action)
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        else:
            await action


asyncio.run(main())
