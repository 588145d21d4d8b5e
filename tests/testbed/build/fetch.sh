#!/bin/bash
# Fetches the sources of parts, one after another, while others compile: fetch.sh PART_DIR PACKAGE... [-- PART_DIR PACKAGE...]...
# What cannot be fetched now is fetched, or named, when the part is built. Ends with whatever it has started when it is told to.
. "$(dirname "$0")/common.sh"
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 143' TERM
work=

one() {
    local part=$1
    shift
    TAGS= CGO=0
    if [ -e "$part/settings" ]; then . "$part/settings"; fi
    work=$(mktemp -d)
    cp -r "$part"/. "$work/"
    (cd "$work" && CGO_ENABLED=$CGO GOFLAGS=-mod=readonly exec nice go list -tags "$TAGS" -deps "${@%.test}") >/dev/null 2>&1 &
    wait $! || true
    rm -rf "$work"
}

words=()
for word in "$@" --; do
    if [ "$word" = -- ]; then
        one "${words[@]}"
        words=()
    else
        words+=("$word")
    fi
done
