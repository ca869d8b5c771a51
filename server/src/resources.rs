//! How much memory there is, and how much of it a cache takes by default.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{SysconfVar, sysconf};

use crate::limits::{CACHE_BYTES_DEFAULT_MAX, CACHE_BYTES_DEFAULT_MIN, CACHE_SHARE_OF_MEMORY};

/// The memory that this process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineMemory {
    /// Bytes.
    pub bytes: u64,
}

impl MachineMemory {
    /// The machine's memory, or the limit of this process' control group or one above it if that is less.
    #[must_use]
    pub fn detect() -> Self {
        let machine = physical_bytes().unwrap_or(CACHE_BYTES_DEFAULT_MIN * CACHE_SHARE_OF_MEMORY);
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let limit = control_group_limit(Path::new("/sys/fs/cgroup"), &membership);
        Self {
            bytes: limit.map_or(machine, |limit| limit.min(machine)),
        }
    }

    /// The cache of each of `exports` exports that share the default.
    #[must_use]
    pub fn cache_share(self, exports: usize) -> u64 {
        let all = (self.bytes / CACHE_SHARE_OF_MEMORY).min(CACHE_BYTES_DEFAULT_MAX);
        (all / exports.max(1) as u64).max(CACHE_BYTES_DEFAULT_MIN)
    }
}

fn physical_bytes() -> Option<u64> {
    let number = |variable| {
        sysconf(variable)
            .ok()
            .flatten()
            .and_then(|value| u64::try_from(value).ok())
    };
    number(SysconfVar::_PHYS_PAGES)?.checked_mul(number(SysconfVar::PAGE_SIZE)?)
}

/// The least limit on the way from the groups named in `membership` (the form of `/proc/self/cgroup`) up to the root.
fn control_group_limit(root: &Path, membership: &str) -> Option<u64> {
    let limits = membership.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
        let (mount, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            v1 if v1.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        least_limit(&mount, group, file)
    });
    limits.min()
}

fn least_limit(mount: &Path, group: &str, file: &str) -> Option<u64> {
    let folder: PathBuf = mount.join(group.trim_start_matches('/'));
    let groups = folder
        .ancestors()
        .take_while(|folder| folder.starts_with(mount));
    // "max" isn't a number, and means no limit.
    groups
        .filter_map(|folder| {
            fs::read_to_string(folder.join(file))
                .ok()?
                .trim()
                .parse()
                .ok()
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_share_has_a_floor_and_a_cap() {
        let share = |bytes, exports| MachineMemory { bytes }.cache_share(exports);
        assert_eq!(share(8 * GIB, 1), GIB);
        assert_eq!(share(8 * GIB, 4), GIB / 4);
        assert_eq!(share(1024 * GIB, 1), CACHE_BYTES_DEFAULT_MAX);
        assert_eq!(share(GIB / 64, 1), CACHE_BYTES_DEFAULT_MIN);
    }

    #[test]
    fn this_machine_has_memory() {
        let memory = MachineMemory::detect();
        assert!(memory.bytes >= 1 << 20, "{memory:?}");
        assert!(memory.bytes <= physical_bytes().expect("Linux tells"));
    }

    #[test]
    fn the_least_limit_on_the_way_up_counts() {
        let root = tempfile::tempdir().expect("a folder");
        let group = root.path().join("a/b/c");
        fs::create_dir_all(&group).expect("folders");
        fs::write(group.join("memory.max"), "max\n").expect("a file");
        assert_eq!(control_group_limit(root.path(), "0::/a/b/c\n"), None);
        fs::write(root.path().join("a/memory.max"), "1073741824\n").expect("a file");
        fs::write(root.path().join("a/b/memory.max"), "2147483648\n").expect("a file");
        assert_eq!(control_group_limit(root.path(), "0::/a/b/c\n"), Some(GIB));
        assert_eq!(control_group_limit(root.path(), "0::/\n"), None);
    }

    #[test]
    fn version_1_groups_too() {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(root.path().join("memory/x")).expect("folders");
        fs::write(root.path().join("memory/x/memory.limit_in_bytes"), "4096\n").expect("a file");
        let membership = "5:cpu,cpuacct:/y\n4:memory:/x\n0::/\n";
        assert_eq!(control_group_limit(root.path(), membership), Some(4096));
    }
}
