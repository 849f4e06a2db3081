"""Drives a running cluster with the Python client etcd3 (0.12, generated code of the old protobuf runtime).

usage: etcd3_client.py ENDPOINTS (host:port, comma separated)
"""

import sys

import etcd3
import grpc

from answers import Recorder, paused, show

CHECKS = 0


def same(name, expected, actual):
    """One check; the first that fails ends the run."""
    global CHECKS
    if expected != actual:
        sys.exit(f"FAIL {name}: expected {expected!r}, got {actual!r}")
    CHECKS += 1


def refused(name, code, text, call):
    """The call must fail with this status, by code and by text: clients look at either."""
    try:
        result = call()
    except grpc.RpcError as error:
        same(f"{name} (code)", code, error.code())
        same(f"{name} (text)", text, error.details())
        return
    sys.exit(f"FAIL {name}: expected {text!r}, got the answer {result!r}")


def keys(pairs):
    return [meta.key for _, meta in pairs]


def key_value(client):
    client.put("py/a", "1")
    value, meta = client.get("py/a")
    same("get", b"1", value)
    same("created", (1, meta.create_revision), (meta.version, meta.mod_revision))
    first = meta.mod_revision
    answer = client.put("py/a", b"\x00\xff binary", prev_kv=True)
    same("previous pair", b"1", answer.prev_kv.value)
    value, meta = client.get("py/a")
    same("binary value", b"\x00\xff binary", value)
    same("one write, one revision", (first + 1, 2, first), (meta.mod_revision, meta.version, meta.create_revision))
    same("missing", (None, None), client.get("py/missing"))
    same("serializable", b"\x00\xff binary", client.get("py/a", serializable=True)[0])
    client.put("py/empty", "")
    same("empty value", b"", client.get("py/empty")[0])
    same("delete", True, client.delete("py/empty"))
    same("delete of nothing", False, client.delete("py/empty"))
    same("delete with the old pair", b"\x00\xff binary", client.delete("py/a", True, True).prev_kvs[0].value)


def ranges(client):
    for key, value in [("py/r/b", "2"), ("py/r/a", "3"), ("py/r/c", "1")]:
        client.put(key, value)
    same("prefix", [b"py/r/a", b"py/r/b", b"py/r/c"], keys(client.get_prefix("py/r/")))
    same("range", [b"py/r/a", b"py/r/b"], keys(client.get_range("py/r/a", "py/r/c")))
    descending = client.get_prefix("py/r/", sort_order="descend")
    same("descending", [b"py/r/c", b"py/r/b", b"py/r/a"], keys(descending))
    by_value = client.get_prefix("py/r/", sort_order="ascend", sort_target="value")
    same("by value", [b"py/r/c", b"py/r/b", b"py/r/a"], keys(by_value))
    by_creation = client.get_prefix("py/r/", sort_order="ascend", sort_target="create")
    same("by creation", [b"py/r/b", b"py/r/a", b"py/r/c"], keys(by_creation))
    same("keys only", [b""] * 3, [value for value, _ in client.get_prefix("py/r/", keys_only=True)])
    same("everything", True, {b"py/r/a", b"py/r/b", b"py/r/c"} <= set(keys(client.get_all())))
    same("delete a prefix", 3, client.delete_prefix("py/r/").deleted)


def transactions(client):
    same("create if absent", True, client.put_if_not_exists("py/t", "1"))
    same("not twice", False, client.put_if_not_exists("py/t", "2"))
    same("replace", True, client.replace("py/t", "1", "3"))
    same("replace of a stale value", False, client.replace("py/t", "1", "4"))
    compare, operations = client.transactions, client.transactions
    done, answers = client.transaction(
        compare=[compare.value("py/t") == "3", compare.version("py/t") > 1, compare.create("py/t") != 0],
        success=[operations.put("py/t", "5"), operations.get("py/t"), operations.delete("py/none")],
        failure=[operations.get("py/t")],
    )
    same("success branch", (True, 3), (done, len(answers)))
    same("a read after a write of the same transaction", b"5", answers[1][0][0])
    done, answers = client.transaction(
        compare=[compare.mod("py/t") < 1],
        success=[operations.put("py/t", "6")],
        failure=[operations.get("py/t"), operations.txn([compare.version("py/t") > 0], [operations.put("py/u", "n")], [])],
    )
    same("failure branch", (False, b"5"), (done, answers[0][0][0]))
    same("nested branch", b"n", client.get("py/u")[0])
    many = [operations.put(f"py/many/{at}", "x") for at in range(128)]
    same("128 operations", True, client.transaction([], many, [])[0])
    revisions = {meta.mod_revision for _, meta in client.get_prefix("py/many/")}
    same("one transaction, one revision", 1, len(revisions))


