"""Deep pipelines, as memtier_benchmark makes them: ten gets to a put, several threads, values of many sizes; and each answer
is checked.

Arguments: nodes, as ADDRESS:PORT, of which one is enough. Each connection is to one core and has keys of its own, which that
core owns, so it knows what each get must answer.
"""

import itertools
import random
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import redis

THREADS = 4
COMMANDS = 3000
DEPTH = 200
KEYS = 50
VALUE_BYTES_MAX = 8192

host, port = sys.argv[1].split(":")
cluster = redis.RedisCluster(host, int(port))


def work(number):
    core = cluster.get_node_from_key(f"{number}-0")
    names = (f"{number}-{name}" for name in itertools.count())
    keys = list(itertools.islice((name for name in names if cluster.get_node_from_key(name) == core), KEYS))
    connection = redis.Connection(host=core.host, port=core.port, socket_timeout=60, protocol=2 + number % 2)
    draw = random.Random(number)
    stored, expected = {}, deque()

    def check():
        command, key, wanted = expected.popleft()
        answer = connection.read_response(disable_decoding=True)
        assert answer == wanted, f"{command} {key}: {answer[:20] if answer else answer} and not {wanted and wanted[:20]}"

    for _ in range(COMMANDS):
        key = draw.choice(keys)
        if draw.randrange(11) == 0:
            stored[key] = draw.randbytes(draw.randrange(VALUE_BYTES_MAX + 1))
            expected.append(("SET", key, b"OK"))
            connection.send_command("SET", key, stored[key])
        else:
            expected.append(("GET", key, stored.get(key)))
            connection.send_command("GET", key)
        if len(expected) == DEPTH:
            check()
    while expected:
        check()


with ThreadPoolExecutor(THREADS) as threads:
    list(threads.map(work, range(THREADS)))
