#!/bin/bash
# Builds Kubernetes 1.20.2 from Debian's source package: kubernetes.sh OUTPUT_DIR WORK_DIR
# OUTPUT_DIR receives the binaries, all at once at the end; WORK_DIR is scratch and removed afterwards.
. "$(dirname "$0")/common.sh"
OUT=$1 WORK=$2
VERSION=v1.20.2
COMMANDS="kubeadm kubelet kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubectl"

rm -rf "$WORK" && mkdir -p "$WORK/apt/lists/partial" "$WORK/src"
cd "$WORK"

say "fetching the source package"
echo "deb-src [signed-by=$KEYRING] $(debian_archive) $SUITE main" >"$WORK/apt/sources.list"
apt_source=(-o "Dir::Etc::SourceList=$WORK/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$WORK/apt/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root)
apt-get "${apt_source[@]}" -qq update
(cd src && apt-get "${apt_source[@]}" -qq source --download-only kubernetes)
tree="$WORK/go/src/k8s.io/kubernetes"
mkdir -p "$tree"
tar -xf src/kubernetes_*.orig.tar.* -C "$tree" --strip-components=1

# The vendored reflect2 reaches into the Go runtime and crashes with Go 1.18 and later; Debian packages a newer one.
reflect2=vendor/github.com/modern-go/reflect2
find "$tree/$reflect2" -maxdepth 1 \( -name '*.go' -o -name '*.s' \) -delete
find /usr/share/gocode/src/github.com/modern-go/reflect2 -maxdepth 1 \( -name '*.go' -o -name '*.s' \) \
    ! -name '*_test.go' -exec cp -L {} "$tree/$reflect2/" \;

# Module mode refuses this vendor tree.
export GOPATH="$WORK/go" GO111MODULE=off GOFLAGS= GOCACHE="$WORK/gocache" CGO_ENABLED=0
cd "$tree"

say "generating the API server's OpenAPI definitions"
go build -o "$WORK/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
# -R: the directories under vendor/k8s.io are symbolic links into staging.
packages=$(grep -Rl --include='*.go' '+k8s:openapi-gen=' vendor/k8s.io/ |
    grep -vE '^vendor/k8s.io/(code-generator|sample-[a-z-]+|kube-openapi)/' |
    xargs -n1 dirname | sort -u | sed 's|^|k8s.io/kubernetes/|' | paste -sd, -)
"$WORK/openapi-gen" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h hack/boilerplate/boilerplate.generatego.txt -r "$WORK/openapi-violations" \
    -i "$packages"

flags=
for package in k8s.io/kubernetes/vendor/k8s.io/component-base/version k8s.io/kubernetes/vendor/k8s.io/client-go/pkg/version \
    k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$VERSION -X $package.gitMajor=1 -X $package.gitMinor=20"
    flags+=" -X $package.gitTreeState=clean -X $package.buildDate=2021-01-13T00:00:00Z"
done
mkdir -p "$WORK/bin"
for command in $COMMANDS; do
    say "compiling $command"
    go build -tags providerless -ldflags "-s -w$flags" -o "$WORK/bin/$command" "k8s.io/kubernetes/cmd/$command"
done
"$WORK/bin/kubeadm" version -o short | grep -qx "$VERSION"

mkdir -p "$(dirname "$OUT")"
rm -rf "$OUT"
cp -a "$WORK/bin" "$OUT.part"
mv "$OUT.part" "$OUT"
cd / && rm -rf "$WORK"
