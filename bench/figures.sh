#!/usr/bin/env bash
# Measures the figures of the README's table anew and prints them as text that can be pasted, with the load average beside
# each: where both CPUs are busy, latencies are the scheduler's.
#
#   bench/figures.sh [all|cpu|throughput|tail|engine|index|written|restart|reads|kill|simulation]...
#   bench/figures.sh [peers|engines|stages|scaling|half|fair|compaction]...
#   bench/figures.sh [killed|frozen|dead2of5|lostdisk|heal|join4|powercuts|kills|flips]...
#
# Three nodes of one core each, N=3 R=2 W=2, 1 KiB values, 200,000 keys, 32 connections, unless a row says otherwise.
# Wants python3; throughput and peers want redis-server and etcd besides (Debian: redis-server etcd-server), stages perf
# (linux-perf), engines librocksdb-dev and libclang-dev; heal and powercuts want to be root, and e2fsprogs and iproute2. The rows of
# the second line, about the tail, and of the third, about failures, are not among `all`.
# FIGURES_DIR      where the data lie, on the disk to be measured, never in memory [target/figures]
# FIGURES_SECONDS  of one run [10]        FIGURES_ROUNDS  of what is interleaved [3]
# FIGURES_KEYS     [200000]               FIGURES_SEEDS   of the simulation [20000]
# FIGURES_CYCLES   of crashes [200]       FIGURES_FLIPS   of bits [1000]
# FIGURES_ADDRESS  the first three numbers of loopback addresses that nobody uses [127.0.77]
set -euo pipefail
cd "$(dirname "$0")/.."

SECS=${FIGURES_SECONDS:-10}
ROUNDS=${FIGURES_ROUNDS:-3}
KEYS=${FIGURES_KEYS:-200000}
SEEDS=${FIGURES_SEEDS:-20000}
CYCLES=${FIGURES_CYCLES:-200}
FLIPS=${FIGURES_FLIPS:-1000}
NET=${FIGURES_ADDRESS:-127.0.77}
PLACE=${FIGURES_DIR:-target/figures}
TARGET=$(realpath -m "${CARGO_TARGET_DIR:-target}")
QUORATE=$TARGET/release/quorate
NODES=$NET.1:7400,$NET.2:7400,$NET.3:7400

mkdir -p "$PLACE"
case $(stat -f -c %T "$PLACE") in
tmpfs | ramfs) echo "$PLACE lies in memory: give a directory on a disk by FIGURES_DIR" >&2 && exit 2 ;;
esac
WORK=$(mktemp -d "$(realpath "$PLACE")/run.XXXXXX")

