# What the README tells root to type, in its order, each block from a file of its own in $HOST_FOLDER.

# init.sh has loaded the module; it isn't where modprobe looks.
modprobe() { [[ $* == nbd ]]; }
weir() { "$WEIR" "$@"; }
# Says yes where a person would be asked; 1: errors corrected.
fsck() { command fsck "$@" -y >/run/fsck.log 2>&1 || (($? == 1)) || fail "fsck: $(cat /run/fsck.log)"; }

type_block() {
    step "$1"
    source "$HOST_FOLDER/$1.sh"
}

# Weir makes its image where it is started, and hostfs can't hold it.
cd "$disk"
step "serve"
serve --power-cut

type_block attach
echo before >/mnt/before
sync

step "a fault"
weir fault add write error=EIO
if (type_block write) 2>/run/dd.log; then fail "dd succeeded although every write fails"; fi
grep -q 'Input/output error\|Read-only file system' /run/dd.log || fail "dd said: $(cat /run/dd.log)"
weir fault clear
type_block after-a-fault
[[ $(cat /mnt/before) == before ]] || fail "what was synced before the fault is gone"

step "a power cut"
weir device power-cut ""
type_block after-a-power-cut
[[ $(cat /mnt/before) == before ]] || fail "what was synced before the power cut is gone"
echo after >/mnt/after

type_block stop-it
stop
step "done"
