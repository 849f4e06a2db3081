// Drives a running cluster with the npm client etcd3 (1.1, on grpc-js): builders, options, balancing over endpoints.
// usage: node etcd3_client.mjs ENDPOINTS (host:port, comma separated); NODE_MODULES names the folder with the client.
// What it is answered goes into the file named by ANSWERS, which `cargo xtask conformance` compares with that of etcd.
import { appendFileSync } from "node:fs";
import { createRequire } from "node:module";
import process from "node:process";
import { isDeepStrictEqual } from "node:util";

const require = createRequire(`${process.env.NODE_MODULES ?? process.cwd()}/`);
const { Etcd3 } = require("etcd3");
const endpoints = process.argv[2].split(",").map((endpoint) => `http://${endpoint}`);
let checks = 0;
const lineMax = 1000;
let paused = false;

/** One step of the transcript. */
function show(name, value) {
  if (paused || !process.env.ANSWERS) return;
  const readable = (_, part) => (part?.type === "Buffer" ? Buffer.from(part.data).toString("latin1") : part);
  const text = typeof value === "string" ? value : JSON.stringify(value, readable, 1);
  const cut = (line) => (line.length <= lineMax ? line : `${line.slice(0, lineMax)}... ${line.length} characters`);
  const lines = [`== ${name}`, ...text.split("\n")].map(cut);
  appendFileSync(process.env.ANSWERS, `${lines.join("\n")}\n`);
}

// Every single call of every client goes through here; what comes in streams depends on timing.
const { ConnectionPool } = require("etcd3/lib/connection-pool");
const exec = ConnectionPool.prototype.exec;
ConnectionPool.prototype.exec = async function (service, method, request, options) {
  const text = JSON.stringify(request, (_, part) => (part?.type === "Buffer" ? String(Buffer.from(part.data)) : part));
  try {
    const answer = await exec.call(this, service, method, request, options);
    show(`${service}.${method} ${text}`, answer);
    return answer;
  } catch (error) {
    show(`${service}.${method} ${text}`, `${error.constructor.name} ${error.message}`);
    throw error;
  }
};

/** One check; the first that fails ends the run. */
function same(name, expected, actual) {
  if (!isDeepStrictEqual(expected, actual)) {
    console.error(`FAIL ${name}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(actual)}`);
    process.exit(1);
  }
  checks += 1;
}

/** The call must fail and say `text`. */
async function refused(name, text, call) {
  let answer;
  try {
    answer = await call();
  } catch (error) {
    same(name, true, error.message.includes(text) || error.message);
    return;
  }
  same(name, `an error with ${text}`, answer);
}

async function keyValue(client) {
  await client.put("node/a").value("1");
  same("get", "1", await client.get("node/a").string());
  same("exists", true, await client.get("node/a").exists());
  same("missing", null, await client.get("node/missing").string());
  same("previous pair", "1", (await client.put("node/a").value("2").getPrevious()).value.toString());
  same("number", 2, await client.get("node/a").number());
  same("serializable", "2", await client.get("node/a").serializable(true).string());
  const before = (await client.get("node/a").exec()).header.revision;
  await client.put("node/a").value("3");
  same("at a revision", "2", await client.get("node/a").revision(before).string());
  await client.put("node/a").touch();
  same("touch keeps the value", "3", await client.get("node/a").string());
}

async function ranges(client) {
  for (const [key, value] of [["b", "2"], ["a", "3"], ["c", "1"]]) {
    await client.put(`node/r/${key}`).value(value);
  }
  const all = () => client.getAll().prefix("node/r/");
  same("prefix", { "node/r/a": "3", "node/r/b": "2", "node/r/c": "1" }, await all().strings());
  same("keys", ["node/r/a", "node/r/b", "node/r/c"], await all().keys());
  same("count", 3, await all().count());
  same("limit", ["node/r/a", "node/r/b"], await all().limit(2).keys());
  same("more", true, (await all().limit(2).exec()).more);
  same("by value", ["node/r/c", "node/r/b", "node/r/a"], await all().sort("Value", "Ascend").keys());
  same("by creation", ["node/r/c", "node/r/a", "node/r/b"], await all().sort("Create", "Descend").keys());
  same("range", ["node/r/a", "node/r/b"], await client.getAll().inRange({ start: "node/r/a", end: "node/r/c" }).keys());
  const newest = (await all().exec()).kvs.map((pair) => Number(pair.mod_revision));
  const middle = newest.sort((a, b) => a - b)[1];
  same("least modification revision", 2, (await all().minModRevision(middle).exec()).kvs.length);
  same("greatest creation revision", 2, (await all().maxCreateRevision(middle).exec()).kvs.length);
  same("delete with the old pairs", ["2"], (await client.delete().key("node/r/b").getPrevious()).map((p) => p.value.toString()));
  same("delete a prefix", "2", (await client.delete().prefix("node/r/")).deleted);
}