# Stops the shell's own children, and those that were frozen: what is stopped would not hear that it shall end.
cleanup() {
    local running
    mapfile -t running < <(jobs -p)
    pids 2>/dev/null | xargs -r kill -CONT 2>/dev/null || true
    ((${#running[@]} == 0)) || kill -CONT "${running[@]}" 2>/dev/null || true
    ((${#running[@]} == 0)) || kill "${running[@]}" 2>/dev/null || true
    wait
    rm -rf "$WORK"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

py() { python3 bench/figures.py "$@"; }
say() { printf '\n== %s ==\n' "$*"; }
need() { command -v "$1" >/dev/null || { echo "$1 is missing: $2" >&2 && exit 1; }; }

# quiet WHAT COMMAND...: its output only when it fails. In the background, so that a signal to this script ends it at once.
quiet() {
    local what=$1
    shift
    "$@" >"$WORK/output" 2>&1 &
    wait $! || { echo "$what failed:" >&2 && tail -20 "$WORK/output" >&2 && exit 1; }
}

# bench NAME OPTION...: a run against the cluster, its report in $WORK/NAME.json.
bench() {
    local name=$1
    shift
    quiet "quorate bench ($name)" "$QUORATE" bench --target native --servers "$NODES" --keys "$KEYS" --quiet \
        --report "$WORK/$name.json" "$@"
    py failures "$name" "$WORK/$name.json"
}

put_load() { bench "$1" --workload put --durability durable --duration "${SECS}s" "${@:2}"; }
get_load() { bench "$1" --workload get --duration "${SECS}s" "${@:2}"; }
load_keys() { bench load --workload load --pipeline 8 "$@"; }

# cluster [NODES [LINE...]]: a new cluster in $WORK/cluster, with these lines in each configuration.
cluster() {
    rm -rf "$WORK/cluster"
    printf '%s\n' "${@:2}" >"$WORK/tune.toml"
    dev --nodes "${1:-3}" --cores 1 --address "$NET.1" --tune "$WORK/tune.toml"
}

dev() {
    : >"$WORK/dev.log"
    "$QUORATE" dev --dir "$WORK/cluster" "$@" >>"$WORK/dev.log" 2>&1 &
    DEV=$!
    until grep -q '^Stop it:' "$WORK/dev.log"; do
        kill -0 "$DEV" 2>/dev/null || { cat "$WORK/dev.log" >&2 && exit 1; }
        sleep 0.1
    done
}

# In order: waits until it is gone.
stop() {
    kill "$1"
    wait "$1" || { echo "it did not stop in order:" >&2 && tail "$WORK/dev.log" >&2 && exit 1; }
}

pids() { cat "$WORK"/cluster/node-*/pid; }
info() { IFS=, read -ra nodes <<<"$NODES" && mapfile -t all < <(pids) && py info "${nodes[@]:0:${#all[@]}}" -- "${all[@]}"; }
start_disk() { quiet "quorate bench disk" "$QUORATE" bench disk "$WORK" --json && cp "$WORK/output" "$WORK/$1.json"; }

row_cpu() {
    say "cluster CPU an operation: get <= 45 us, durable put <= 100 us"
    cluster
    load_keys
    local gets=() puts=() round
    for ((round = 1; round <= ROUNDS; round++)); do
        get_load get --dir "$WORK/cluster" && py run "get $round" "$WORK/get.json"
        put_load put --dir "$WORK/cluster" && py run "durable put $round" "$WORK/put.json"
        gets+=("$(py cpu "$WORK/get.json")")
        puts+=("$(py cpu "$WORK/put.json")")
    done
    py spread "get" "us" "${gets[@]}"
    py spread "durable put" "us" "${puts[@]}"
    stop "$DEV"
}

# patiently COMMAND...: until it succeeds, for who was frozen or has just started.
patiently() {
    local deadline=$((SECONDS + 60))
    until ("$@") 2>/dev/null; do
        ((SECONDS < deadline)) || { "$@" && return; }
        sleep 0.2
    done
}

row_throughput() {
    need redis-server "apt-get install redis-server"
    need etcd "apt-get install etcd-server"
    say "durable puts, three copies: >= 0.5 x one redis-server (appendfsync always), >= 3 x three nodes of etcd"
    quiet "quorate bench compare" "$QUORATE" bench compare --peer redis-always,etcd --workload put --keys "$KEYS" \
        --rounds "$ROUNDS" --duration "${SECS}s" --dir "$WORK" --quiet
    sed 's/^/  /' "$WORK/output"
}

row_peers() {
    need redis-server "apt-get install redis-server"
    need etcd "apt-get install etcd-server"
    local each=(--keys "$KEYS" --rounds "$ROUNDS" --duration "${SECS}s" --dir "$WORK" --quiet)
    peers() { quiet "quorate bench compare" "$QUORATE" bench compare "${each[@]}" "$@" && sed 's/^/  /' "$WORK/output"; }
    say "durable puts beside one redis-server (appendfsync always), >= 0.8 x, and three nodes of etcd, >= 4 x"
    peers --peer redis-always,etcd --workload put
    say "the same at a fixed 2,000/s: p99.9 <= 1.0 x of redis, <= 0.3 x of etcd"
    peers --peer redis-always,etcd --workload put --rate 2000
    say "gets beside one redis-server, by the CPU time of the whole cluster: >= 0.35 x, which is CPU an operation <= 2.9 x"
    peers --peer redis-everysec,memcached --workload get
}

row_engines() {
    say "the engine beside fjall, redb, RocksDB and LMDB: 1,000,000 keys of 100 B, in groups of 32, durable and not"
    local durable
    for durable in --durable ""; do
        # A workspace of its own, with settings in its directory.
        (cd bench/engines && cargo run -q --release --target-dir "$TARGET/engines" -- --rounds "$ROUNDS" --dir "$WORK" $durable) |
            sed 's/^/  /'
    done
}

row_tail() {
    say "durable puts at a fixed 1,000/s: p99.9 <= 15 ms where the disk allows it"
    cluster
    load_keys
    start_disk before && py disk "disk before" "$WORK/before.json"
    bench tail --workload put --durability durable --rate 1000 --duration "$((2 * SECS))s"
    py run "1,000 puts/s" "$WORK/tail.json"
    start_disk after && py disk "disk after" "$WORK/after.json"
    stop "$DEV"
}

row_stages() {
    need perf "apt-get install linux-perf"
    say "where the CPU time of a get and of a durable put goes, by samples of all three nodes; and what the slowest waited for"
    # Whose code a sample is in is seen by who called it.
    RUSTFLAGS="-C force-frame-pointers=yes" cargo build -q --release -p quorate --target-dir "$TARGET/frames"
    local QUORATE=$TARGET/frames/release/quorate kind sampler
    cluster
    load_keys
    for kind in get put; do
        "${kind}_load" "$kind" --dir "$WORK/cluster" && py run "$kind" "$WORK/$kind.json"
        perf record -q -e cpu-clock -F 1999 -g -o "$WORK/samples" -p "$(pids | paste -sd,)" -- sleep "$SECS" 2>/dev/null &
        sampler=$!
        "${kind}_load" sampled
        wait "$sampler"
        perf script -i "$WORK/samples" -F ip,sym 2>/dev/null >"$WORK/stacks"
        py stages "$WORK/$kind.json" "$WORK/stacks"
        "$QUORATE" tail --node "$NET.1:7400" | sed 's/^/    /'
    done
    stop "$DEV"
}

row_scaling() {
    say "one node of one and of two cores, N = 1, gets: CPU an operation when clients know the owning core, and when they do not"
    local cores round NODES=$NET.1:7400 known all
    for cores in 1 2; do
        rm -rf "$WORK/cluster"
        dev --nodes 1 --cores "$cores" --address "$NET.1"
        load_keys
        known=() all=()
        for ((round = 1; round <= ROUNDS; round++)); do
            get_load known --dir "$WORK/cluster" && py run "$cores cores, known $round" "$WORK/known.json"
            # Their commands go to the port that all cores share.
            quiet "quorate bench (any)" "$QUORATE" bench --target resp --servers "$NODES" --keys "$KEYS" --quiet \
                --report "$WORK/any.json" --workload get --duration "${SECS}s" --dir "$WORK/cluster"
            py run "$cores cores, any $round" "$WORK/any.json"
            known+=("$(py cpu "$WORK/known.json")") all+=("$(py cpu "$WORK/any.json")")
        done
        py spread "$cores cores, to the owner" "us" "${known[@]}"
        py spread "$cores cores, to any" "us" "${all[@]}"
        stop "$DEV"
    done
}

row_half() {
    say "at half of saturation p99.9 <= 8 x p50"
    cluster
    load_keys
    local kind round ratios rate
    for kind in get put; do
        "${kind}_load" full && rate=$(py part-of-rate "$WORK/full.json" 0.5) && ratios=()
        for ((round = 1; round <= ROUNDS; round++)); do
            "${kind}_load" half --rate "$rate" && py run "$kind $round, $rate/s" "$WORK/half.json"
            ratios+=("$(py tail "$WORK/half.json")")
        done
        py spread "$kind, p99.9 over p50" "x" "${ratios[@]}"
    done
    stop "$DEV"
    command -v redis-server >/dev/null || return 0
    echo "  One redis-server beside it, under the same generator: what the machine does to a get that nobody replicates."
    local redis
    redis-server --bind "$NET.9" --port 7400 --protected-mode no --save '' --dir "$WORK" >"$WORK/redis.log" 2>&1 &
    redis=$!
    patiently bash -c "exec 3<>/dev/tcp/$NET.9/7400"
    from_redis() {
        quiet "quorate bench (redis, $1)" "$QUORATE" bench --target resp --servers "$NET.9:7400" --keys "$KEYS" --quiet \
            --report "$WORK/$1.json" --workload "${@:2}"
    }
    from_redis loaded load --pipeline 8
    from_redis full get --duration "${SECS}s" && rate=$(py part-of-rate "$WORK/full.json" 0.5) && ratios=()
    for ((round = 1; round <= ROUNDS; round++)); do
        from_redis half get --duration "${SECS}s" --rate "$rate" && py run "redis get $round, $rate/s" "$WORK/half.json"
        ratios+=("$(py tail "$WORK/half.json")")
    done
    py spread "redis get, p99.9 over p50" "x" "${ratios[@]}"
    kill "$redis" && wait "$redis"
}

# beside_greedy PROTOCOL ROUND: modest clients alone, then beside clients that are not.
beside_greedy() {
    local greedy
    modest alone && py run "alone $2" "$WORK/alone.json"
    "$QUORATE" bench --target "$1" --servers "$NODES" --keys "$KEYS" --quiet --report "$WORK/greedy.json" --workload get \
        --connections 2 --pipeline 4096 --duration "$((SECS + 3))s" >/dev/null &
    greedy=$!
    sleep 1
    modest beside && py run "beside the greedy $2" "$WORK/beside.json"
    wait "$greedy" && py run "the greedy $2" "$WORK/greedy.json"
}

row_fair() {
    say "gets of 4 modest clients, 500 a second, alone and beside 2 that send as fast as they can, 4,096 at a time each"
    cluster
    load_keys
    local protocol round ratios
    modest() { get_load "$1" --connections 4 --rate 500; }
    for protocol in native resp; do
        ratios=()
        for ((round = 1; round <= ROUNDS; round++)); do
            beside_greedy "$protocol" "$round"
            ratios+=("$(py beside "$WORK/beside.json" "$WORK/alone.json")")
        done
        py spread "p99.9 beside the greedy ($protocol) over p99.9 alone" "x" "${ratios[@]}"
    done
    stop "$DEV"
}

row_compaction() {
    local seconds=$((30 * SECS)) rate
    say "a log that is 80 % full, zipfian overwrites at half of saturation for $seconds s: written <= 2.5 x, p99.9 <= 1.5 x of the same log where next to nothing is compacted"
    local load=(--workload put --durability durable --distribution zipfian)
    # So many that the segments that are kept free are a small part. About 1,300 bytes each.
    local KEYS=$((3 * KEYS))
    local segments=$((KEYS * 1300 * 10 / 8 / (4 << 20) + 1))
    small() {
        cluster 3 '[limits]' 'value = "256KiB"' 'object = "1MiB"' '[store]' 'segment = "4MiB"' "capacity = \"$((4 * segments))MiB\""
        load_keys
        # Until all segments are in use, zeroing them ahead is what is written.
        bench warm "${load[@]}" --duration "$((6 * SECS))s"
    }
    KEYS=$((KEYS / 5)) small
    KEYS=$((KEYS / 5)) bench most "${load[@]}" --duration "${SECS}s" && py run "16 % full, saturated" "$WORK/most.json"
    rate=$(py part-of-rate "$WORK/most.json" 0.5)
    KEYS=$((KEYS / 5)) bench room "${load[@]}" --rate "$rate" --duration "$((3 * SECS))s" && py run "16 % full, $rate/s" "$WORK/room.json"
    stop "$DEV"
    small
    info >"$WORK/before.json"
    bench full "${load[@]}" --rate "$rate" --duration "${seconds}s" && py run "80 % full, $rate/s" "$WORK/full.json"
    info >"$WORK/after.json"
    py written "80 % full" "$WORK/before.json" "$WORK/after.json" 3
    py spread "p99.9 over that of the other" "x" "$(py beside "$WORK/full.json" "$WORK/room.json")"
    stop "$DEV"
}

row_engine() {
    say "engine alone, one core: 32 writers of 100 B durable >= 150,000/s, p99.9 <= 2 x that of bare DSYNC writes"
    cargo run -q --release -p quorate-bench --example engine_load -- "$WORK" 3 1000000 | sed 's/^/  /'
}

row_index() {
    say "index while 8,000,000 keys are loaded: <= 32 bytes a key, no insert over 100 us"
    cargo run -q --release -p quorate-bench --example index_load | sed 's/^/  /'
}

row_written() {
    say "bytes written per 1 KiB durable put and node at saturation, 64 connections: <= 1.5 x"
    cluster 3 '[store]' 'capacity = "1GiB"'
    info >"$WORK/before.json"
    load_keys
    info >"$WORK/after.json"
    echo "  While a segment is used for the first time, its zeroing ahead doubles what is written; recycled ones are not zeroed."
    py written "first fill, loading" "$WORK/before.json" "$WORK/after.json" 3
    local turn
    # Compaction comes in waves, so a figure is two whole turns of the log through all segments. Steady are the
    # first two that make no new segment: a recycled one costs its header.
    for ((turn = 1; ; turn++)); do
        cp "$WORK/after.json" "$WORK/before.json"
        until (($(py turned "$WORK/before.json" "$WORK/after.json" 3) >= 200)); do
            put_load burst --connections 64
            info >"$WORK/after.json"
        done
        (($(py per-put store_prepared_bytes "$WORK/before.json" "$WORK/after.json" 3) >= 32)) || break
        py written "first fill, puts $turn" "$WORK/before.json" "$WORK/after.json" 3
        ((turn < 20)) || { echo "the store still makes new segments after $turn times two turns" >&2 && exit 1; }
    done
    py run "the last run of it" "$WORK/burst.json"
    py written "steady state" "$WORK/before.json" "$WORK/after.json" 3
    stop "$DEV"
}

# serve_again LABEL: starts node 1 by itself and measures from the call until it gives a value; leaves its pid in SERVE.
serve_again() {
    local begun took
    begun=$(date +%s.%N)
    "$QUORATE" serve --config "$WORK/cluster/node-1/config.toml" >"$WORK/serve.log" 2>&1 &
    SERVE=$!
    took=$(py answer "$NET.1:7400" key:000000000000 100 "$begun" 60)
    echo "  $1: $took s  load $(cut -d' ' -f1 /proc/loadavg)"
}

row_restart() {
    say "restart of a node with 1,000,000 keys of 100 B, from the call to the first value: <= 1 s, <= 5 s without checkpoint"
    local NODES=$NET.1:7400 round
    cluster 1
    KEYS=1000000 load_keys --value-size 100B
    stop "$DEV"
    for ((round = 1; round <= ROUNDS; round++)); do
        serve_again "stopped in order, from its checkpoint"
        kill "$SERVE" && wait "$SERVE"
    done
    for ((round = 1; round <= ROUNDS; round++)); do
        serve_again "(in between)" >"$WORK/output"
        kill -9 "$SERVE" && { wait "$SERVE" 2>/dev/null || true; }
        find "$WORK/cluster/node-1/data" -name 'checkpoint*' -delete
        serve_again "kill -9, no checkpoint"
        kill "$SERVE" && wait "$SERVE"
    done
}

row_reads() {
    say "disk reads: none a put in steady state, <= 1 a get cluster-wide; the record cache holds 16 MiB, so that gets miss"
    cluster 3 '[store]' 'cache = "16MiB"'
    load_keys
    put_load warm
    local kind
    for kind in put get; do
        info >"$WORK/before.json"
        "${kind}_load" "$kind"
        info >"$WORK/after.json"
        py reads "$kind" "$WORK/before.json" "$WORK/after.json" "$WORK/$kind.json"
    done
    stop "$DEV"
}

row_kill() {
    local rounds=5 round node load
    say "five rounds of kill -9 of all nodes under load: 0 acknowledged writes lost"
    cluster
    load_keys
    "$QUORATE" bench --target native --servers "$NODES" --keys "$KEYS" --quiet --report "$WORK/kill.json" --workload mix \
        --durability durable --verify --verify-wait 60s --duration "$((rounds * SECS))s" >"$WORK/kill.log" 2>&1 &
    load=$!
    for ((round = 1; round <= rounds; round++)); do
        sleep "$((SECS * 2 / 3))"
        local dead
        mapfile -t dead < <(pids)
        kill -9 "${dead[@]}"
        # A node's address and directory are free once its process is gone.
        for node in "${dead[@]}"; do while [[ -d /proc/$node ]]; do sleep 0.02; done; done
        for node in "$WORK"/cluster/node-*; do
            # Not a job of this shell, which would tell of each kill: `dev` stops what was started by hand.
            "$QUORATE" serve --config "$node/config.toml" >>"$node/log" 2>&1 &
            disown
        done
    done
    wait "$load" || { echo "the load that verifies failed, or found a loss:" >&2 && cat "$WORK/kill.log" >&2 && exit 1; }
    py verdict "$WORK/kill.json"
    stop "$DEV"
}

row_simulation() {
    say "simulation: no violation in 20,000 seeds, >= 500 seeds a minute"
    local begun=$EPOCHREALTIME
    quiet "the simulation of $SEEDS seeds" "$QUORATE" sim --seeds "$SEEDS"
    tail -1 "$WORK/output" | sed 's/^/  /'
    awk -v n="$SEEDS" -v a="$begun" -v b="$EPOCHREALTIME" -v l="$(cut -d' ' -f1 /proc/loadavg)" \
        'BEGIN { printf "  %d seeds in %.0f s: %.0f a minute  load %s\n", n, b - a, n * 60 / (b - a), l }'
}

# missing WHAT: this row cannot be measured yet. The others go on, and the script fails at its end.
missing() { echo "  MISSING: $1" && FAILED=1; }

# has FIELD WHAT: whether the nodes tell it in INFO.
has() { py has "$NET.1:7400" "$1" || { missing "$2 (no \`$1\` in INFO)" && return 1; }; }

# Starts node N by hand, and waits until it answers. `dev` stops it with the others.
serve_node() {
    "$QUORATE" serve --config "$WORK/cluster/node-$1/config.toml" >>"$WORK/cluster/node-$1/log" 2>&1 &
    disown
    patiently py has "$NET.$1:7400" puts
}

# kill_node N: and waits until its address and its directory are free.
kill_node() {
    local pid
    pid=$(<"$WORK/cluster/node-$1/pid")
    kill -9 "$pid"
    while [[ -d /proc/$pid ]]; do sleep 0.02; done
}

# away LABEL GO COME_BACK: rounds of load at a fixed rate through nodes 1 and 2, in which node 3 is gone for a while.
away() {
    local round load begun gone back
    cluster
    load_keys
    for ((round = 1; round <= ROUNDS; round++)); do
        begun=$EPOCHREALTIME
        "$QUORATE" bench --kv --servers "$NET.1:7400,$NET.2:7400" --keys "$KEYS" --workload mix --rate 1000 --verify \
            --durability durable --warmup 1s --duration "$((SECS + 20))s" --quiet --report "$WORK/away.json" >"$WORK/away.log" 2>&1 &
        load=$!
        sleep "$((SECS + 1))"
        gone=$EPOCHREALTIME
        $2
        sleep 8
        back=$EPOCHREALTIME
        [[ $3 == none ]] || $3
        wait "$load" || echo "  FAILED: the load that verifies failed, or found a loss or a stale read: $(grep -m1 -E 'VIOL|ERR|err' "$WORK/away.log")"
        py away "$1 $round" "$WORK/away.json" "$begun" "$gone" "$back"
        [[ $3 != none ]] || serve_node 3
        # What the node missed is no part of the next round.
        py settle 60 "$NET.1:7400" "$NET.2:7400" "$NET.3:7400" >/dev/null || true
    done
    stop "$DEV"
}

freeze_node() { kill -STOP "$(<"$WORK/cluster/node-3/pid")"; }
thaw_node() { kill -CONT "$(<"$WORK/cluster/node-3/pid")"; }

row_killed() {
    say "one of three killed under load (1,000/s, half gets): 0 failed, none over 1 s, p99.9 back to 2 x within 3 s"
    away "killed" "kill_node 3" none
}

row_frozen() {
    say "one of three frozen for 8 s under load (1,000/s, half gets): 0 failed, none over 1 s, p99.9 back to 2 x within 3 s"
    away "frozen 8 s" freeze_node thaw_node
}

row_dead2of5() {
    say "2 of 5 dead, sloppy puts: all accepted; after their return every replica equal, no hint left"
    local NODES=$NET.1:7400,$NET.2:7400,$NET.3:7400,$NET.4:7400,$NET.5:7400 node addresses
    IFS=, read -ra addresses <<<"$NODES"
    cluster 5
    load_keys
    kill_node 4
    kill_node 5
    quiet "sloppy puts" "$QUORATE" bench --kv --sloppy --servers "$NET.1:7400,$NET.2:7400,$NET.3:7400" --keys "$KEYS" \
        --workload put --durability durable --duration "${SECS}s" --quiet --report "$WORK/sloppy.json"
    py run "2 of 5 dead" "$WORK/sloppy.json"
    if has hints_held "hinted handoff"; then
        for node in 4 5; do serve_node "$node"; done
        py settle 600 "${addresses[@]}"
        py equal "$KEYS" 3 "${addresses[@]}" || FAILED=1
    fi
    stop "$DEV"
}

row_lostdisk() {
    say "a lost disk, $KEYS keys of 1 KiB: all back without client reads; foreground p99.9 <= 2 x of before meanwhile; 0 lost"
    local run
    cluster
    load_keys
    # The foreground has keys of its own: it must not bring back the others by reading them.
    KEYS=20000 bench other --workload load --key-prefix other:
    foreground() {
        KEYS=20000 bench "$1" --workload mix --key-prefix other: --durability durable --rate 1000 --duration "${SECS}s"
        py load "$1" "$WORK/$1.json"
    }
    for ((run = 1; run <= ROUNDS; run++)); do foreground "before-$run"; done
    if has exchanges "anti-entropy"; then
        kill_node 3
        rm -rf "$WORK/cluster/node-3/data"
        serve_node 3
        local begun=$EPOCHREALTIME
        for ((run = 1; run <= 120; run++)); do
            foreground "meanwhile-$run"
            py keys "$begun" "$NET.1:7400" "$NET.3:7400" && break
        done
        py settle 120 "$NET.1:7400" "$NET.2:7400" "$NET.3:7400"
        py equal "$KEYS" 3 "$NET.1:7400" "$NET.2:7400" "$NET.3:7400" || FAILED=1
    fi
    stop "$DEV"
}

row_heal() {
    say "heal, 1 % of $KEYS keys different, half of them unknown to one node: <= 30 s, traffic <= 3 x the differing bytes"
    if [[ ! ${FIGURES_OWN_NETWORK:-} ]]; then
        # In a network of its own, all that its loopback carries is between these processes.
        # Not `exec`: this process has a directory to remove.
        FIGURES_OWN_NETWORK=1 unshare --net -- bash -c 'ip link set lo up && exec "$0" heal' "$PWD/bench/figures.sh" || FAILED=1
        return
    fi
    local few=$((KEYS / 200)) data=$WORK/cluster/node-3/data
    cluster
    load_keys
    has exchanges "anti-entropy" || { stop "$DEV" && return; }
    stop "$DEV"
    cp -a "$data" "$WORK/older"
    dev
    KEYS=$few bench older --workload load --seed 2
    KEYS=$few bench newer --workload load --key-prefix new:
    stop "$DEV"
    # Two nodes have what the third one has never seen, and nobody has kept a hint: as after hints that were dropped.
    rm -rf "$data"
    mv "$WORK/older" "$data"
    dev
    py heal "$((2 * few * 1024))" 600 "$NET.1:7400" "$NET.2:7400" "$NET.3:7400"
    py equal "$KEYS" 3 "$NET.1:7400" "$NET.2:7400" "$NET.3:7400" || FAILED=1
    stop "$DEV"
}

row_join4() {
    say "a fourth node joins under load: 0 failed, 0 lost, bytes moved <= 1.1 x the least possible"
    cluster
    load_keys
    local config=$WORK/cluster/node-4/config.toml load plan
    mkdir -p "$(dirname "$config")"
    {
        sed -e '0,/^id = 1$/s//id = 4\njoin = true/' "$WORK/cluster/node-1/config.toml"
        printf '\n[[cluster.node]]\nid = 4\naddress = "%s"\ncores = 1\n' "$NET.4"
    } >"$config"
    "$QUORATE" bench --kv --servers "$NODES" --keys "$KEYS" --workload mix --rate 1000 --verify --durability durable \
        --key-prefix other: --duration 60s --quiet --report "$WORK/join.json" >"$WORK/join.log" 2>&1 &
    load=$!
    sleep 5
    serve_node 4
    quiet "quorate cluster join" "$QUORATE" cluster join "$NET.4" --node "$NET.1:7400" --timeout 60
    plan=$("$QUORATE" cluster plan --node "$NET.1:7400" --json | py field plan)
    local begun=$EPOCHREALTIME
    quiet "quorate cluster commit" "$QUORATE" cluster commit "$plan" --wait --node "$NET.1:7400" --timeout 600
    py joined "$begun" "$NET.4:7400"
    wait "$load" || echo "  FAILED: the load that verifies failed, or found a loss or a stale read: $(grep -m1 -E 'VIOL|ERR|err' "$WORK/join.log")"
    py load "meanwhile" "$WORK/join.json"
    py verdict "$WORK/join.json"
    py equal "$KEYS" 3 "$NET.1:7400" "$NET.2:7400" "$NET.3:7400" "$NET.4:7400" || FAILED=1
    # `dev` did not start this one.
    kill "$(<"$WORK/cluster/node-4/pid")"
    stop "$DEV"
}

# a_test NAME VARIABLE=TIMES: one of the tests of real processes, many times over.
a_test() {
    env "$2" cargo test -q --release -p quorate-tests --test processes -- --exact "processes::$1" --nocapture \
        >"$WORK/output" 2>&1 || { tail -20 "$WORK/output" && FAILED=1 && return; }
    grep -E 'skipped:|nothing was lost|none served' "$WORK/output" | sed 's/^/  /'
    ! grep -q 'skipped:' "$WORK/output" || FAILED=1
}

row_powercuts() {
    say "$CYCLES power cuts of all nodes under load, on ext4 in a loop device: 0 acknowledged writes lost"
    a_test crashes::power_cuts_lose_nothing "QUORATE_POWER_CUTS=$CYCLES"
}

row_kills() {
    say "$CYCLES times kill -9 of all nodes under load: 0 acknowledged writes lost"
    a_test crashes::kills_of_all_nodes_lose_nothing "QUORATE_KILLS=$CYCLES"
}

row_flips() {
    say "$FLIPS flipped bits over all kinds of files, one at a time: all found, none served, all repaired"
    a_test flips::flipped_bits_are_never_served "QUORATE_FLIPS=$FLIPS"
}

FAILED=0
ROWS=(cpu throughput tail engine index written restart reads kill simulation)
[[ $# == 0 || $* == all ]] || ROWS=("$@")
for row in "${ROWS[@]}"; do
    declare -F "row_$row" >/dev/null || { sed -n '2,18s/^# \{0,1\}//p' "$0" >&2 && exit 2; }
done
need python3 "apt-get install python3"
cargo build -q --release -p quorate
echo "Quorate $(git rev-parse --short HEAD 2>/dev/null), $(nproc) CPUs, Linux $(uname -r), $(stat -f -c %T "$PLACE"), $(date -I)"
for row in "${ROWS[@]}"; do "row_$row"; done
exit "$FAILED"
