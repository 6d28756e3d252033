// ioredis, plain and for clusters. Arguments: the nodes, as ADDRESS:PORT.
"use strict";
const assert = require("node:assert");
const Redis = require("ioredis");

const nodes = process.argv.slice(2).map((address) => {
  const [host, port] = address.split(":");
  return { host, port: Number(port) };
});
const anyBytes = Buffer.from([...Array(256).keys(), 13, 10, 0]);

// Two cores that coordinate requests for the key themselves: what a node sends on for a client that chose another core may be
// done twice when the owner is late, and then there is a sibling more.
async function owners(ask, key) {
  const slot = await ask(["CLUSTER", "KEYSLOT", key]);
  const range = (await ask(["CLUSTER", "SLOTS"])).find(([first, last]) => first <= slot && slot <= last);
  return range.slice(2, 4).map(([host, port]) => ({ host, port }));
}

async function checkPlain() {
  const client = new Redis({ ...nodes[0], connectionName: "tester" });
  const other = new Redis(nodes[1]);
  assert.equal(await client.ping(), "PONG");
  assert.equal(await client.client("GETNAME"), "tester");
  assert.match(await client.info(), /redis_version:7\.2/);
  assert.equal(await client.set("js", "1"), "OK");
  assert.equal(await other.get("js"), "1");
  assert.equal(await client.get("absent"), null);
  assert.equal(await client.mset({ bytes: anyBytes, "js-2": "2" }), "OK");
  assert.deepEqual(await other.mgetBuffer("bytes", "absent", "js-2"), [anyBytes, null, Buffer.from("2")]);
  assert.equal(await client.exists("js", "absent", "bytes"), 2);
  assert.equal(await client.strlen("bytes"), anyBytes.length);
  await client.del("js", "js-2", "absent");
  assert.equal(await client.exists("js", "js-2"), 0);

  const pipeline = client.pipeline();
  for (let number = 0; number < 500; number++) pipeline.set(`pipeline-${number}`, number);
  pipeline.incr("refused");
  const answers = await pipeline.exec();
  const [error] = answers.pop();
  assert.match(error.message, /^ERR unknown command 'incr', with args beginning with: /);
  assert.ok(answers.every(([failed, answer]) => failed === null && answer === "OK"));
  // All of one turn of the event loop in one pipeline.
  const read = await Promise.all(answers.map((_, number) => other.get(`pipeline-${number}`)));
  assert.ok(read.every((value, number) => value === String(number)));

  await assert.rejects(client.multi().set("js", "2").set("js", "3").exec(), /EXECABORT Transaction discarded/);
  await assert.rejects(client.expire("js", 10), /ERR unknown command 'expire'/);
  await assert.rejects(client.set("js", "2", "EX", 10), /is not supported, nothing was written/);
  await assert.rejects(client.subscribe("channel"), /ERR unknown command 'subscribe'/);
  assert.equal(await other.get("js"), null);

  const [one, two] = (await owners((words) => client.call(...words), "js-cart")).map((core) => new Redis(core));
  await one.call("KV.PUT", "js-cart", "milk", "CTX", "", "W", 3);
  await two.call("KV.PUT", "js-cart", "bread", "CTX", "", "W", 3);
  const [context, values] = await one.call("KV.GET", "js-cart", "R", 3);
  assert.deepEqual(values.sort(), ["bread", "milk"]);
  await two.call("KV.PUT", "js-cart", "both", "CTX", context, "W", 3);
  assert.deepEqual((await one.call("KV.GET", "js-cart", "R", 3))[1], ["both"]);
  assert.equal(await client.quit(), "OK");
  [other, one, two].forEach((connection) => connection.disconnect());
}

async function checkCluster() {
  const cluster = new Redis.Cluster([nodes[0]]);
  const keys = [...Array(500).keys()].map((number) => `cluster-${number}`);
  await Promise.all(keys.map((key) => cluster.set(key, `value of ${key}`)));
  const values = await Promise.all(keys.map((key) => cluster.get(key)));
  assert.ok(values.every((value, number) => value === `value of ${keys[number]}`));
  assert.equal(cluster.nodes("master").length, 6);
  assert.equal(await cluster.mset("{tag}a", "1", "{tag}b", "2"), "OK");
  assert.deepEqual(await cluster.mget("{tag}a", "{tag}b"), ["1", "2"]);
  await Promise.all(cluster.nodes("all").map((node) => node.ping()));
  await cluster.quit();
}

checkPlain()
  .then(checkCluster)
  .then(() => console.log("ioredis", require("ioredis/package.json").version, "is served"));
