#!/bin/sh
# Stands in for cargo: builds nothing, and of the tests says what $SOAK_TEST tells it to.
case "$*" in *--no-run*) exit 0 ;; esac
case $SOAK_TEST in
pass) echo "test result: ok. 2 passed; 0 failed" ;;
nothing) echo "test result: ok. 0 passed; 0 failed" ;;
fail) echo "from seed $WEIR_CRASH_SEED on"; echo "it breaks" >&2; exit 101 ;;
wait) echo "$$" >"$SOAK_PIPE"; read -r _ <"$SOAK_PIPE"; echo "test result: ok. 2 passed; 0 failed" ;;
esac
