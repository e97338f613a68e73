# Sourced by the other scripts: installs packages of a Debian-like distribution where that is allowed.

# Say how to become root without a question ("" as root); fails where that is impossible.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        echo ""
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        echo "sudo -n"
    else
        return 1
    fi
}

# Install the packages named, without starting the services in them. Fails, having said what to do,
# where there is no apt or no permission.
install_packages() {
    if ! command -v apt-get >/dev/null 2>&1 || ! become=$(as_root); then
        echo "error: these are needed, and this script may not install them: $*" >&2
        echo "       On Debian or Ubuntu, as root: apt-get update && apt-get install -y $*" >&2
        return 1
    fi
    echo "Installing $*" >&2
    policy=/usr/sbin/policy-rc.d
    made_policy=no
    if [ ! -e "$policy" ]; then
        # A service that cannot start, as in a container, would fail the installation; none is needed.
        printf '#!/bin/sh\nexit 101\n' | $become tee "$policy" >/dev/null
        $become chmod 755 "$policy"
        made_policy=yes
    fi
    status=0
    { $become apt-get update -q && $become env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "$@"; } >&2 || status=$?
    if [ "$made_policy" = yes ]; then
        $become rm -f "$policy"
    fi
    [ "$status" -eq 0 ] || echo "error: apt-get could not install $*" >&2
    return "$status"
}
