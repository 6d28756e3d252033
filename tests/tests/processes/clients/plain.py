"""redis.Redis with each version of the protocol: what a node knows, and how what it does not know is refused.

Arguments: the nodes, as ADDRESS:PORT.
"""

import sys

import redis
from redis.exceptions import ResponseError

nodes = [address.split(":") for address in sys.argv[1:]]
ANY_BYTES = bytes(range(256)) + b"\r\n$-1\r\n\x00"
VALUE_MAX = 256 << 10


def connect(node, **options):
    host, port = nodes[node]
    return redis.Redis(host, int(port), socket_timeout=60, **options)


def refused(words, call, error=ResponseError):
    try:
        answer = call()
    except error as refusal:
        assert type(refusal) is error and words in str(refusal), repr(refusal)
    else:
        raise AssertionError(f"not refused, but: {answer!r}")


def check_data(client, other):
    assert client.set("a", "1") is True
    assert client.get("a") == b"1" and other.get("a") == b"1"
    assert client.get("absent") is None
    assert client.mset({"b": "2", b"\x00\r\n": ANY_BYTES, "empty": ""}) is True
    assert other.mget("a", "absent", b"\x00\r\n", "empty") == [b"1", None, ANY_BYTES, b""]
    assert client.exists("a", "a", "absent", "empty") == 3
    assert client.strlen(b"\x00\r\n") == len(ANY_BYTES) and client.strlen("absent") == 0
    assert client.type("a") in (b"string", "string") and client.type("absent") in (b"none", "none")
    assert client.memory_usage("a") > 1 and client.memory_usage("absent") is None
    # As many as the node that deletes has seen.
    assert client.delete("a", "b", "absent") <= 2 and client.unlink("empty") <= 1
    assert client.mget("a", "b", "empty") == [None] * 3
    large = (ANY_BYTES * (VALUE_MAX // len(ANY_BYTES) + 1))[:VALUE_MAX]
    client.set("large", large)
    assert other.get("large") == large and client.strlen("large") == VALUE_MAX
    refused("at most 262144 are allowed; nothing was written", lambda: client.set("large", large + b"x"))
    refused("the key is empty", lambda: client.get(""))
    refused("at most 4096 are allowed", lambda: client.set("k" * 4097, ""))
    assert other.get("large") == large


def check_pipeline(client):
    client.delete(*(f"pipeline-{number}" for number in range(500)))
    with client.pipeline(transaction=False) as pipeline:
        for number in range(1000):
            pipeline.get(f"pipeline-{number % 500}").set(f"pipeline-{number % 500}", number)
        answers = pipeline.execute()
    assert all(answer is True for answer in answers[1::2])
    # Each get answers what was set before it, and not what is set after it.
    before = [None] * 500 + [b"%d" % number for number in range(500)]
    assert answers[::2] == before, answers
    # One refusal among answers.
    with client.pipeline(transaction=False) as pipeline:
        pipeline.set("among", "1").incr("among").get("among")
        done, failed, value = pipeline.execute(raise_on_error=False)
    assert (done, value) == (True, b"1") and isinstance(failed, ResponseError), failed


def check_refusals(client):
    client.set("kept", "1")
    pipeline = client.pipeline(transaction=True)
    pipeline.set("kept", "2").set("kept", "3")
    refused("pipeline(transaction=False)", pipeline.execute)
    refused("WATCH is not supported", lambda: client.pipeline().watch("kept"))
    for name, call in {
        "expire": lambda: client.expire("kept", 10),
        "ttl": lambda: client.ttl("kept"),
        "incrby": lambda: client.incr("kept"),
        "setex": lambda: client.setex("kept", 10, "2"),
        "append": lambda: client.append("kept", "2"),
        "hset": lambda: client.hset("kept", "field", "2"),
        "lpush": lambda: client.lpush("kept", "2"),
        "subscribe": lambda: client.execute_command("SUBSCRIBE", "channel"),
        "eval": lambda: client.eval("return 1", 0),
    }.items():
        refused(f"unknown command '{name.upper()}', with args beginning with: ", call)
    for option in [{"nx": True}, {"xx": True}, {"ex": 10}, {"get": True}, {"keepttl": True}]:
        refused("is not supported, nothing was written", lambda: client.set("kept", "2", **option))
    refused("is not supported, nothing was written", client.lock("kept", timeout=10).acquire)
    refused("listing keys is not supported", lambda: list(client.scan_iter()))
    refused("listing keys is not supported", lambda: client.keys("*"))
    refused("deleting all keys at once is not supported", client.flushdb)
    refused("the node's configuration file", lambda: client.config_set("maxmemory", "1"))
    assert client.get("kept") == b"1"


def check_connection(client, protocol):
    assert client.ping() is True and client.echo(ANY_BYTES) == ANY_BYTES
    assert client.client_getname() in (b"tester", "tester") and client.client_id() > 0
    info = client.client_info()
    wanted = {"name": "tester", "lib-name": "redis-py", "lib-ver": redis.__version__, "resp": str(protocol)}
    assert {key: info.get(key) for key in wanted} == wanted, info
    assert any(line["name"] == "tester" for line in client.client_list())
    assert client.info()["redis_version"].startswith("7.2.") and client.info("server")["redis_mode"] == "cluster"
    assert client.info("cluster")["cluster_enabled"] == 1 and client.dbsize() >= 0
    assert client.role()[0] in (b"master", "master") and client.time()[0] > 0
    assert client.config_get("appendonly") == {"appendonly": "yes"} and client.slowlog_get() == []
    assert client.command_count() == len(client.command()) > 40
    assert client.command_getkeys("MSET", "a", "1", "b", "2") in ([b"a", b"b"], ["a", "b"])


def owners(key, protocol):
    """Connections to two cores that coordinate requests for the key themselves: what a node sends on for a client that chose
    another core may be done twice when the owner is late, and then there is a sibling more."""
    host, port = nodes[0]
    cluster = redis.RedisCluster(host, int(port))
    cores = cluster.nodes_manager.slots_cache[cluster.keyslot(key)][:2]
    return [redis.Redis(core.host, core.port, socket_timeout=60, protocol=protocol) for core in cores]


def check_siblings(client, other):
    client.execute_command("KV.DEL", "cart", "W", 3)
    client.execute_command("KV.PUT", "cart", "milk", "CTX", "", "W", 3)
    other.execute_command("KV.PUT", "cart", b"\x00\r\n", "CTX", "", "W", 3)
    context, values = client.execute_command("KV.GET", "cart", "R", 3)
    assert sorted(values) == [b"\x00\r\n", b"milk"], values
    assert other.get("cart") == values[0]
    newer = client.execute_command("KV.PUT", "cart", "both", "CTX", context, "W", 3)
    # Who has seen the same as the one before has not seen what that one wrote.
    other.execute_command("KV.PUT", "cart", "mine", "CTX", context, "W", 3)
    context, values = other.execute_command("KV.GET", "cart", "R", 3)
    assert sorted(values) == [b"both", b"mine"], values
    other.execute_command("KV.DEL", "cart", "CTX", newer, "W", 3)
    assert client.execute_command("KV.GET", "cart", "R", 3)[1] == [b"mine"]
    client.execute_command("KV.DEL", "cart", "CTX", context, "W", 3)
    assert client.execute_command("KV.GET", "cart", "R", 3)[1] == [] and other.get("cart") is None
    refused("BADCONTEXT", lambda: client.execute_command("KV.PUT", "cart", "x", "CTX", "forged"))
    text = connect(0, decode_responses=True, protocol=client.connection_pool.connection_kwargs["protocol"])
    context, values = text.execute_command("KV.GET", "cart")
    text.execute_command("KV.PUT", "cart", "text", "CTX", context)
    assert text.get("cart") == "text"


for protocol in (2, 3):
    # So often that before each command the connection's health is checked.
    options = {"protocol": protocol, "client_name": "tester", "health_check_interval": 1e-6}
    client, other = connect(0, **options), connect(1, protocol=protocol)
    check_connection(client, protocol)
    check_data(client, other)
    check_pipeline(client)
    check_refusals(client)
    check_siblings(*owners("cart", protocol))
