# Power cuts under load: after each, the journal is replayed and every file whose fsync had returned is whole.
# $SEEDS: which cuts. $LOAD: the program that writes and verifies.

export WEIR_ADMIN=unix:/run/admin.sock
systems=(ext4 xfs btrfs)

for seed in $SEEDS; do
    fs=${systems[seed % 3]}
    files=$((20 + seed * 7 % 40))
    step "seed $seed: $fs, cut after $files files"
    rm -f "$disk/image" "$disk/log"
    serve "$disk/image" --size 512M --cache-size 64M --power-cut --admin "$WEIR_ADMIN"
    attach
    make_fs "$fs"
    mount_fs

    exec {load_out}< <(exec "$LOAD" write "$mnt" "$disk/log" "$seed" 2>/run/load.log)
    load=$!
    for ((n = 0; n < files; n++)); do
        read -r -t 60 -u "$load_out" _ || fail "the load ended early: $(cat /run/load.log)"
    done
    step "cut"
    "$WEIR" device power-cut "" keep=random tear=512 seed="$seed"

    # The kernel has lost its device; what it still holds in memory goes with the mount. The load's disk fails under it:
    # at once, as the kernel is told that nobody will connect again, instead of after its timeout.
    detach || true
    if wait "$load"; then fail "the load survived a power cut"; fi
    exec {load_out}<&-
    step "the load has ended"
    # The store under it is well: what survives the cut is in it when the cut is over.
    if grep -m 1 "isn't in the store yet" /run/server.log; then fail "a cut could not bring what survived to the store"; fi
    umount_fs

    step "power"
    attach
    # Mounting replays the journal.
    mount_fs
    step "verification"
    "$LOAD" verify "$mnt" "$disk/log" || fail "seed $seed on $fs lost what was fsynced"
    umount_fs
    check_fs "$fs"
    detach
    stop
done
step "done"
