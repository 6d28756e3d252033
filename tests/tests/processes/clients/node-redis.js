// node-redis, plain with each version of the protocol, and for clusters. Arguments: the nodes, as ADDRESS:PORT.
"use strict";
const assert = require("node:assert");
const { createClient, createCluster, RESP_TYPES } = require("redis");

const urls = process.argv.slice(2).map((address) => `redis://${address}`);
const anyBytes = Buffer.from([...Array(256).keys(), 13, 10, 0]);

// Two cores that coordinate requests for the key themselves: what a node sends on for a client that chose another core may be
// done twice when the owner is late, and then there is a sibling more.
async function owners(ask, key) {
  const slot = await ask(["CLUSTER", "KEYSLOT", key]);
  const range = (await ask(["CLUSTER", "SLOTS"])).find(([first, last]) => first <= slot && slot <= last);
  return range.slice(2, 4).map(([host, port]) => ({ host, port }));
}

async function checkPlain(RESP) {
  const client = await createClient({ url: urls[0], name: "tester", RESP }).connect();
  const other = await createClient({ url: urls[1], RESP }).connect();
  assert.equal(await client.ping(), "PONG");
  assert.equal(await client.clientGetName(), "tester");
  assert.equal((await client.clientInfo()).libName.startsWith("node-redis"), true);
  assert.equal(await client.set("js", "1"), "OK");
  assert.equal(await other.get("js"), "1");
  assert.equal(await client.get("absent"), null);
  assert.equal(await client.mSet({ "js-1": "1", "js-2": "2" }), "OK");
  assert.deepEqual(await other.mGet(["js-1", "absent", "js-2"]), ["1", null, "2"]);
  await client.set("bytes", anyBytes);
  const buffers = other.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  assert.deepEqual(await buffers.get("bytes"), anyBytes);
  assert.equal(await client.exists(["js", "absent", "bytes"]), 2);
  assert.equal(await client.strLen("bytes"), anyBytes.length);
  await client.del(["js", "js-1", "absent"]);
  assert.equal(await client.exists(["js", "js-1"]), 0);
  // All of one turn of the event loop in one pipeline.
  const numbers = [...Array(500).keys()];
  await Promise.all(numbers.map((number) => client.set(`pipeline-${number}`, String(number))));
  const read = await Promise.all(numbers.map((number) => other.get(`pipeline-${number}`)));
  assert.ok(read.every((value, number) => value === String(number)));

  await assert.rejects(client.multi().set("js", "2").set("js", "3").exec(), /MULTI is not supported|EXECABORT/);
  assert.deepEqual(await client.multi().set("js", "2").get("absent").execAsPipeline(), ["OK", null]);
  await client.del("js");
  await assert.rejects(client.expire("js", 10), /ERR unknown command 'EXPIRE', with args beginning with: /);
  await assert.rejects(client.set("js", "2", { EX: 10 }), /is not supported, nothing was written/);
  assert.equal(await other.get("js"), null);

  const connect = ({ host, port }) => createClient({ socket: { host, port }, RESP }).connect();
  const [one, two] = await Promise.all((await owners((words) => client.sendCommand(words), "js-cart")).map(connect));
  await one.sendCommand(["KV.DEL", "js-cart", "W", "3"]);
  await one.sendCommand(["KV.PUT", "js-cart", "milk", "CTX", "", "W", "3"]);
  await two.sendCommand(["KV.PUT", "js-cart", "bread", "CTX", "", "W", "3"]);
  const [context, values] = await one.sendCommand(["KV.GET", "js-cart", "R", "3"]);
  assert.deepEqual(values.sort(), ["bread", "milk"]);
  await two.sendCommand(["KV.PUT", "js-cart", "both", "CTX", context, "W", "3"]);
  assert.deepEqual((await one.sendCommand(["KV.GET", "js-cart", "R", "3"]))[1], ["both"]);
  await Promise.all([client, other, one, two].map((connection) => connection.close()));
}

async function checkCluster() {
  const cluster = await createCluster({ rootNodes: [{ url: urls[0] }] }).connect();
  assert.equal(cluster.masters.length, 6);
  const keys = [...Array(500).keys()].map((number) => `cluster-${number}`);
  await Promise.all(keys.map((key) => cluster.set(key, `value of ${key}`)));
  const values = await Promise.all(keys.map((key) => cluster.get(key)));
  assert.ok(values.every((value, number) => value === `value of ${keys[number]}`));
  assert.equal(await cluster.mSet({ "{tag}a": "1", "{tag}b": "2" }), "OK");
  assert.deepEqual(await cluster.mGet(["{tag}a", "{tag}b"]), ["1", "2"]);
  await cluster.close();
}

checkPlain(2)
  .then(() => checkPlain(3))
  .then(checkCluster)
  .then(() => console.log("node-redis", require("redis/package.json").version, "is served"));
