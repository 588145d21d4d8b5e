#!/bin/bash
# Starts one machine: boot.sh CGROUP NSPAWN_ARGUMENT...
# It becomes systemd-nspawn, in a cgroup of its own in every hierarchy, so that nothing outside is counted or stopped.
set -euo pipefail
name=$1
shift
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*/; do
    # A tmpfs above version 1 hierarchies has none of these files; a version 2 one has only its root.
    [ -e "$hierarchy/cgroup.procs" ] || continue
    [ "$hierarchy" = /sys/fs/cgroup ] || [ "$(stat -f -c %T /sys/fs/cgroup)" = tmpfs ] || continue
    mkdir -p "$hierarchy/$name"
    if [ -e "$hierarchy/cpuset.cpus" ]; then
        cat "$hierarchy/cpuset.cpus" >"$hierarchy/$name/cpuset.cpus"
        cat "$hierarchy/cpuset.mems" >"$hierarchy/$name/cpuset.mems"
    fi
    echo $$ >"$hierarchy/$name/cgroup.procs"
done
export SYSTEMD_SECCOMP=0 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
exec systemd-nspawn "$@"
