#!/bin/bash
# Makes the container images of a cluster: archives.sh OUTPUT_DIR DEBIAN_TREE KUBERNETES_DIR VERSION ETCD_DIR ETCD_TAG
#     COREDNS_DIR COREDNS_TAG FLANNEL_DIR FLANNEL_TAG AGNHOST_DIR AGNHOST_TAGS
# Each is a docker-archive of one layer: a program and what it needs, nothing else.
. "$(dirname "$0")/common.sh"
OUT=$1 TREE=$2 KUBERNETES=$3 VERSION=$4 ETCD=$5 ETCD_TAG=$6 COREDNS=$7 COREDNS_TAG=$8
FLANNEL=$9 FLANNEL_TAG=${10} AGNHOST=${11} AGNHOST_TAGS=${12}
HERE=$(cd "$(dirname "$0")/.." && pwd)
REGISTRY=registry.k8s.io
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
rm -rf "$OUT.part" && mkdir -p "$OUT.part"

# into LAYER FILE...: copies files of the Debian tree into a layer at the same path, with the libraries they load.
into() {
    local layer=$1 file library
    shift
    for file; do
        mkdir -p "$layer/$(dirname "$file")"
        cp -a "$TREE/$file" "$layer/$file"
        # -L below: a library is often a link to its versioned name.
        for library in $(chroot "$TREE" ldd "/$file" 2>/dev/null | grep -o '/[^ ]*' || :); do
            mkdir -p "$layer/$(dirname "$library")"
            [ -e "$layer$library" ] || cp -L "$TREE$library" "$layer$library"
        done
    done
}

# tools LAYER NAME...: busybox under these names.
tools() {
    local layer=$1 name
    shift
    mkdir -p "$layer/bin"
    cp "$TREE/bin/busybox" "$layer/bin/busybox"
    for name; do ln -s busybox "$layer/bin/$name"; done
}

# archive FILE LAYER CONFIG TAG...: the layer as an archive that `ctr images import` reads, under each of the tags.
archive() {
    local file=$1 layer=$2 config=$3 box digest tags
    shift 3
    tags=$(printf ',"%s"' "$@")
    box=$(mktemp -d -p "$scratch")
    tar -C "$layer" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$box/layer.tar" .
    digest=$(sha256sum "$box/layer.tar" | cut -d' ' -f1)
    cat >"$box/config.json" <<JSON
{"architecture":"amd64","os":"linux","created":"1970-01-01T00:00:00Z",
 "config":{"Env":["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]$config},
 "rootfs":{"type":"layers","diff_ids":["sha256:$digest"]}}
JSON
    printf '[{"Config":"config.json","RepoTags":[%s],"Layers":["layer.tar"]}]' "${tags#,}" >"$box/manifest.json"
    tar -C "$box" -cf "$OUT.part/$file.tar" manifest.json config.json layer.tar
    rm -rf "$box"
}

for name in kube-apiserver kube-controller-manager kube-scheduler; do
    layer="$scratch/$name"
    install -D "$KUBERNETES/$name" "$layer/usr/local/bin/$name"
    archive "$name" "$layer" "" "$REGISTRY/$name:$VERSION"
done

# Without /etc/protocols nft prints numbers for names, and a kube-proxy that starts over the rules of an earlier one takes
# them all for foreign: every Service of the Node is dead, and nothing says so.
layer="$scratch/kube-proxy"
install -D "$KUBERNETES/kube-proxy" "$layer/usr/local/bin/kube-proxy"
into "$layer" usr/sbin/nft usr/sbin/conntrack etc/protocols
archive kube-proxy "$layer" "" "$REGISTRY/kube-proxy:$VERSION"

layer="$scratch/etcd"
install -D -t "$layer/usr/local/bin" "$ETCD/etcdctl" "$ETCD/etcdutl"
install -D "$ETCD/server" "$layer/usr/local/bin/etcd"
archive etcd "$layer" "" "$REGISTRY/etcd:$ETCD_TAG"

layer="$scratch/coredns"
install -D "$COREDNS/coredns" "$layer/coredns"
archive coredns "$layer" ',"Entrypoint":["/coredns"]' "$REGISTRY/coredns/coredns:$COREDNS_TAG"

layer="$scratch/flannel"
install -D "$FLANNEL/flannel" "$layer/usr/local/bin/flanneld"
into "$layer" usr/sbin/nft etc/protocols usr/sbin/xtables-nft-multi
# With nftables, too, flannel begins by taking away what an earlier one may have left in iptables.
for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    ln -s xtables-nft-multi "$layer/usr/sbin/$name"
done
for library in $(chroot "$TREE" ldd /usr/sbin/nft | grep -o '/[^ ]*ld-linux[^ ]*'); do cp -L "$TREE$library" "$layer$library"; done
tools "$layer" sh cat cmp mv sleep mkdir
archive flannel "$layer" "" "localhost/flannel:$FLANNEL_TAG"

# What Kubernetes' own tests talk to, with the tools that they expect beside it.
layer="$scratch/agnhost"
install -D "$AGNHOST/agnhost" "$layer/agnhost"
mkdir -p "$layer/tmp" "$layer/etc" && chmod 1777 "$layer/tmp"
tools "$layer" cat ls echo env head tail grep sed awk cut tr sort uniq wc test true false sleep date hostname id \
    mkdir rm rmdir mv cp ln chmod chown stat touch mount umount ps kill ping nslookup wget route netstat find xargs \
    base64 md5sum sha256sum dd df du mktemp printf seq tee timeout uname which whoami
# Those whose options the tests use: `nc -v -t -w 2`, `curl --connect-timeout`, `dig +search`, `ip route get`; and a shell that
# does not prefer its own, as busybox' does.
into "$layer" usr/bin/curl usr/bin/nc.openbsd usr/bin/dig usr/bin/ip usr/bin/dash
ln -s nc.openbsd "$layer/usr/bin/nc"
ln -s /usr/bin/dash "$layer/bin/sh"
archive agnhost "$layer" ',"Entrypoint":["/agnhost"],"Cmd":["pause"]' $(printf "$REGISTRY/e2e-test-images/agnhost:%s " $AGNHOST_TAGS)

layer="$scratch/pause"
mkdir -p "$layer"
gcc -Os -static -Wall -o "$layer/pause" "$HERE/pause.c"
archive pause "$layer" ',"Entrypoint":["/pause"]' "$REGISTRY/pause:3.10" "$REGISTRY/pause:3.10.1" "$REGISTRY/pause:3.10.2"

rm -rf "$OUT"
mv "$OUT.part" "$OUT"
