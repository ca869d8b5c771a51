//! What a user should know about settings that are allowed but may be mistakes.

use weir_cache::QuotaStats;

use crate::resources::MachineMemory;
use crate::settings::ExportSettings;
use crate::size::Size;

/// A smaller size is probably a figure that lacks its unit: no file system is as small.
const DISK_BYTES_MIN: u64 = 1 << 20;

/// Remarks about an export of that size, with that quota.
pub(super) fn of(size: u64, space: Option<QuotaStats>) -> Vec<String> {
    let mut remarks = Vec::new();
    if size < DISK_BYTES_MIN {
        remarks.push(format!(
            "the device has {size} bytes only, less than a file system needs; a size may have a unit, as in 10M or 10G"
        ));
    }
    if let Some(QuotaStats { quota, charged }) = space
        && charged >= quota
        && size > quota
    {
        remarks.push(format!(
            "{} are allocated already, and the quota is {}; what needs more gets ENOSPC until a trim has freed some, \
             or give a larger --quota",
            Size(charged),
            Size(quota)
        ));
    }
    remarks
}

/// A remark about all caches together.
pub(super) fn of_memory(exports: &[ExportSettings], memory: MachineMemory) -> Option<String> {
    let caches = exports
        .iter()
        .fold(0_u64, |sum, export| sum.saturating_add(export.cache_bytes));
    (caches > memory.bytes).then(|| {
        format!(
            "the caches may take {} ({caches} bytes), more than the {} MiB of memory that there are; \
             give a smaller --cache-size, which counts for each export",
            Size(caches),
            memory.bytes >> 20
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::export_options::ExportOptions;
    use crate::cli::serve::ServeOptions;
    use crate::settings::Settings;

    fn exports(cache: &str) -> Vec<ExportSettings> {
        let options = ServeOptions {
            export: vec!["a=x".parse().unwrap(), "b=y".parse().unwrap()],
            exports: ExportOptions {
                cache_size: Some(cache.parse().unwrap()),
                ..ExportOptions::default()
            },
            ..ServeOptions::default()
        };
        Settings::resolve(options).unwrap().exports
    }

    #[test]
    fn a_size_that_lacks_its_unit_is_pointed_out() {
        assert!(of(10, None)[0].contains("10 bytes only"));
        assert!(of(DISK_BYTES_MIN, None).is_empty());
    }

    #[test]
    fn a_quota_that_is_used_up_from_the_start_is_pointed_out() {
        let of = |quota, charged| of(8 << 20, Some(QuotaStats { quota, charged }));
        assert!(of(4096, 0).is_empty());
        let said = of(1 << 20, 4 << 20);
        assert!(
            said[0].contains("4M are allocated already, and the quota is 1M"),
            "{said:?}"
        );
        assert!(of(0, 0)[0].contains("the quota is 0"));
        assert!(of(8 << 20, 8 << 20).is_empty());
    }

    #[test]
    fn caches_beyond_the_memory_are_pointed_out_together() {
        let memory = MachineMemory { bytes: 3 << 30 };
        assert_eq!(of_memory(&exports("1G"), memory), None);
        let said = of_memory(&exports("2G"), memory).unwrap();
        assert!(said.contains("4G") && said.contains("3072 MiB"), "{said}");
    }
}
