# The first process of a guest: see tests/src/guest.rs. Runs $SCRIPT, prints the result, powers off.
#
# What scripts may use:
#   step TEXT                      say what comes next, with the time since boot
#   fail TEXT                      end with a failure
#   serve IMAGE [OPTION...]        start the server and wait until it listens; pid in $server
#   stop                           SIGTERM, and it must end with 0
#   attach / detach                /dev/nbd0
#   make_fs TYPE / check_fs TYPE   mkfs, and an fsck that changes nothing
#   mount_fs / umount_fs           /dev/nbd0 on $mnt
# $disk is a folder on the guest's own disk, $mnt an empty folder.

export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ LC_ALL=C
port=10809
disk=/run/disk
mnt=/run/mnt
server=

step() { read -r up _ </proc/uptime; echo "weir-step: $up $*"; }

fail() {
    echo "weir-result: failed: $*"
    trap - ERR EXIT
    tail -n 15 /run/server.log 2>/dev/null
    dmesg | tail -n 15
    power_off
}

power_off() {
    trap - ERR EXIT
    echo o >/proc/sysrq-trigger
    # Power-off is asynchronous, and the kernel panics when its first process ends.
    while :; do sleep 60; done
}

serve() {
    local line
    exec {server_out}< <(exec "$WEIR" serve "$@" --listen "127.0.0.1:$port" 2>>/run/server.log)
    server=$!
    read -r -t 30 -u "$server_out" line || fail "the server did not start"
    [[ $line == nbd://* ]] || fail "not a URI: $line"
}

stop() {
    local status=0
    kill -TERM "$server"
    wait "$server" || status=$?
    exec {server_out}<&-
    [[ $status == 0 ]] || fail "the server ended with $status after SIGTERM"
}

attach() { nbd-client 127.0.0.1 "$port" /dev/nbd0 -b 4096 -C 2 -t 60 >/dev/null; }
detach() { nbd-client -d /dev/nbd0 >/dev/null; }

make_fs() {
    case $1 in
    ext4) mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 /dev/nbd0 ;;
    xfs) mkfs.xfs -q -f /dev/nbd0 ;;
    btrfs) mkfs.btrfs -q -f /dev/nbd0 ;;
    *) fail "no file system $1" ;;
    esac
}

check_fs() {
    case $1 in
    ext4) e2fsck -fn /dev/nbd0 ;;
    xfs) xfs_repair -n /dev/nbd0 ;;
    btrfs) btrfs check --readonly /dev/nbd0 ;;
    esac >/run/fsck.log 2>&1 || { cat /run/fsck.log; fail "fsck of $1 found errors"; }
}

mount_fs() { mount "$@" /dev/nbd0 "$mnt"; }
umount_fs() { umount "$mnt"; }

set -eE -o pipefail
trap 'fail "line $LINENO of ${BASH_SOURCE[0]##*/}: $BASH_COMMAND"' ERR
trap 'fail "the script ended early"' EXIT

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmpfs /run
ln -s /proc/self/fd /dev/fd
mkdir "$disk" "$mnt"
ip link set lo up
insmod "/usr/lib/uml/modules/$(uname -r)/kernel/drivers/block/nbd.ko" nbds_max=1
mount -o discard /dev/ubda "$disk"

source "$SCRIPT"

echo "weir-result: ok"
power_off
