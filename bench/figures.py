"""The arithmetic of figures.sh: reads the generator's JSON and the nodes' INFO, prints lines that can be pasted.

Not here: starting and stopping anything (figures.sh). Only Python's own library.
"""

import collections
import json
import re
import socket
import statistics
import sys
import time


def load(path):
    with open(path) as file:
        return json.load(file)


def load_average():
    with open("/proc/loadavg") as file:
        return file.read().split()[0]


def measured(report):
    """The one kind of operation of a run."""
    rows = [row for row in report["latencies"] if row["name"] not in ("failed", "begun late")]
    assert len(rows) == 1, f"one kind of operation was to be measured, not {len(rows)}"
    return rows[0]


def cpu(path):
    return load(path)["servers"]["cpu_us_per_operation"]


def doubts(report):
    """What makes a run no figure, in words."""
    found = []
    for name in ("failed", "absent", "missed"):
        if report.get(name):
            found.append(f"{report[name]} {name}")
    found += [f"{error['count']} x {name}" for name, error in report.get("errors", {}).items()]
    return f"  DOUBTFUL: {', '.join(found)}" if found else ""


def ms(us):
    return f"{us / 1000:.2f}"


def run(label, path):
    """One run as one line."""
    report = load(path)
    row = measured(report)
    line = f"  {label:<22} {report['operations_per_second']:>8.0f} ops/s"
    line += f"  p50/p99/p99.9 {ms(row['p50_us'])}/{ms(row['p99_us'])}/{ms(row['p999_us'])} ms"
    if report.get("servers"):
        line += f"  {report['servers']['cpu_us_per_operation']:.1f} us CPU/op"
    before, after = report["load_average"]
    print(f"{line}  load {before:.2f} to {after:.2f}{doubts(report)}")


def tail(path):
    """p99.9 over p50."""
    row = measured(load(path))
    print(f"{row['p999_us'] / row['p50_us']:.2f}")


def beside(one, other):
    """p99.9 of one by that of the other."""
    print(f"{measured(load(one))['p999_us'] / measured(load(other))['p999_us']:.2f}")


# Whose work a function is, most particular first. A sample belongs to the innermost of its callers that is anybody's.
STAGES = [
    ("disk (kernel)", r"^(ext4|jbd2|iomap|blk|__blk|bio|submit_bio|virtblk|dio|io_write|io_read|io_fsync|generic_file|vfs_)"),
    ("wake-ups, scheduler", r"^(try_to_wake_up|__?schedule|schedule|hrtimer|io_cqring_wait|finish_task_switch|eventfd|timerfd|__x64_sys_epoll)"),
    ("network (kernel)", r"^(tcp|__tcp|ip_|__ip|inet|sock|__sock|net_rx|__napi|__dev_queue|skb|__skb|__sys_send|__sys_recv|io_send|io_recv|io_poll)"),
    ("io_uring, syscalls", r"^(io_|__io_|__x64_sys|__do_sys|do_syscall|entry_SYSCALL|syscall)"),
    ("kernel, the rest", r"^(asm_|irq|__irq|do_softirq|__do_softirq|handle_|common_interrupt|sysvec|exc_page|ret_from)"),
    ("recorder", r"quorate_node::recorder|quorate_node::runtime::stalls"),
    ("encode", r"quorate_net::frame::encode|rkyv::.*[Ss]erial"),
    ("decode, parse", r"quorate_net::(frame|resp)|rkyv|bytecheck|quorate_node::gateway"),
    ("store", r"quorate_engine"),
    ("machines (coordinate, replicate, gossip)", r"quorate_node::(?!runtime)"),
    ("shell and connections", r"quorate_node::runtime|quorate_net"),
    ("glommio", r"glommio|uring_sys"),
    ("memory", r"^(mi_|_mi_|malloc|free|realloc|calloc)"),
]