async function transactions(client) {
  const create = () => client.if("node/t", "Create", "==", 0).then(client.put("node/t").value("1")).commit();
  same("create if absent", true, (await create()).succeeded);
  same("not twice", false, (await create()).succeeded);
  const answer = await client
    .if("node/t", "Value", "==", "1")
    .and("node/t", "Version", "<", 5)
    .and("node/t", "Mod", "!=", 0)
    .then(client.put("node/t").value("2"), client.get("node/t"))
    .else(client.get("node/t"))
    .commit();
  same("success branch", true, answer.succeeded);
  same("a read after a write", "2", answer.responses[1].response_range.kvs[0].value.toString());
  const swap = await client.if("node/t", "Value", "==", "1").then(client.put("node/t").value("3")).commit();
  same("stale value", false, swap.succeeded);
}

async function errors(client) {
  await refused("empty key", "key is not provided", () => client.put("").value("x"));
  await refused("too large", "request is too large", () => client.put("node/large").value("x".repeat(1_600_000)));
  await refused("duplicate key", "duplicate key given in txn request", () =>
    client
      .if("node/t", "Version", "!=", 99)
      .then(client.put("node/d").value("1"), client.put("node/d").value("2"))
      .commit());
  const now = (await client.put("node/k").value("1")).header.revision;
  await client.kv.compact({ revision: now });
  await refused("compacting twice", "required revision has been compacted", () => client.kv.compact({ revision: now }));
  await refused("future", "required revision is a future revision", () => client.get("node/k").revision(1_000_000_000).string());
}

async function leases(client) {
  const lease = client.lease(60);
  await lease.put("node/leased").value("1");
  same("attached", await lease.grant(), (await client.get("node/leased").exec()).kvs[0].lease);
  await lease.keepaliveOnce();
  await lease.revoke();
  same("its key is gone", null, await client.get("node/leased").string());
  // Its keys hold random numbers, and it gives up at a time of its own.
  paused = true;
  const lock = client.lock("node/lock").ttl(10);
  await lock.acquire();
  let second = "acquired";
  try {
    await client.lock("node/lock").ttl(10).acquire();
  } catch (error) {
    second = error.constructor.name;
  }
  same("a lock that is held", "EtcdLockFailedError", second);
  await lock.release();
  same("inside a lock", 7, await client.lock("node/lock").ttl(10).do(async () => 7));
  paused = false;
}

/** The next `count` events of a watch, each as text and whole. */
function events(watcher, count) {
  return new Promise((resolve, reject) => {
    const seen = [];
    const note = (text, pair) => seen.push([text, pair]) === count && resolve(seen);
    watcher.on("put", (pair) => note(`${pair.key}=${pair.value}`, pair));
    watcher.on("delete", (pair) => note(`-${pair.key}`, pair));
    watcher.on("error", reject);
  });
}

/** Their text. They are written down here, not when they come: that can be before or after the answers to writes. */
async function told(promised) {
  const seen = await promised;
  seen.forEach(([text, pair]) => show(`event ${text}`, pair));
  return seen.map(([text]) => text);
}

async function watches(client) {
  const watcher = await client.watch().prefix("node/w/").create();
  const present = events(watcher, 3);
  const first = Number((await client.put("node/w/a").value("1")).header.revision);
  await client.put("node/w/b").value("2");
  await client.delete().key("node/w/a");
  const all = ["node/w/a=1", "node/w/b=2", "-node/w/a"];
  same("a watch of the present", all, await told(present));
  await watcher.cancel();
  const past = await client.watch().prefix("node/w/").startRevision(String(first)).create();
  same("a watch of the past", all, await told(events(past, 3)));
  await past.cancel();
}

async function cluster(client) {
  // Members come in the order of their ids, which are random.
  paused = true;
  const { members } = await client.cluster.memberList({});
  same("three members", 3, members.length);
  const status = await client.maintenance.status();
  paused = false;
  members.map((member) => member.name).sort().forEach((name) => show("member", name));
  same("the leader is a member", true, members.some((member) => member.ID === status.leader));
  same("version has three numbers", 3, status.version.split(".").length);
}

const everywhere = new Etcd3({ hosts: endpoints });
await keyValue(everywhere);
await ranges(everywhere);
await transactions(everywhere);
await errors(everywhere);
await leases(everywhere);
await watches(everywhere);
for (const endpoint of endpoints) {
  const client = new Etcd3({ hosts: endpoint });
  await cluster(client);
  same("a write on one member is read on another", "3", await client.get("node/a").string());
  client.close();
}
await everywhere.delete().prefix("node/");
everywhere.close();
console.log(`node etcd3: ${checks} checks passed`);
