"""redis.RedisCluster: begins with one node, finds the others, and goes on while one is killed and comes back.

Argument: one node, as ADDRESS:PORT. Several threads write and read keys of their own again and again; nothing gets past the
client's own retries but a node's word that it reaches too few others just now. On SIGUSR1 it says when all keys were written and
read since then. On SIGTERM it reads all keys once more and ends.
"""

import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from redis.backoff import ExponentialBackoff
from redis.cluster import RedisCluster
from redis.exceptions import ResponseError
from redis.retry import Retry

THREADS = 4
KEYS = 64

host, port = sys.argv[1].split(":")


def connect():
    retry = Retry(ExponentialBackoff(base=0.05, cap=0.5), 20)
    return RedisCluster(host, int(port), retry=retry, socket_timeout=30)


def connect_to_all():
    deadline = time.monotonic() + 60
    while len((client := connect()).get_nodes()) < 6:
        # On a machine that is busy nodes may take each other for dead for a moment.
        assert time.monotonic() < deadline, client.get_nodes()
        client.close()
    return client


def check_commands(client):
    # It takes a core for a primary or a replica by the first range that names it, and sends by ranges all the same.
    assert {node.server_type for node in client.get_nodes()} == {"primary", "replica"}
    assert sum(last - first + 1 for first, last in client.cluster_slots()) == 16384
    assert len(client.cluster_nodes()) == 6 and client.cluster_info()["cluster_state"] == "ok"
    assert client.cluster_keyslot("foo") == client.keyslot("foo") == 12182
    assert client.ping(target_nodes=RedisCluster.ALL_NODES) is True
    many = {f"many-{number}": str(number).encode() for number in range(200)}
    assert client.mset_nonatomic(many) and client.mget_nonatomic(many) == list(many.values())
    assert client.mset({"{tag}a": "1", "{tag}b": "2"}) and client.mget("{tag}a", "{tag}b") == [b"1", b"2"]
    with client.pipeline() as pipeline:
        for key in many:
            pipeline.get(key)
        assert pipeline.execute() == list(many.values())
    assert client.exists(*many) == 200 and client.delete(*many) <= 200 and client.exists(*many) == 0
    context, values = client.execute_command("KV.GET", "{tag}a")
    assert values == [b"1"] and client.execute_command("KV.PUT", "{tag}a", "2", "CTX", context)


def insist(call, *arguments):
    """Again while a node says that it reaches too few others: on a machine that is busy that happens for a moment."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return call(*arguments)
        except ResponseError as error:
            if not str(error).startswith("UNAVAILABLE") or time.monotonic() > deadline:
                raise


class Writer:
    """The only one to write its keys, one after the other: what it reads is what it wrote last."""

    def __init__(self, client, number):
        self.client = client
        self.written = {f"{number}-{key}": None for key in range(KEYS)}

    def write_and_read(self):
        for key, value in self.written.items():
            value = b"%d" % (int(value or 0) + 1)
            assert insist(self.client.set, key, value) is True
            self.written[key] = value
            self.read(self.client, key)

    def read(self, client, key):
        value = insist(client.get, key)
        assert value == self.written[key], f"{key} is {value} and not {self.written[key]}"


asked, stopped = 0, False


def ask(*_):
    global asked
    asked += 1


def stop(*_):
    global stopped
    stopped = True


signal.signal(signal.SIGUSR1, ask)
signal.signal(signal.SIGTERM, stop)

client = connect_to_all()
check_commands(client)
writers = [Writer(client, number) for number in range(THREADS)]
told = -1
with ThreadPoolExecutor(THREADS) as threads:
    while not stopped:
        asked_before = asked
        list(threads.map(Writer.write_and_read, writers))
        if asked_before != told:
            told = asked_before
            print(f"all keys were written and read, as asked {told} times")
fresh = connect()
for writer in writers:
    for key in writer.written:
        writer.read(fresh, key)
print(f"nothing is lost of {THREADS * KEYS} keys, last {writers[0].written['0-0'].decode()}")
