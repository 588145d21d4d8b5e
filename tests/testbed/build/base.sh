#!/bin/bash
# Makes the Debian tree under the image: base.sh OUTPUT_DIR
. "$(dirname "$0")/common.sh"
OUT=$1
packages=$(grep -v '^#' "$(dirname "$0")/packages" | paste -sd, -)

rm -rf "$OUT.part"
say "unpacking Debian $SUITE"
mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' "$SUITE" "$OUT.part" "$(debian_archive)"

# What must be made anew on each machine, or would be one machine's in an image of many.
: >"$OUT.part/etc/machine-id"
rm -f "$OUT.part/etc/hostname" "$OUT.part/etc/resolv.conf" "$OUT.part"/var/lib/dbus/machine-id
rm -rf "$OUT"
mv "$OUT.part" "$OUT"
