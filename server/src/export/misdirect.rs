//! Whether a rule's `misdirect=OFFSET` points anywhere.

use weir_faults::Rule;

/// Refuses a rule that would store beyond the end of every export that it is about. That would be a loss, not a
/// misdirection. A size that isn't known may be large enough.
///
/// # Errors
/// One line that says which offset is possible.
pub fn misdirected(rule: &Rule, exports: &[(&str, Option<u64>)]) -> Result<(), String> {
    let Some(offset) = rule.misdirect() else {
        return Ok(());
    };
    let concerned = exports.iter().filter(|(name, _)| rule.covers_export(name));
    let Some(sizes) = concerned
        .map(|(_, size)| *size)
        .collect::<Option<Vec<u64>>>()
    else {
        return Ok(());
    };
    match sizes.into_iter().max() {
        Some(largest) if offset >= largest => Err(format!(
            "misdirect={offset} is beyond the end of every export that the rule is about (the largest has {largest} bytes); \
             give a smaller OFFSET, or the action `lose`"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(rule: &str, exports: &[(&str, Option<u64>)]) -> Result<(), String> {
        misdirected(&Rule::parse(rule).unwrap(), exports)
    }

    #[test]
    fn an_offset_must_be_inside_one_of_the_exports() {
        let exports = [("", Some(1 << 20)), ("db", Some(4 << 20))];
        assert_eq!(told("write misdirect=2M", &exports), Ok(()));
        let text = told("write misdirect=4M", &exports).unwrap_err();
        assert!(text.contains("4194304 bytes"), "{text}");
        assert!(told("write export= misdirect=1M", &exports[..1]).is_err());
        assert!(told("write at=backend export=d* misdirect=5M", &exports).is_err());
        assert_eq!(told("write error=EIO", &exports), Ok(()));
    }

    #[test]
    fn a_size_that_is_not_known_may_be_large_enough() {
        let exports = [("", Some(1 << 20)), ("disk", None)];
        assert_eq!(told("write misdirect=2M", &exports), Ok(()));
        assert_eq!(told("write misdirect=2M", &[]), Ok(()));
    }
}
