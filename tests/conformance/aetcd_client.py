"""Drives a running cluster with the asyncio client aetcd (1.0): many requests in flight on one connection.

usage: aetcd_client.py ENDPOINTS (host:port, comma separated)
"""

import asyncio
import sys

import aetcd
import aetcd.rpc

from answers import AsyncRecorder, paused, show

CHECKS = 0


def same(name, expected, actual):
    """One check; the first that fails ends the run."""
    global CHECKS
    if expected != actual:
        sys.exit(f"FAIL {name}: expected {expected!r}, got {actual!r}")
    CHECKS += 1


async def refused(name, text, call):
    """The call must fail and say `text`."""
    try:
        result = await call
    except Exception as error:  # the client wraps some codes and passes others on
        cause = error.__cause__ or error.__context__ or error
        said = f"{error} {cause}"
        same(name, True, text in said or said)
        return
    sys.exit(f"FAIL {name}: expected {text!r}, got the answer {result!r}")


async def key_value(client):
    await client.put(b"aio/a", b"1")
    got = await client.get(b"aio/a")
    same("get", (b"1", 1), (got.value, got.version))
    answer = await client.put(b"aio/a", b"2", prev_kv=True)
    same("previous pair", b"1", answer.prev_kv.value)
    same("missing", None, await client.get(b"aio/missing"))
    same("serializable", b"2", (await client.get(b"aio/a", serializable=True)).value)
    for key, value in [(b"aio/c", b"1"), (b"aio/b", b"3")]:
        await client.put(key, value)
    found = await client.get_prefix(b"aio/")
    same("prefix", [b"aio/a", b"aio/b", b"aio/c"], [pair.key for pair in found])
    found = await client.get_range(b"aio/a", b"aio/c")
    same("range", [b"aio/a", b"aio/b"], [pair.key for pair in found])
    found = await client.get_prefix(b"aio/", sort_order="descend", sort_target="value")
    same("by value, descending", [b"aio/b", b"aio/a", b"aio/c"], [pair.key for pair in found])
    found = await client.get_prefix(b"aio/", keys_only=True)
    same("keys only", [b"", b"", b""], [pair.value for pair in found])
    deleted = await client.delete(b"aio/b", prev_kv=True)
    same("delete with the old pair", b"3", deleted.prev_kv.value)
    same("delete a prefix", 2, (await client.delete_prefix(b"aio/")).deleted)


async def transactions(client):
    operations = client.transactions
    done, _ = await client.transaction(
        compare=[operations.version(b"aio/t") == 0], success=[operations.put(b"aio/t", b"1")], failure=[]
    )
    same("create if absent", True, done)
    done, answers = await client.transaction(
        compare=[operations.version(b"aio/t") == 0],
        success=[operations.put(b"aio/t", b"2")],
        failure=[operations.get(b"aio/t")],
    )
    same("not twice", (False, b"1"), (done, answers[0][0][0]))
    same("replace", True, await client.replace(b"aio/t", b"1", b"2"))


async def concurrent_increments(clients):
    """Optimistic counters over all members: no increment may be lost."""
    operations = clients[0].transactions
    await clients[0].put(b"aio/counter", b"0")

    async def increment(client):
        while True:
            got = await client.get(b"aio/counter")
            done, _ = await client.transaction(
                compare=[operations.mod(b"aio/counter") == got.mod_revision],
                success=[operations.put(b"aio/counter", str(int(got.value) + 1).encode())],
                failure=[],
            )
            if done:
                return

    with paused():
        await asyncio.gather(*(increment(clients[at % len(clients)]) for at in range(30)))
    same("increments", b"30", (await clients[0].get(b"aio/counter")).value)
    with paused():
        await asyncio.gather(*(clients[at % len(clients)].put(b"aio/p/%03d" % at, b"x") for at in range(300)))
        written = list(await clients[1].get_prefix(b"aio/p/"))
    same("300 puts at once", 300, len(written))
    show("their revisions", sorted(pair.mod_revision for pair in written))


async def errors(client):
    await refused("empty key", "key is not provided", client.put(b"", b"x"))
    await refused("too large", "request is too large", client.put(b"aio/large", b"x" * 1_600_000))
    operations = client.transactions
    many = [operations.put(b"aio/%d" % at, b"x") for at in range(129)]
    await refused("129 operations", "too many operations in txn request", client.transaction([], many, []))
    await client.put(b"aio/k", b"1")
    now = (await client.get(b"aio/k")).mod_revision
    await client.compact(now)
    await refused("compacting twice", "required revision has been compacted", client.compact(now))


async def watches(client, peer):
    watch = await client.watch_prefix(b"aio/w/", prev_kv=True)
    first = (await peer.put(b"aio/w/a", b"1")).header.revision
    await peer.put(b"aio/w/a", b"2")
    await client.delete(b"aio/w/a")
    seen = []
    async for event in watch:
        show(f"event {event.kind}", event)
        seen.append((str(event.kind), event.kv.key, event.kv.value, event.prev_kv and event.prev_kv.value))
        if len(seen) == 3:
            break
    await watch.cancel()
    expected = [("PUT", b"aio/w/a", b"1", b""), ("PUT", b"aio/w/a", b"2", b"1"), ("DELETE", b"aio/w/a", b"", b"2")]
    same("a watch of the present", expected, seen)
    kind = aetcd.EventKind.DELETE
    event = await peer.watch_prefix_once(b"aio/w/", timeout=10, start_revision=first, kind=kind)
    same("only deletes, from the past", ("DELETE", first + 2), (str(event.kind), event.kv.mod_revision))


async def cluster(client):
    # Members come in the order of their ids, which are random.
    with paused():
        members = [member async for member in client.members()]
        status = await client.status()
    for name in sorted(member.name for member in members):
        show("member", name)
    same("three members", 3, len(members))
    same("status", 3, len(status.version.split(".")))


async def main():
    clients = []
    plain = aetcd.rpc.insecure_channel
    aetcd.rpc.insecure_channel = lambda *words, **named: plain(*words, **named, interceptors=[AsyncRecorder()])
    for endpoint in sys.argv[1].split(","):
        host, port = endpoint.rsplit(":", 1)
        client = aetcd.Client(host=host, port=int(port), timeout=10)
        await client.connect()
        clients.append(client)
    await key_value(clients[0])
    await transactions(clients[0])
    await concurrent_increments(clients)
    await errors(clients[0])
    await watches(clients[0], clients[-1])
    for client in clients:
        await cluster(client)
    await clients[0].delete_prefix(b"aio/")
    for client in clients:
        await client.close()
    print(f"aetcd: {CHECKS} checks passed")


asyncio.run(main())
