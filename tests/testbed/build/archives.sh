#!/bin/bash
# Makes the container images that kubeadm 1.20.2 asks for: archives.sh OUTPUT_DIR KUBERNETES_DIR DEBIAN_TREE
# Each is a docker-archive of one layer: a program and the libraries it needs, nothing else.
. "$(dirname "$0")/common.sh"
OUT=$1 KUBERNETES=$2 TREE=$3
HERE=$(cd "$(dirname "$0")/.." && pwd)
VERSION=v1.20.2
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

# archive NAME TAG LAYER ENTRYPOINT: the layer as an archive that `ctr images import` reads.
archive() {
    local name=$1 tag=$2 layer=$3 entrypoint=$4 box digest
    box=$(mktemp -d -p "$scratch")
    tar -C "$layer" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$box/layer.tar" .
    digest=$(sha256sum "$box/layer.tar" | cut -d' ' -f1)
    cat >"$box/config.json" <<JSON
{"architecture":"amd64","os":"linux","created":"1970-01-01T00:00:00Z",
 "config":{"Env":["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Entrypoint":$entrypoint},
 "rootfs":{"type":"layers","diff_ids":["sha256:$digest"]}}
JSON
    printf '[{"Config":"config.json","RepoTags":["k8s.gcr.io/%s:%s"],"Layers":["layer.tar"]}]' "$name" "$tag" >"$box/manifest.json"
    tar -C "$box" -cf "$OUT.part/$name.tar" manifest.json config.json layer.tar
    rm -rf "$box"
    say "made k8s.gcr.io/$name:$tag"
}

for name in kube-apiserver kube-controller-manager kube-scheduler; do
    layer="$scratch/$name"
    install -D "$KUBERNETES/$name" "$layer/usr/local/bin/$name"
    archive "$name" "$VERSION" "$layer" null
done

layer="$scratch/kube-proxy"
install -D "$KUBERNETES/kube-proxy" "$layer/usr/local/bin/kube-proxy"
into "$layer" usr/sbin/xtables-nft-multi usr/sbin/conntrack
for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    ln -s xtables-nft-multi "$layer/usr/sbin/$name"
done
(cd "$TREE" && find usr/lib -path '*/xtables/*.so') | while read -r file; do into "$layer" "$file"; done
archive kube-proxy "$VERSION" "$layer" null

layer="$scratch/etcd"
into "$layer" usr/bin/etcd usr/bin/etcdctl
archive etcd 3.4.13-0 "$layer" null

layer="$scratch/pause"
mkdir -p "$layer"
gcc -Os -static -Wall -o "$layer/pause" "$HERE/pause.c"
archive pause 3.2 "$layer" '["/pause"]'

rm -rf "$OUT"
mv "$OUT.part" "$OUT"
