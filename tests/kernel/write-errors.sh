# Writes that fail: ext4 hears of them, and is fine once they are over.

export WEIR_ADMIN=unix:/run/admin.sock

step "start"
serve "$disk/image" --size 512M --cache-size 64M --admin "$WEIR_ADMIN"
attach
make_fs ext4
mount_fs -o errors=remount-ro
echo before >"$mnt/before"
sync

step "errors"
rule=$("$WEIR" fault add write error=EIO)
[[ -n $rule ]] || fail "weir fault add printed no id"
if dd if=/dev/urandom of="$mnt/during" bs=64k count=16 conv=fsync 2>/run/dd.log; then
    fail "an fsync succeeded although every write fails"
fi
grep -q 'Input/output error\|Read-only file system' /run/dd.log || fail "dd said: $(cat /run/dd.log)"

step "no more errors"
"$WEIR" fault rm "$rule"
[[ -z $("$WEIR" fault list --json | tr -d '[] \n') ]] || fail "a rule is left: $("$WEIR" fault list)"
umount_fs
# The journal was aborted: a check repairs it (1: errors corrected).
e2fsck -fy /dev/nbd0 >/run/fsck.log 2>&1 || (($? == 1)) || fail "fsck: $(cat /run/fsck.log)"
mount_fs
[[ $(cat "$mnt/before") == before ]] || fail "what was synced before is gone"
dd if=/dev/urandom of="$mnt/after" bs=64k count=16 conv=fsync 2>/dev/null
umount_fs
check_fs ext4
detach
stop
step "done"
