"""The arithmetic of figures.sh: reads the generators' JSON and the nodes' INFO, prints lines that can be pasted.

Not here: starting and stopping anything (figures.sh). Only Python's own library.
"""

import json
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
    """The one kind of operation of a run, from either generator."""
    rows = [row for row in report.get("latencies", [report]) if row.get("name") not in ("failed", "begun late")]
    assert len(rows) == 1, f"one kind of operation was to be measured, not {len(rows)}"
    return rows[0]


def figure(path, name):
    report = load(path)
    if name == "cpu":
        return report["servers"]["cpu_us_per_operation"]
    return report["operations_per_second"]


def doubts(report):
    """What makes a run no figure, in words."""
    found = []
    for name in ("failed", "absent", "missed"):
        if report.get(name):
            found.append(f"{report[name]} {name}")
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
    # The other generator does not look at it.
    before, after = report.get("load_average", ["", load_average()])
    print(f"{line}  load {f'{before:.2f} to {after:.2f}' if before != '' else after}{doubts(report)}")


def spread(label, unit, values):
    values = [float(value) for value in values]
    middle, least, most = statistics.median(values), min(values), max(values)
    print(f"  {label}: median {middle:.1f} {unit} ({least:.1f} to {most:.1f} in {len(values)} runs)")


def ratio(label, ours, theirs):
    """Run by run, as they were interleaved."""
    ratios = [a / b for a, b in zip(map(float, ours), map(float, theirs), strict=True)]
    print(f"  {label}: median {statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})")


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


def verdict(path):
    report = load(path)
    found = report["verdict"]
    names = ("acknowledged", "unknown", "reads", "keys", "lost_writes", "stale_reads", "damaged_values", "never_sent")
    print(f"  {', '.join(f'{found[name]} {name}' for name in names)}; load {report['load_average'][1]:.2f}")


def main():
    command, *rest = sys.argv[1:]
    match command:
        case "figure":
            print(figure(*rest))
        case "run":
            run(*rest)
        case "spread":
            spread(rest[0], rest[1], rest[2:])
        case "ratio":
            label, values = rest[0], rest[1:]
            middle = len(values) // 2
            ratio(label, values[:middle], values[middle:])
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
        case _:
            sys.exit(f"unknown: {command}")


main()
