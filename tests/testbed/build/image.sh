#!/bin/bash
# Puts the machines' image together: image.sh OUTPUT_DIR DEBIAN_TREE KUBERNETES_DIR ARCHIVES_DIR MUSTER_UNIT
. "$(dirname "$0")/common.sh"
OUT=$1 TREE=$2 KUBERNETES=$3 ARCHIVES=$4 MUSTER_UNIT=$5
HERE=$(cd "$(dirname "$0")/.." && pwd)
part="$OUT.part"

rm -rf "$part" && mkdir -p "$(dirname "$OUT")"
# Hard links: nothing below changes a file of the Debian tree in place.
cp -al "$TREE" "$part"
cp -r --remove-destination --preserve=mode "$HERE/image/." "$part/"
for command in kubeadm kubelet kubectl; do
    cp --remove-destination "$KUBERNETES/$command" "$part/usr/bin/$command"
done
cp --remove-destination "$MUSTER_UNIT" "$part/etc/systemd/system/muster.service"
mkdir -p "$part/etc/kubernetes/manifests" "$part/var/log/journal" "$part/var/lib/kubelet" "$part/var/lib/etcd"

# What Debian starts and a machine of a cluster should not: etcd here is kubeadm's, in a pod.
rm -f "$part"/etc/systemd/system/etcd2.service
for unit in etcd e2scrub_reap systemd-pstore getty@tty1 console-getty systemd-networkd systemd-resolved nftables; do
    ln -sfn /dev/null "$part/etc/systemd/system/$unit.service"
done
rm -rf "$part/etc/systemd/system/timers.target.wants"
wants="$part/etc/systemd/system/multi-user.target.wants"
mkdir -p "$wants"
for unit in containerd testbed-prepare testbed-booted kubelet muster; do
    ln -sfn "/etc/systemd/system/$unit.service" "$wants/$unit.service"
done
ln -sfn /lib/systemd/system/containerd.service "$wants/containerd.service"

say "loading the container images"
# containerd runs in the new tree for a moment, in a mount namespace that goes away with it.
rm -rf "$part/var/lib/containerd" && mkdir -p "$part/var/lib/containerd" "$part/run/archives"
unshare --mount --propagation private bash -euc '
    root=$1
    mount --rbind /proc "$root/proc" && mount --rbind /dev "$root/dev" && mount --rbind /sys "$root/sys"
    mount -t tmpfs tmpfs "$root/run" && mkdir "$root/run/archives" && mount --bind "$2" "$root/run/archives"
    printf "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n" >"$root/run/containerd.toml"
    chroot "$root" containerd --config /run/containerd.toml 2>"$3" &
    containerd=$!
    trap "kill $containerd; wait $containerd || :" EXIT
    for attempt in $(seq 100); do
        chroot "$root" ctr version >/dev/null 2>&1 && break
        sleep 0.1
    done
    for archive in "$2"/*.tar; do
        chroot "$root" ctr --namespace k8s.io images import "/run/archives/${archive##*/}" >/dev/null
    done
    chroot "$root" ctr --namespace k8s.io images ls -q | grep -c "^k8s.gcr.io/" >&2
' bash "$part" "$ARCHIVES" "$OUT.containerd.log"
rmdir "$part/run/archives"
rm -f "$OUT.containerd.log"
rm -rf "$OUT"
mv "$part" "$OUT"
