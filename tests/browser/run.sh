#!/usr/bin/env bash
# Opens reports in Chromium and checks them; see README.md. Exit code 1 if something is wrong with a page.
set -Eeuo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

# Debian's own, installed where that can be done; elsewhere the checks are left out, and that is said.
if ! command -v chromium >/dev/null && [[ $(id -u) == 0 ]] && grep -qs '^ID=debian' /etc/os-release; then
    echo "installing chromium"
    { apt-get update --quiet=2 && DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends chromium; } \
        >/dev/null || echo "chromium could not be installed"
fi
if ! command -v chromium >/dev/null; then
    echo "chromium is missing (apt-get install chromium): THE REPORT IS NOT TRIED IN A BROWSER"
    exit 0
fi
sim=${1:-}
if [[ -z $sim ]]; then
    cargo build --release --locked --package muster-simulator
    sim=target/release/muster-sim
fi
shots=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[[ -z $shots ]] || mkdir -p "$shots"

# Largest page in bytes that still opens well.
# 500 machines with every line of their log are 12 MB, which Chromium opens and draws at once.
bytes_max=$((16 * 1024 * 1024))
wrong=0

# report NAME SCENARIO MACHINES SEED: a run that broke a promise is a page like any other.
report() {
    local code=0
    "$sim" report "$2" --machines "$3" --seed "$4" --out "$work/$1.html" >/dev/null || code=$?
    ((code < 4)) || return "$code"
    local bytes
    bytes=$(stat --format %s "$work/$1.html")
    if ((bytes > bytes_max)); then
        echo "$1: $bytes bytes are more than $bytes_max"
        wrong=1
    fi
    # The checks come after the page's own script; `#result` is what they found.
    { cat "$work/$1.html"; echo "<script>"; cat "$here/checks.js"; echo "</script>"; } >"$work/$1-checked.html"
}

browse() {
    local profile
    profile=$(mktemp -d -p "$work")
    timeout 300 chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
        --disable-component-update --disable-sync --host-resolver-rules="MAP * ~NOTFOUND" --user-data-dir="$profile" \
        --hide-scrollbars --enable-logging=stderr --virtual-time-budget=20000 "$@" 2>"$work/stderr"
}

# check NAME COLOURS WIDTH
check() {
    local dom=$work/dom scheme=1 console result
    [[ $2 == light ]] || scheme=0
    browse --blink-settings=preferredColorScheme=$scheme --window-size="$3,1000" --dump-dom "file://$work/$1-checked.html" >"$dom"
    console=$(grep ':CONSOLE' "$work/stderr" || true)
    result=$(grep -o '<pre id="result">[^<]*' "$dom" | sed 's/<pre id="result">//' || true)
    if [[ $result == "all well "* && -z $console ]]; then
        echo "$1, $2, $3 px wide: $result"
    else
        printf '%s, %s, %s px wide: WRONG: %s\n%s\n' "$1" "$2" "$3" "${result:-the checks did not end}" "$console"
        wrong=1
    fi
    if [[ -n $shots ]]; then
        browse --blink-settings=preferredColorScheme=$scheme --window-size="$3,2400" --screenshot="$shots/$1-$2-$3.png" \
            "file://$work/$1.html"
    fi
}

report five simulations/five.toml 5 1
report split simulations/threshold-splits.toml 6 1
report hundreds simulations/swarm-50.toml 500 3
check five light 1400
check five dark 700
check split dark 1400
check hundreds light 1400
check hundreds dark 1000
exit "$wrong"