def errors(client, peer):
    code = grpc.StatusCode
    operations = client.transactions
    refused("empty key", code.INVALID_ARGUMENT, "etcdserver: key is not provided", lambda: client.put("", "x"))
    many = [operations.put(f"py/many/{at}", "x") for at in range(129)]
    refused(
        "129 operations",
        code.INVALID_ARGUMENT,
        "etcdserver: too many operations in txn request",
        lambda: client.transaction([], many, []),
    )
    twice = [operations.put("py/d", "1"), operations.put("py/d", "2")]
    refused(
        "duplicate key",
        code.INVALID_ARGUMENT,
        "etcdserver: duplicate key given in txn request",
        lambda: client.transaction([], twice, []),
    )
    refused(
        "too large",
        code.INVALID_ARGUMENT,
        "etcdserver: request is too large",
        lambda: client.put("py/large", "x" * 1_600_000),
    )
    client.put("py/k", "1")
    now = client.get("py/k")[1].mod_revision
    client.compact(now)
    refused(
        "compacting twice",
        code.OUT_OF_RANGE,
        "etcdserver: mvcc: required revision has been compacted",
        lambda: client.compact(now),
    )
    refused(
        "compacting the future",
        code.OUT_OF_RANGE,
        "etcdserver: mvcc: required revision is a future revision",
        lambda: client.compact(now + 1_000_000),
    )
    same("a write on one member is read on another", b"1", peer.get("py/k")[0])


def leases(client):
    lease = client.lease(60)
    client.put("py/leased", "1", lease=lease)
    same("time to live", 60, lease.granted_ttl)
    same("time left", True, 50 <= lease.remaining_ttl <= 60)
    same("attached keys", [b"py/leased"], list(lease.keys))
    same("keep alive", [60], [answer.TTL for answer in lease.refresh()])
    show("renewals", [answer.TTL for answer in lease.refresh()])
    lease.revoke()
    same("its key is gone", None, client.get("py/leased")[0])
    same("keep alive of an ended lease", [0], [answer.TTL for answer in lease.refresh()])
    refused("revoking twice", grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found", lease.revoke)
    # Its value is a random number.
    with paused():
        lock = client.lock("py-lock", ttl=10)
        same("lock", True, lock.acquire(timeout=5))
        same("is held", True, lock.is_acquired())
        same("lock released", True, lock.release())


def shown(event):
    show(f"event {type(event).__name__}", event._event)
    return type(event).__name__, event.key, event.value


def watches(client, peer):
    events, cancel = client.watch_prefix("py/w/")
    peer.put("py/w/a", "1")
    client.put("py/w/b", "2")
    peer.delete("py/w/a")
    seen = [next(events) for _ in range(3)]
    expected = [("PutEvent", b"py/w/a", b"1"), ("PutEvent", b"py/w/b", b"2"), ("DeleteEvent", b"py/w/a", b"")]
    same("a watch of the present", expected, [shown(event) for event in seen])
    same("revisions follow each other", [0, 1, 2], [event.mod_revision - seen[0].mod_revision for event in seen])
    cancel()
    first = seen[0].mod_revision
    events, cancel = peer.watch_prefix("py/w/", start_revision=first + 1, prev_kv=True)
    past = [next(events) for _ in range(2)]
    same("a watch of the past", expected[1:], [shown(event) for event in past])
    same("the pair before", b"1", past[1].prev_value)
    cancel()
    client.compact(first + 2)
    events, cancel = client.watch("py/w/a", start_revision=first)
    try:
        same("an error", True, next(events))
    except etcd3.exceptions.RevisionCompactedError as error:
        same("compacted history", first + 2, error.compacted_revision)
        show("watch of what is compacted", error.compacted_revision)


def cluster(client):
    # Members come in the order of their ids, which are random.
    with paused():
        members = list(client.members)
    for name in sorted(member.name for member in members):
        show("member", name)
    same("three members", 3, len(members))
    same("members have URLs", True, all(member.client_urls and member.peer_urls for member in members))
    with paused():
        status = client.status()
    same("the leader is a member", True, status.leader.id in {member.id for member in members})
    same("version has three numbers", 3, len(status.version.split(".")))
    same("the log has entries", True, status.raft_index > 0 and status.raft_term > 0)


def main():
    clients = []
    plain = grpc.insecure_channel
    grpc.insecure_channel = lambda *words, **named: grpc.intercept_channel(plain(*words, **named), Recorder())
    for endpoint in sys.argv[1].split(","):
        host, port = endpoint.rsplit(":", 1)
        clients.append(etcd3.client(host=host, port=int(port), timeout=10))
    client, peer = clients[0], clients[1]
    key_value(client)
    ranges(client)
    transactions(client)
    errors(client, peer)
    leases(client)
    watches(client, peer)
    for each in clients:
        cluster(each)
    client.delete_prefix("py/")
    print(f"etcd3: {CHECKS} checks passed")


main()
