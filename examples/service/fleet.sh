#!/usr/bin/env bash
# Two processes of the service and one Redis: callers have one quota, whichever process they ask.
#
#   examples/service/fleet.sh                       as cargo builds it for release
#   FLEET_PROFILE=debug examples/service/fleet.sh   as it builds it for tests
#
# Callers of two tiers, and one without a key, ask both processes in turn, as fast as they can. In the middle
# Redis is killed: everybody is still limited, and health says so. Then it is back without its data, and nobody
# gets a second burst. Prints what was let through and what should have been, and fails where they differ.
#
# Needs cargo, curl, redis-server and redis-cli. Everything that it starts ends with it.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

case "${FLEET_PROFILE:-release}" in
    release) profile=(--release) folder=release ;;
    debug) profile=() folder=debug ;;
    *) echo "FLEET_PROFILE is ${FLEET_PROFILE}, but must be release or debug" >&2; exit 2 ;;
esac
for tool in cargo curl redis-server redis-cli; do
    command -v "$tool" >/dev/null || { echo "$tool is missing" >&2; exit 2; }
done

cargo build --quiet "${profile[@]}" --all-features --example service
service="${CARGO_TARGET_DIR:-target}/$folder/examples/service"

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

now_ms() { echo $(($(date +%s%N) / 1000000)); }

# Waits until a command succeeds; $1 says what for.
await() {
    local what=$1 end=$(($(now_ms) + 20000))
    shift
    until "$@"; do
        (($(now_ms) < end)) || fail "$what: not within 20 s"
        sleep 0.05
    done
}

redis() { redis-cli -p "$redis_port" "$@" 2>/dev/null; }
answers() { [[ $(redis PING) == PONG ]]; }

# Its process is the last one started.
run_redis() {
    redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$work" --save '' --appendonly no \
        --daemonize no >>"$work/redis.log" 2>&1 &
    redis_process=$!
    started+=("$redis_process")
    for _ in {1..200}; do
        answers && kill -0 "$redis_process" 2>/dev/null && return
        # Somebody else may have had the port.
        kill -0 "$redis_process" 2>/dev/null || return 1
        sleep 0.05
    done
    return 1
}

start_redis() {
    for _ in {1..20}; do
        redis_port=$((20000 + RANDOM % 12000))
        if ! answers && run_redis; then return; fi
    done
    fail "redis-server does not start: $(tail -n 3 "$work/redis.log")"
}

says_where() { grep -q '^listening on ' "$work/$1.log"; }

# Starts a process of the service, called $1, on a port that the system chooses.
start_service() {
    env -i PATH="$PATH" HOME="${HOME:-/}" TMPDIR="$work" PORT=0 KEEP_RATE_LIMIT_INSTANCES=2 \
        REDIS_URL="redis://127.0.0.1:$redis_port" "$service" >"$work/$1.log" 2>&1 &
    started+=("$!")
    await "$1 listens" says_where "$1"
    sites+=("$(sed -n 's/^listening on //p' "$work/$1.log")")
}

# Whether both processes say of Redis what $1 says.
both_say() {
    local site
    for site in "${sites[@]}"; do
        curl -sf "$site/health" | grep -Eq "\"redis\":\{[^}]*\"status\":\"$1\"" || return 1
    done
}

# Whether both have said in Redis that they are there, which is when they begin to count together.
both_count() { [[ $(redis ZCARD keep:rl:instances) == 2 ]]; }

together() {
    await "both find Redis" both_say healthy
    await "both count together" both_count
    # What one does with the answer that says so, and after an outage the second in which debts are told.
    sleep 1.2
}

wrong=0
line='%-9s %-22s %6s %8s %8s   %s\n'

# $1 when, $2 who, $3 how many requests, $4 and $5 the fewest and the most that may pass.
send() {
    local when=$1 who=$2 count=$3 fewest=$4 most=$5 n
    local key=()
    [[ $who == anonymous ]] || key=(-H "x-api-key: $who-key")
    for ((n = 0; n < count; n++)); do
        printf 'url = "%s/contacts/7"\noutput = "/dev/null"\n' "${sites[n % 2]}"
    done >"$work/requests"
    curl -s "${key[@]}" -w '%{http_code}\n' --config "$work/requests" >"$work/codes" || true
    allowed=$(grep -c '^200$' "$work/codes" || true)
    local refused verdict=""
    refused=$(grep -c '^429$' "$work/codes" || true)
    # What grows back until now may pass as well.
    most=$(($5 + ($(now_ms) - ${since[$who]}) * ${per_minute[$who]} / 60000))
    if ((allowed < fewest || allowed > most || allowed + refused != count)); then
        wrong=1 verdict="  WRONG"
    fi
    # shellcheck disable=SC2059
    printf "$line" "$who" "$when" "$count" "$allowed" "$refused" "$fewest to $most$verdict"
}

declare -A per_minute=([basic]=60 [premium]=600 [anonymous]=300) since=() passed=()
sites=()
start_redis
start_service one
start_service two
together

echo "two processes: ${sites[*]}"
# shellcheck disable=SC2059
printf "$line" who when sent allowed refused expected
# Each may let one through that the other has not heard of.
slack=2
for who in basic premium; do
    since[$who]=$(now_ms)
    quota=${per_minute[$who]}
    send "with Redis" "$who" $((quota + quota / 2)) "$quota" "$quota"
    passed[$who]=$allowed
done

kill -KILL "$redis_process"
wait "$redis_process" 2>/dev/null || true
await "health says degraded" both_say degraded
echo "Redis is killed; health: degraded"
for who in basic premium; do
    send "Redis is killed" "$who" 100 0 $((per_minute[$who] - passed[$who] + slack))
    passed[$who]=$((passed[$who] + allowed))
done
# Somebody new has half of the quota with each.
since[anonymous]=$(now_ms)
send "Redis is killed" anonymous 400 300 300
passed[anonymous]=$allowed

run_redis || fail "redis-server does not come back"
together
echo "Redis is back, and has forgotten everything"
for who in basic premium anonymous; do
    send "Redis is back" "$who" 100 0 $((per_minute[$who] - passed[$who] + slack))
done

((wrong == 0)) || fail "what is marked is not as promised"
echo "all as promised"
