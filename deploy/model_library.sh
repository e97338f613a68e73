#!/bin/sh
# See to it that the one shared library is installed that the local model's wheel takes from the system.
set -eu
here=$(dirname "$0")
. "$here/packages.sh"

[ "$(uname -s)" = Linux ] || exit 0
for folder in /lib /lib64 /usr/lib /usr/lib64 /lib/*-linux-gnu /usr/lib/*-linux-gnu; do
    if [ -e "$folder/libgomp.so.1" ]; then
        exit 0
    fi
done
install_packages libgomp1
