# A file system's life on an exported image: make, fill, trim, restart, check.
# $FS: ext4, xfs or btrfs. $IMAGE: where the image is. $CAN_PUNCH: 1 where its file system can punch holes.

kib_on_disk() { du -k "$IMAGE" | cut -f1; }

step "first start"
serve "$IMAGE" --size 1G --cache-size 64M --no-admin
attach
[[ $(blockdev --getsize64 /dev/nbd0) == $((1 << 30)) ]] || fail "the device's size"

step "mkfs.$FS"
make_fs "$FS"
mount_fs

step "known files"
mkdir "$mnt/files"
for size in 0 1 511 512 513 4095 4096 4097 65536 1000003 5000011; do
    head -c "$size" /dev/urandom >"$mnt/files/$size"
done
for n in {1..100}; do echo "$n $n $n" >"$mnt/files/small-$n"; done
(cd "$mnt/files" && sha256sum *) >"$disk/sums"

step "a big file, then without it"
head -c 64M /dev/urandom >"$mnt/big"
sync
full=$(kib_on_disk)
rm "$mnt/big"
sync
if [[ $CAN_PUNCH == 1 ]]; then
    fstrim "$mnt"
    sync
else
    # What can't be done isn't offered, so the kernel doesn't even ask.
    [[ $(</sys/block/nbd0/queue/discard_max_bytes) == 0 ]] || fail "the device offers to discard"
    if fstrim "$mnt" 2>/run/fstrim.log; then fail "fstrim worked where nothing can be punched"; fi
    grep -q 'not supported' /run/fstrim.log || fail "fstrim said: $(cat /run/fstrim.log)"
fi
trimmed=$(kib_on_disk)
echo "weir-sizes: full=$full trimmed=$trimmed"
if [[ $CAN_PUNCH == 1 ]]; then
    ((trimmed + 60 * 1024 < full)) || fail "fstrim freed too little: $full KiB before, $trimmed KiB after"
fi

step "stop"
umount_fs
detach
stop

step "second start"
serve "$IMAGE" --size 1G --cache-size 64M --no-admin
attach
check_fs "$FS"
mount_fs
(cd "$mnt/files" && sha256sum --quiet -c "$disk/sums")
umount_fs
detach
stop
step "done"
