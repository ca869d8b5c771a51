//! File descriptors: what clients may use of them, so that files and the admin port keep theirs.
//!
//! A connection costs one. If clients could use up all that the process may have, the admin port couldn't be reached to
//! find out which they are, and no file could be opened any more. So clients get what all other uses leave. The
//! server's own files and sockets are counted once they all are open, before the first client is let in.

use nix::sys::resource::{Resource, getrlimit};

use crate::admin::slots::DESCRIPTORS_MAX;

/// For descriptors that are open for a moment: a connection beyond the limit on each of many sockets, a command's
/// pipes, files of `/proc` and `/sys`.
const PASSING: usize = 32;

/// What is assumed to be open where `/proc` isn't mounted.
const OPEN_UNKNOWN: usize = 64;

/// How many connections can be served, with a remark when `asked` is more than that.
#[must_use]
pub fn connections_max(asked: usize, has_admin_port: bool) -> (usize, Option<String>) {
    let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return (asked, None);
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let open = std::fs::read_dir("/proc/self/fd").map_or(OPEN_UNKNOWN, Iterator::count);
    let allowed = share(limit, open, has_admin_port);
    if asked <= allowed {
        return (asked, None);
    }
    let remark = format!(
        "{asked} connections at a time (--max-connections) are more than this process may have descriptors for: {allowed} are served; raise its hard limit, which is {limit} (LimitNOFILE= of a service, `ulimit -Hn` of a shell), or ask for fewer"
    );
    (allowed, Some(remark))
}

/// Clients' share of `limit` descriptors of which `open` are in use. Where there is too little for all, clients get
/// half of what is left.
fn share(limit: usize, open: usize, has_admin_port: bool) -> usize {
    let admin = if has_admin_port { DESCRIPTORS_MAX } else { 0 };
    let rest = limit.saturating_sub(open);
    rest.saturating_sub(admin + PASSING).max(rest / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_is_left() {
        let others = DESCRIPTORS_MAX + PASSING;
        assert_eq!(share(1024, 24, true), 1000 - others);
        assert_eq!(share(1024, 24, false), 1000 - PASSING);
        assert_eq!(share(124, 24, true), 50);
        assert_eq!(share(10, 24, true), 1);
        assert_eq!(share(usize::MAX, 24, true), usize::MAX - 24 - others);
    }

    #[test]
    fn more_than_there_are_is_said() {
        assert_eq!(connections_max(1, true), (1, None));
        let (allowed, remark) = connections_max(usize::MAX, true);
        assert!(allowed < usize::MAX);
        let remark = remark.expect("a remark");
        for part in ["--max-connections", &allowed.to_string(), "LimitNOFILE"] {
            assert!(remark.contains(part), "{part}: {remark}");
        }
    }
}