def stages(report, stacks):
    """What each part costs an operation, by the samples of the servers."""
    known = [(stage, re.compile(pattern)) for stage, pattern in STAGES]
    counts = collections.Counter()
    with open(stacks) as file:
        for stack in file.read().split("\n\n"):
            names = [line.strip().split(" ", 1)[-1] for line in stack.splitlines()]
            whose = (next((stage for stage, pattern in known if pattern.search(name)), None) for name in names)
            if names:
                counts[next(filter(None, whose), "not known")] += 1
    whole = sum(counts.values())
    for stage, count in counts.most_common():
        print(f"    {stage:<42} {count / whole:>6.1%} {count / whole * cpu(report):>6.2f} us  [{count} samples]")


def part_of_rate(path, part):
    print(f"{load(path)['operations_per_second'] * float(part):.0f}")


def spread(label, unit, values):
    values = [float(value) for value in values]
    middle, least, most = statistics.median(values), min(values), max(values)
    print(f"  {label}: median {middle:.1f} {unit} ({least:.1f} to {most:.1f} in {len(values)} runs)")


def disk(label, path):
    report = load(path)
    rows = {row["name"]: row for row in report["latencies"]}
    parts = [f"{name} p50/p99.9 {row['p50_us']:.0f}/{row['p999_us']:.0f} us" for name, row in rows.items()]
    print(f"  {label:<12} {' · '.join(parts)}  load {report['load_average']:.2f}")


def ask(address, command, seconds=5.0):
    """A command in the inline form, and its bulk answer; None when it is absent."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(command.encode() + b"\r\n")
        answer = connection.makefile("rb")
        head = answer.readline()
        if not head.startswith(b"$"):
            raise OSError(f"{address} answers {head!r}")
        length = int(head[1:])
        return None if length < 0 else answer.read(length)


def info(addresses, pids):
    """The sum over all nodes, and what their processes wrote."""
    total = {"written": 0}
    for address in addresses:
        for line in ask(address, "INFO quorate").decode().splitlines():
            name, _, number = line.partition(":")
            if number.isdigit():
                total[name] = total.get(name, 0) + int(number)
    for pid in pids:
        with open(f"/proc/{pid}/io") as file:
            total["written"] += next(int(line.split()[1]) for line in file if line.startswith("write_bytes"))
    json.dump(total, sys.stdout)


def differences(before, after):
    before, after = load(before), load(after)
    return {name: after[name] - before[name] for name in after}, after


def written(label, before, after, nodes):
    """Bytes written per put and node, and by which part of the store. The warm-up wrote too, so the nodes' own count of
    puts is the divisor."""
    delta, now = differences(before, after)
    each = {name: delta[name] / (delta["puts"] * int(nodes)) for name in delta}
    parts = ["log", "compaction", "checkpoint", "prepared"]
    split = ", ".join(f"{part} {each[f'store_{part}_bytes']:.0f}" for part in parts)
    print(
        f"  {label:<22} {each['written']:>6.0f} B per put and node ({each['written'] / 1024:.2f} x of 1 KiB): {split}"
        f"  [{delta['puts']} puts, {now['store_segments'] / int(nodes):.0f} segments a node]  load {load_average()}"
    )


def per_put(name, before, after, nodes):
    delta, _ = differences(before, after)
    print(f"{delta[name] / max(delta['puts'] * int(nodes), 1):.0f}")


def turned(before, after, nodes):
    """How much of all segments the log has written anew, in percent."""
    delta, now = differences(before, after)
    print(delta["store_log_bytes"] * 100 // (now["store_segments"] * now["store_segment_bytes"] // int(nodes)))


def reads(label, before, after, report):
    delta, _ = differences(before, after)
    # The warm-up's operations read as well, so they count: the nodes' own numbers are the divisor.
    operations = delta["gets"] + delta["puts"]
    print(
        f"  {label:<22} {delta['store_disk_reads'] / max(operations, 1):.4f} disk reads an operation, cluster-wide"
        f"  [{operations} operations, {delta['store_disk_reads']} reads, {delta['store_cache_hits']} cache hits]"
        f"  load {load_average()}{doubts(load(report))}"
    )


def answer(address, key, size, begun, limit):
    """Waits until a node gives a key's value, and prints the seconds since `begun`."""
    begun = float(begun)
    while time.time() < begun + float(limit):
        try:
            value = ask(address, f"GET {key}")
            if value is None or len(value) != int(size):
                sys.exit(f"{address} answers, but {key} is not what was put")
            print(f"{time.time() - begun:.3f}")
            return
        except OSError:
            time.sleep(0.005)
    sys.exit(f"{address} did not answer within {limit} s")


