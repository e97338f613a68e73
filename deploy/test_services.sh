#!/bin/sh
# See to it that the servers and the browser that the tests start are installed.
set -eu
here=$(dirname "$0")
. "$here/packages.sh"
PATH=$PATH:/usr/sbin:/sbin

is_ubuntu() {
    [ -r /etc/os-release ] && . /etc/os-release && [ "${ID:-}" = ubuntu ]
}

has_any() {
    for program in "$@"; do
        if command -v "$program" >/dev/null 2>&1; then
            return 0
        fi
    done
    return 1
}

missing=""
[ -x "${RABBITMQ_BIN:-/usr/lib/rabbitmq/bin}/rabbitmq-server" ] || missing="$missing rabbitmq-server"
has_any redis-server || missing="$missing redis-server"
has_any faketime || missing="$missing faketime"
if is_ubuntu; then
    has_any chromium chromium-browser google-chrome || missing="$missing chromium-browser"
    has_any chromedriver || missing="$missing chromium-chromedriver"
else
    has_any chromium chromium-browser google-chrome || missing="$missing chromium"
    has_any chromedriver || missing="$missing chromium-driver"
fi
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086 # a list of words
    install_packages $missing
fi
