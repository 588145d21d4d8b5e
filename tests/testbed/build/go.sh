#!/bin/bash
# Builds the Go programs of one part: go.sh OUTPUT_DIR PART_DIR PACKAGE...
# PART_DIR holds go.mod and go.sum, which pin every source by its hash, and programs of its own, if any, as testbed/NAME; `settings` in
# it may set TAGS, CGO, STAMP and WITHOUT.
# OUTPUT_DIR receives the programs, all at once at the end. Progress goes to standard error, a line each tenth.
# A package that ends in .test is a test binary of the package before that ending.
. "$(dirname "$0")/common.sh"
OUT=$1 PART=$2
shift 2
TAGS= CGO=0 STAMP= WITHOUT=
if [ -e "$PART/settings" ]; then . "$PART/settings"; fi

# Where the sources are is not told to the programs, so that two checkouts build the same ones.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$PART"/. "$work/"
cd "$work"
export CGO_ENABLED=$CGO GOFLAGS=-mod=readonly GOTOOLCHAIN=${GOTOOLCHAIN:-auto}
# Compilers live for seconds: collecting their garbage costs a tenth of the time and saves memory that nobody needs.
export GOGC=${GOGC:-400}

# A package of another module that is built empty, for nobody uses it here, and it wants a C compiler: WITHOUT is MODULE/PACKAGE.
if [ -n "$WITHOUT" ]; then
    module=$(go list -find -f '{{.Module.Path}}' "$WITHOUT")
    cp -r "$(go list -m -f '{{.Dir}}' "$module")" "$work/changed"
    chmod -R u+w "$work/changed"
    empty=$work/changed/${WITHOUT#"$module"/}
    rm "$empty"/*
    echo "package ${WITHOUT##*/}" >"$empty/empty.go"
    go mod edit -replace "$module=./changed"
fi

flags="-s -w"
# Kubernetes' programs say which version they are only if they are told at this point.
if [ -n "$STAMP" ]; then
    version=$(awk -v module="$STAMP" '$1 == "require" && $2 == module { print $3 } $1 == module { print $2 }' go.mod | head -n 1)
    minor=${version#v1.} minor=${minor%%.*}
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor"
        flags+=" -X $package.gitTreeState=archive -X $package.gitCommit=0000000000000000000000000000000000000000"
        flags+=" -X $package.buildDate=2026-01-01T00:00:00Z"
    done
fi

# Counts the packages that `go build -v` names while it compiles them. Those that Go's own cache has are not named, so a
# rebuild may jump to its end.
progress() {
    local total=$1 name=$2 seen=0 tenth=0 line
    while read -r line; do
        case $line in
        *" "*) printf '%s\n' "$line" >&2 ;;
        *)
            seen=$((seen + 1))
            if [ $((seen * 10 / total)) -gt "$tenth" ] && [ "$tenth" -lt 9 ]; then
                tenth=$((seen * 10 / total))
                say "$name: $((tenth > 9 ? 90 : tenth * 10)) % of $total packages"
            fi
            ;;
        esac
    done
}

rm -rf "$OUT.part" && mkdir -p "$OUT.part"
commands=() tests=()
for package; do
    case $package in *.test) tests+=("${package%.test}") ;; *) commands+=("$package") ;; esac
done
name=$(basename "$PART")
say "$name: fetching the sources"
total=$(go list -tags "$TAGS" -deps "${commands[@]}" "${tests[@]}" | wc -l)
if [ ${#commands[@]} -gt 0 ]; then
    go build -v -trimpath -tags "$TAGS" -ldflags "$flags" -o "$OUT.part/" "${commands[@]}" 2> >(progress "$total" "$name")
fi
for package in "${tests[@]}"; do
    go test -c -trimpath -tags "$TAGS" -ldflags "$flags" -o "$OUT.part/${package##*/}.test" "$package" 2> >(progress "$total" "$name")
done
rm -rf "$OUT"
mv "$OUT.part" "$OUT"
