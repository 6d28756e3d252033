# What a person does who follows a document at several terminals. The document's blocks follow; `expect` is behind those that
# show what is printed.
#
# The rule: the document's blocks run as they stand, in this shell; one that belongs to a terminal of its own runs until the
# next one there, and then gets a Ctrl-C.
set -euo pipefail
exec 2>&1
trap 'echo "failed: line $LINENO of this script: $BASH_COMMAND"' ERR
declare -A running

# interrupt NUMBER: what a terminal runs ends, in order.
interrupt() {
    local pid=${running[$1]:-}
    [[ $pid ]] || return 0
    unset "running[$1]"
    kill -INT "$pid"
    wait "$pid" || { echo "terminal $1 ended with $?:" && cat "terminal-$1.log" && exit 1; }
}

# terminal NUMBER <COMMANDS: returns when what they start serves.
terminal() {
    local log=terminal-$1.log
    interrupt "$1"
    # What was said there before shall not pass for an answer.
    : >"$log"
    bash -euc "$(cat)" >"$log" &
    running[$1]=$!
    until grep -qE '^Stop it:|serves clients' "$log"; do
        kill -0 "${running[$1]}" 2>/dev/null || { echo "terminal $1 ended:" && cat "$log" && exit 1; }
        sleep 0.1
    done
}

# Once more at the end, so that what does not stop in order is a failure.
interrupt_all() {
    local number
    for number in "${!running[@]}"; do interrupt "$number"; done
}
