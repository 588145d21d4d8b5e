#!/bin/bash
# Puts the machines' image together: image.sh OUTPUT_DIR DEBIAN_TREE KUBERNETES_DIR CONTAINERD_DIR CNI_DIR ETCD_DIR
#     MUSTER_UNIT ARCHIVES_DIR...
. "$(dirname "$0")/common.sh"
OUT=$1 TREE=$2 KUBERNETES=$3 CONTAINERD=$4 CNI=$5 ETCD=$6 MUSTER_UNIT=$7
shift 7
HERE=$(cd "$(dirname "$0")/.." && pwd)
part="$OUT.part"

rm -rf "$part" && mkdir -p "$(dirname "$OUT")"
# Hard links: nothing below changes a file of the Debian tree in place.
cp -al "$TREE" "$part"
cp -r --remove-destination --preserve=mode "$HERE/image/." "$part/"
for command in kubeadm kubelet kubectl; do
    cp --remove-destination "$KUBERNETES/$command" "$part/usr/bin/$command"
done
cp --remove-destination "$ETCD/etcdctl" "$part/usr/bin/etcdctl"
mkdir -p "$part/usr/local/bin" "$part/opt/cni/bin" "$part/etc/cni/net.d"
cp --remove-destination "$CONTAINERD"/* "$part/usr/local/bin/"
cp --remove-destination "$CNI"/* "$part/opt/cni/bin/"
cp --remove-destination "$MUSTER_UNIT" "$part/etc/systemd/system/muster.service"
mkdir -p "$part/etc/kubernetes/manifests" "$part/var/log/journal" "$part/var/lib/kubelet" "$part/var/lib/etcd"

# What Debian starts and a machine of a cluster has no use for.
for unit in e2scrub_reap systemd-pstore getty@tty1 console-getty systemd-networkd systemd-resolved nftables; do
    ln -sfn /dev/null "$part/etc/systemd/system/$unit.service"
done
rm -rf "$part/etc/systemd/system/timers.target.wants"
wants="$part/etc/systemd/system/multi-user.target.wants"
mkdir -p "$wants"
for unit in containerd testbed-prepare testbed-booted kubelet muster; do
    ln -sfn "/etc/systemd/system/$unit.service" "$wants/$unit.service"
done

say "loading the container images"
# containerd runs in the new tree for a moment, in a mount namespace that goes away with it.
rm -rf "$part/var/lib/containerd" && mkdir -p "$part/var/lib/containerd"
unshare --mount --propagation private bash -euc '
    root=$1 log=$2
    shift 2
    mount --rbind /proc "$root/proc" && mount --rbind /dev "$root/dev" && mount --rbind /sys "$root/sys"
    mount -t tmpfs tmpfs "$root/run"
    printf "version = 3\ndisabled_plugins = [%s]\n" \
        "\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\"" >"$root/run/containerd.toml"
    chroot "$root" containerd --config /run/containerd.toml 2>"$log" &
    containerd=$!
    trap "kill $containerd; wait $containerd || :" EXIT
    for attempt in $(seq 100); do
        chroot "$root" ctr version >/dev/null 2>&1 && break
        sleep 0.1
    done
    for archives; do
        mkdir -p "$root/run/archives" && mount --bind "$archives" "$root/run/archives"
        for archive in "$archives"/*.tar; do
            chroot "$root" ctr --namespace k8s.io images import --local "/run/archives/${archive##*/}" >/dev/null
        done
        umount "$root/run/archives"
    done
    chroot "$root" ctr --namespace k8s.io images ls -q | grep -c -v "^sha256:" >&2
' bash "$part" "$OUT.containerd.log" "$@"
rm -f "$OUT.containerd.log"
rm -rf "$OUT"
mv "$part" "$OUT"
