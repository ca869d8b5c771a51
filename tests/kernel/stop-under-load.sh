# SIGTERM under a file system that writes: the kernel loses its connection, and none of its requests is answered with an error.
# $LOAD: the program that writes and verifies.

files=15

step "start"
serve "$disk/image" --size 512M --cache-size 64M --no-admin
attach
make_fs ext4
mount_fs

exec {load_out}< <(exec "$LOAD" write "$mnt" "$disk/log" 1 2>/run/load.log)
load=$!
for ((n = 0; n < files; n++)); do
    read -r -t 60 -u "$load_out" _ || fail "the load ended early: $(cat /run/load.log)"
done

# Readers and writers past the page cache keep requests in flight through the whole stop.
for place in 100 200 300; do
    dd if=/dev/nbd0 of=/dev/null bs=64k iflag=direct skip=$((place * 16)) 2>/dev/null &
done
step "stop"
stop
# Nobody connects again: what was sent and not answered fails now, instead of after its timeout.
detach || true
if wait "$load"; then fail "the load survived the end of its disk"; fi
exec {load_out}<&-
wait
if dmesg | grep -F 'Other side returned error'; then fail "requests were answered with an error"; fi
dmesg | grep -F 'block nbd0: ' >/dev/null || fail "the kernel didn't notice"
umount_fs

step "start again"
serve "$disk/image" --cache-size 64M --no-admin
attach
mount_fs
"$LOAD" verify "$mnt" "$disk/log" || fail "what was fsynced is lost"
umount_fs
check_fs ext4
detach
stop
step "done"