def verdict_line(report):
    found = report["verdict"]
    names = ("acknowledged", "unknown", "reads", "keys", "lost_writes", "stale_reads", "damaged_values", "never_sent")
    return ", ".join(f"{found[name]} {name}" for name in names)


def verdict(path):
    report = load(path)
    print(f"  {verdict_line(report)}; load {report['load_average'][1]:.2f}")


def numbers(addresses):
    """The numbers in each node's INFO."""
    every = []
    for address in addresses:
        lines = (line.partition(":") for line in ask(address, "INFO quorate").decode().splitlines())
        every.append({name: int(number) for name, _, number in lines if number.isdigit()})
    return every


def failures(label, path):
    """Says of what failed in a run, if something did."""
    report = load(path)
    if report["failed"]:
        print(f"  {label}: {report['failed']} failed: {report['errors']}")


def has(address, field):
    sys.exit(field not in numbers([address])[0])


def away(label, path, begun, gone, back):
    """A run during which a node was away, by the report's seconds, of which the warm-up takes the one before 0."""
    report = load(path)
    gone, back = (int(float(at) - float(begun) - 1) for at in (gone, back))
    # The second in which it went is neither before nor after.
    by_second = {row["second"]: row["p999_us"] for row in report["series"]}
    before = statistics.median(us for second, us in by_second.items() if 0 <= second < gone)
    after = sorted(second for second in by_second if second >= gone)
    calm = (s for s in after if all(by_second.get(s + i, 0) <= 2 * before for i in range(3)))
    calmed = next(calm, None)
    slowest = max(row["max_us"] for row in report["latencies"] if row["name"] != "begun late")
    within = "never" if calmed is None else f"in second {calmed - gone}"
    print(
        f"  {label:<14} {report['operations']} operations, {report['failed']} failed, slowest {ms(slowest)} ms;"
        f" p99.9 of a second {ms(before)} ms before, <= 2 x of it again {within}; {verdict_line(report)}"
    )
    around = range(gone - 2, min(back + 4, max(by_second) + 1))
    print(f"    p99.9 by second, from 2 before it went: {' '.join(ms(by_second.get(s, 0)) for s in around)} ms"
          f"  load {report['load_average'][1]:.2f}")


def load_line(label, path):
    report = load(path)
    slowest = {row["name"]: f"p99.9 {ms(row['p999_us'])} ms" for row in report["latencies"] if row["name"] in ("read", "update")}
    print(f"  {label:<14} {', '.join(f'{name} {text}' for name, text in slowest.items())}"
          f"  load {report['load_average'][1]:.2f}{doubts(report)}")


QUIET_SECONDS = 5


def settle(limit, addresses):
    """Waits until nothing has been written for a while and no hint is held; the time of the last change, as it was seen."""
    begun = time.time()
    last, seen = begun, None
    while time.time() < begun + float(limit):
        every = numbers(addresses)
        now = [(n["store_log_bytes"], n["store_keys"], n.get("hints_held", 0)) for n in every]
        if now != seen:
            last, seen = time.time(), now
        elif time.time() > last + QUIET_SECONDS and not any(held for _, _, held in now):
            keys = ", ".join(str(keys) for _, keys, _ in now)
            print(f"  {last - begun:.1f} s until the last change; no hint held, keys by node: {keys}")
            return last - begun
        time.sleep(0.5)
    sys.exit(f"the nodes did not settle within {limit} s: {seen}")


def keys(begun, whole, lost):
    """Succeeds when the second node has as many keys as the first."""
    have = [n["store_keys"] for n in numbers([whole, lost])]
    print(f"  {time.time() - float(begun):>6.0f} s: {have[1]} of {have[0]} keys")
    sys.exit(have[0] != have[1])


