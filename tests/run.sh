#!/usr/bin/env bash
# Every gate of this repository, on a fresh Debian or Ubuntu machine with a Rust toolchain:
#
#     bash tests/run.sh
#
# Each step runs, whatever became of the others; only one build runs at a time. The last line is
# `N passed, N failed`, counting the tests and the steps; the exit code is 0 only if nothing failed.
#
# KEEP_INSTALL_DENY=1 builds cargo-deny first if it is missing, which takes some minutes.
set -u -o pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# What the tests need: commands or path patterns, any of which will do | Debian packages | why. A line is
# all it takes to add one; what is not on the PATH is named by a pattern, as in
# `/usr/lib/postgresql/*/bin/postgres|postgresql|...`.
NEEDS='
cc|gcc libc6-dev|the SQLite inside sqlx is C
redis-server|redis-server|the tests of the store start their own
openssl|openssl|the tests of TLS make their own certificates
/usr/lib/postgresql/*/bin/postgres|postgresql|the tests of the cold tier start their own
chromium chromium-browser google-chrome|chromium|the test of the dashboard looks at it in a browser
pgrep|procps|a step that hangs is ended with all its children
'

export CARGO_TERM_COLOR=never # the steps' output is read below
if [ -n "${CI:-}" ]; then
    export CARGO_INCREMENTAL=0 # a clone that is built once gains nothing from it
fi
export CARGO_TERM_PROGRESS_WHEN=never
export DEBIAN_FRONTEND=noninteractive

passed=0
failed=0
failures=()
notes=()
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM

bold= plain=
if [ -t 1 ]; then
    bold=$'\033[1m' plain=$'\033[0m'
fi

heading() { printf '\n%s== %s%s\n' "$bold" "$1" "$plain"; }

# step NAME COMMAND [ARGUMENT..]: runs it, shows its output, counts it and the tests it reports.
step() {
    local name=$1 began=$SECONDS outcome code ok bad
    shift
    heading "$name"
    "$@" 2>&1 | tee "$log"
    code=${PIPESTATUS[0]}
    read -r ok bad <<<"$(count_tests <"$log")"
    passed=$((passed + ok))
    failed=$((failed + bad))
    if [ "$code" -eq 0 ]; then
        outcome=passed
        passed=$((passed + 1))
    else
        outcome="FAILED (exit code $code)"
        failed=$((failed + 1))
        failures+=("$name")
    fi
    printf -- '-- %s: %s in %s s\n' "$name" "$outcome" "$((SECONDS - began))"
}

# bounded SECONDS COMMAND [ARGUMENT..]: ends it after so long, and says what every thread of it was at: a
# test's thread has the test's name.
bounded() (
    limit=$1
    shift
    "$@" &
    command=$!
    (
        nap='' over=''
        # The command may well end before the nap has begun.
        trap 'over=yes; kill "$nap" 2>/dev/null' TERM
        # Holds nothing open that somebody could wait for the end of.
        sleep "$limit" >/dev/null 2>&1 &
        nap=$!
        [ -n "$over" ] && kill "$nap"
        wait "$nap"
        [ -n "$over" ] && exit
        trap '' TERM
        printf '%s did not end within %s s. What was at work:\n' "$*" "$limit"
        end_all "$command"
    ) &
    watch=$!
    # What a script starts in the background is deaf to Ctrl-C, which may have ended whoever reads the output.
    trap 'end_all "$command" >/dev/null 2>&1; kill "$watch" 2>/dev/null; exit 130' INT TERM
    wait "$command"
    code=$?
    kill "$watch" 2>/dev/null
    wait "$watch" 2>/dev/null
    exit "$code"
)

# end_all PROCESS: shows and kills a process and its children. It is stopped first, so that it neither starts more of them
# nor ends as if nothing were wrong when they do.
end_all() {
    local child task
    for task in "/proc/$1/task/"*; do
        printf '%s %s %s: %s\n' "$1" "$(cat "$task/comm")" "$(cut -d' ' -f3 "$task/stat")" "$(cat "$task/wchan")"
    done 2>/dev/null
    kill -STOP "$1" 2>/dev/null
    for child in $(pgrep -P "$1"); do end_all "$child"; done
    kill -KILL "$1" 2>/dev/null
}

# Sums up cargo's lines `test result: ok. 12 passed; 1 failed; ..`.
count_tests() {
    awk '/^test result: / {
             for (i = 2; i <= NF; i++) {
                 if ($i == "passed;") ok += $(i - 1)
                 if ($i == "failed;") bad += $(i - 1)
             }
         }
         END { print ok + 0, bad + 0 }'
}

# note NAME TEXT: something that was not checked, or that is only a warning.
note() {
    heading "$1"
    printf '%s\n' "$2"
    notes+=("$1: $2")
}

# Whether one of these is there: commands, or patterns, which become the paths that they match.
is_there() {
    local one
    # shellcheck disable=SC2086 # to be split and matched
    for one in $1; do command -v "$one" >/dev/null 2>&1 && return 0; done
    return 1
}

# Installs what NEEDS lists and this machine lacks, or says how to.
install_needs() {
    local need packages why missing=() as_root=()
    while IFS='|' read -r need packages why; do
        if [ -z "$need" ]; then
            continue
        elif is_there "$need"; then
            printf '%s: present\n' "$need"
        else
            printf '%s: missing (%s)\n' "$need" "$why"
            read -r -a packages <<<"$packages"
            missing+=("${packages[@]}")
        fi
    done <<<"$NEEDS"
    [ ${#missing[@]} -eq 0 ] && return 0

    local install="apt-get update && apt-get install --yes --no-install-recommends ${missing[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo -n)
    fi
    if ! command -v apt-get >/dev/null 2>&1; then
        printf 'Not Debian or Ubuntu. Install what is missing; on Debian it would be: %s\n' "$install"
        return 1
    fi
    if [ ${#as_root[@]} -gt 0 ] && ! sudo -n true 2>/dev/null; then
        printf 'Not root, and sudo asks for a password. Run as root: %s\n' "$install"
        return 1
    fi
    # An outdated list may still do; whether the packages came is what counts.
    ${as_root[@]+"${as_root[@]}"} apt-get update ||
        printf 'The list of packages could not be brought up to date.\n'
    ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND="$DEBIAN_FRONTEND" \
        apt-get install --yes --no-install-recommends "${missing[@]}" ||
        # A package may also have tried to start its service in vain, which nothing here needs.
        printf 'apt-get ended with an error; what counts is whether the programs are there.\n'
    while IFS='|' read -r need packages why; do
        if [ -n "$need" ] && ! is_there "$need"; then
            printf '%s is missing still. Run as root: %s\n' "$need" "$install"
            return 1
        fi
    done <<<"$NEEDS"
}

has_toolchain() {
    command -v cargo >/dev/null 2>&1 && { cargo --version && rustc --version; } && return 0
    printf 'No Rust toolchain: see https://rustup.rs (components rustfmt and clippy as well).\n'
    return 1
}

# The crate's features, one a line, so that a new one is checked without being named here.
features() {
    cargo metadata --no-deps --format-version 1 --locked |
        grep -o '"features":{[^}]*}' | grep -o '"[^"]*":\[' | tr -d '":[' | grep -vx default
}

# The library alone, without what only tests need. Clippy, because it checks all that `cargo check`
# does and denies warnings without building the dependencies anew.
check_library() { cargo clippy --locked --lib "$@" -- -D warnings; }

check_features() {
    local feature names
    names=$(features) && [ -n "$names" ] || {
        step 'features: read from cargo metadata' false
        return
    }
    step 'features: none' check_library --no-default-features
    step 'features: default' check_library
    for feature in $names; do
        step "features: $feature alone" check_library --no-default-features --features "$feature"
    done
    step 'features: all' check_library --all-features
}

# Licences, bans and sources must hold. Advisories change by the day and not by what we do: a warning.
check_supply() {
    if ! cargo deny --version >/dev/null 2>&1 && [ "${KEEP_INSTALL_DENY:-0}" = 1 ]; then
        step 'supply: install cargo-deny' cargo install --locked cargo-deny
    fi
    if ! cargo deny --version >/dev/null 2>&1; then
        note 'supply' 'skipped, cargo-deny is missing (KEEP_INSTALL_DENY=1 builds it)'
        return
    fi
    step 'supply: licences, bans, sources' \
        cargo deny --locked --all-features check licenses bans sources
    heading 'supply: advisories (a warning only)'
    if ! cargo deny --locked --all-features check advisories; then
        notes+=('supply: advisories were found, or could not be fetched')
    fi
}

# Every order in which threads may meet in some shipped files: a package of its own, with its own lock file.
check_models() {
    local -x CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/models
    local models=tests/models/Cargo.toml
    step 'models: format' cargo fmt --manifest-path "$models" --check
    step 'models: lints' cargo clippy --locked --manifest-path "$models" -- -D warnings
    step 'models' bounded 1200 cargo run --locked --manifest-path "$models"
}

main() {
    step 'toolchain' has_toolchain
    step 'needs' install_needs
    if command -v cargo >/dev/null 2>&1; then
        step 'format' cargo fmt --check
        step 'lints' cargo clippy --locked --all-targets --all-features -- -D warnings
        check_features
        # As programs: the smoke tests start them.
        step 'examples' cargo build --locked --all-features --examples
        step 'tests' bounded 2400 cargo test --locked --all-features --lib --tests --examples --no-fail-fast
        step 'doc tests' bounded 1200 cargo test --locked --all-features --doc --no-fail-fast
        step 'docs' env RUSTDOCFLAGS='-D warnings' cargo doc --locked --all-features --no-deps
        check_models
        check_supply
    fi

    heading 'summary'
    local line
    for line in ${notes[@]+"${notes[@]}"}; do printf 'note: %s\n' "$line"; done
    for line in ${failures[@]+"${failures[@]}"}; do printf 'failed: %s\n' "$line"; done
    printf 'took %s s\n' "$SECONDS"
    printf '%s passed, %s failed\n' "$passed" "$failed"
    [ "$failed" -eq 0 ]
}

main
