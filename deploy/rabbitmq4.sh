#!/bin/sh
# Makes RabbitMQ 4 available to the tests on a machine whose own is older, and prints the folder of its
# programs: sh deploy/rabbitmq4.sh [FOLDER]. Needs root, and Debian's debootstrap.
#
# It is Debian 13's package (4.0.5), unpacked into a folder of its own. Each program runs there by chroot
# in a mount namespace that ends with it, so that nothing stays mounted, and by exec, so that a signal to
# its pid reaches it. It sees /tmp and the folder that HOME names.
set -eu
. "$(dirname "$0")/packages.sh"
folder=${1:-/var/tmp/textgen-rabbitmq4}
root=$folder/root
PATH=$PATH:/usr/sbin:/sbin

write_program() { # its path in the root
    cat >"$folder/bin/$(basename "$1")" <<END
#!/bin/sh
exec unshare --mount sh -ec 'mount -t proc proc "$root/proc"; mount --rbind /dev "$root/dev"
    mount --rbind /tmp "$root/tmp"; mkdir -p "$root\$HOME"; mount --rbind "\$HOME" "$root\$HOME"
    exec chroot "$root" "\$@"' sh $1 "\$@"
END
    chmod +x "$folder/bin/$(basename "$1")"
}

test "$(id -u)" -eq 0 || { echo "error: RabbitMQ 4 for the tests needs root, for chroot" >&2; exit 1; }
exec 9>"$folder.lock"
flock 9 # one that is being made is waited for
if ! test -e "$folder/complete"; then
    command -v debootstrap >/dev/null || install_packages debootstrap
    echo "Unpacking RabbitMQ 4 into $folder" >&2
    rm -rf --one-file-system "$folder"
    mkdir -p "$folder/bin"
    # what debootstrap mounts ends with it, even if it is killed
    unshare --mount debootstrap --variant=minbase --include=rabbitmq-server trixie "$root" >"$folder.log" 2>&1 ||
        { echo "error: RabbitMQ 4 could not be unpacked: see $folder.log" >&2; exit 1; }
    cp /etc/hosts "$root/etc/hosts"
    for program in rabbitmq-server rabbitmqctl rabbitmq-plugins rabbitmq-diagnostics; do
        write_program "/usr/lib/rabbitmq/bin/$program"
    done
    write_program /usr/bin/epmd
    touch "$folder/complete"
fi
echo "$folder/bin"