def joined(begun, address):
    """A node that has joined holds its share; what it was sent for that, against the least possible."""
    node = numbers([address])[0]
    took, received, held = time.time() - float(begun), node["exchange_keys_received"], node["store_keys"]
    print(f"  {took:.1f} s to move {held} keys; {received} were sent: {received / held:.3f} x  load {load_average()}")


def field(name):
    """A field of the JSON at the input."""
    print(json.load(sys.stdin)[name])


def loopback_bytes():
    with open("/proc/self/net/dev") as file:
        line = next(line for line in file if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[0])


def heal(differing, limit, addresses):
    """What it takes in time and traffic until replicas that differ are equal. The same asking, later, when there is nothing
    to do, is what is not counted."""
    begun, first = time.time(), loopback_bytes()
    took = settle(limit, addresses)
    whole, spent = loopback_bytes() - first, time.time() - begun
    later, first = time.time(), loopback_bytes()
    settle(limit, addresses)
    idle = (loopback_bytes() - first) / (time.time() - later)
    traffic = whole - idle * spent
    print(
        f"  {took:.1f} s to heal; {traffic:.0f} B on the network for {differing} differing bytes:"
        f" {traffic / int(differing):.2f} x (and {idle:.0f} B/s when idle, not counted)  load {load_average()}"
    )


def equal(count, replicas, addresses):
    """Reads every key with R = N; fails if it is absent, or if a replica differs."""
    before = sum(n["divergent_gets"] for n in numbers(addresses))
    host, port = addresses[0].rsplit(":", 1)
    absent = failed = 0
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        answers = connection.makefile("rb")
        for start in range(0, int(count), 256):
            names = [f"key:{number:012}" for number in range(start, min(start + 256, int(count)))]
            connection.sendall("".join(f"KV.GET {name} R {replicas} STRICT\r\n" for name in names).encode())
            for _ in names:
                values = answer_of(answers)
                failed += isinstance(values, OSError)
                absent += values is not None and not isinstance(values, OSError) and not values[1]
    divergent = sum(n["divergent_gets"] for n in numbers(addresses)) - before
    print(f"  {count} keys read with R={replicas}: {divergent} with different replicas, {absent} absent, {failed} failed")
    sys.exit(bool(divergent or absent or failed))


def answer_of(stream):
    """One RESP answer."""
    head = stream.readline()
    kind, rest = head[:1], head[1:-2]
    if kind == b"$":
        return None if rest == b"-1" else stream.read(int(rest) + 2)[:-2]
    if kind == b"*":
        return [answer_of(stream) for _ in range(int(rest))]
    return OSError(rest.decode()) if kind == b"-" else rest


def main():
    command, *rest = sys.argv[1:]
    match command:
        case "cpu":
            print(cpu(*rest))
        case "run":
            run(*rest)
        case "failures":
            failures(*rest)
        case "spread":
            spread(rest[0], rest[1], rest[2:])
        case "stages":
            stages(*rest)
        case "tail":
            tail(*rest)
        case "beside":
            beside(*rest)
        case "part-of-rate":
            part_of_rate(*rest)
        case "disk":
            disk(*rest)
        case "info":
            split = rest.index("--")
            info(rest[:split], rest[split + 1 :])
        case "written":
            written(*rest)
        case "per-put":
            per_put(*rest)
        case "turned":
            turned(*rest)
        case "reads":
            reads(*rest)
        case "answer":
            answer(*rest)
        case "verdict":
            verdict(*rest)
        case "has":
            has(*rest)
        case "away":
            away(*rest)
        case "joined":
            joined(*rest)
        case "field":
            field(*rest)
        case "load":
            load_line(*rest)
        case "settle":
            settle(rest[0], rest[1:])
        case "keys":
            keys(*rest)
        case "heal":
            heal(rest[0], rest[1], rest[2:])
        case "equal":
            equal(rest[0], rest[1], rest[2:])
        case _:
            sys.exit(f"unknown: {command}")


main()
