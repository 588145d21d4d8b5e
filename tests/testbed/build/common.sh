# Shared by the build recipes: strict shell, and Debian's archive as this host already knows it.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

# The release the image is made of; the kubernetes source package exists in this one.
SUITE=bookworm
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

say() { printf '    %s\n' "$*" >&2; }

# The address of Debian's main archive, read from the host's own apt configuration so that mirrors keep working.
debian_archive() {
    local uri
    uri=$(apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v suite="$SUITE" '$1 == "Debian" && $2 == suite && $3 == "main" { print $4; exit }')
    if [ -z "$uri" ]; then
        echo "apt on this host knows no Debian $SUITE archive (is this Debian 12, and did 'apt-get update' succeed?)" >&2
        return 1
    fi
    printf '%s' "$uri"
}
