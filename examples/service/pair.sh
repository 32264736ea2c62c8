#!/usr/bin/env bash
# Two processes of the service, one Redis and one database: what one has changed, the other never serves.
#
#   examples/service/pair.sh          10,000 rounds, as cargo builds it for release
#   examples/service/pair.sh 500      so many
#   PAIR_PROFILE=debug examples/service/pair.sh 500
#
# Each round changes a page through one process and reads it at once through the other, which has the old page in
# its memory. Prints how many reads came from memory and how many were old; fails if any was.
#
# Needs cargo, curl, redis-server and redis-cli. Everything that it starts ends with it.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

rounds=${1:-10000}
case "${PAIR_PROFILE:-release}" in
    release) profile=(--release) folder=release ;;
    debug) profile=() folder=debug ;;
    *) echo "PAIR_PROFILE is ${PAIR_PROFILE}, but must be release or debug" >&2; exit 2 ;;
esac
for tool in cargo curl redis-server redis-cli; do
    command -v "$tool" >/dev/null || { echo "$tool is missing" >&2; exit 2; }
done

cargo build --quiet "${profile[@]}" --all-features --example service --example read_your_writes
built="${CARGO_TARGET_DIR:-target}/$folder/examples"

work=$(mktemp -d)
started=()

clean_up() {
    for process in "${started[@]}"; do kill -KILL "$process" 2>/dev/null || true; done
    for process in "${started[@]}"; do wait "$process" 2>/dev/null || true; done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

fail() { echo "$*" >&2; exit 1; }

# Waits until a command succeeds; $1 says what for.
await() {
    local what=$1 n
    shift
    for ((n = 0; n < 400; n++)); do
        if "$@"; then return; fi
        sleep 0.05
    done
    fail "$what: not within 20 s"
}

answers() { [[ $(redis-cli -p "$redis_port" PING 2>/dev/null) == PONG ]]; }

for _ in {1..20}; do
    redis_port=$((20000 + RANDOM % 12000))
    if answers; then continue; fi
    redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$work" --save '' --appendonly no \
        --daemonize no >>"$work/redis.log" 2>&1 &
    started+=("$!")
    if await "redis-server starts" answers; then break; fi
done

sites=()
says_where() { grep -q '^listening on ' "$work/$1.log"; }
hears() { curl -sf "$1/health" | grep -Eq '"invalidation":\{[^}]*"status":"healthy"'; }

for name in one two; do
    env -i PATH="$PATH" HOME="${HOME:-/}" TMPDIR="$work" PORT=0 DATABASE_PATH="$work/crm.sqlite" \
        KEEP_RATE_LIMIT_ENABLED=false REDIS_URL="redis://127.0.0.1:$redis_port" \
        "$built/service" >"$work/$name.log" 2>&1 &
    started+=("$!")
    await "$name listens" says_where "$name"
    site=$(sed -n 's/^listening on //p' "$work/$name.log")
    await "$name hears of invalidations" hears "$site"
    sites+=("$site")
done
# Until now nobody knows which leases an earlier Redis may have given out; see `journal.lease_ms`.
sleep 1.2

"$built/read_your_writes" --rounds "$rounds" "${sites[@]}"
