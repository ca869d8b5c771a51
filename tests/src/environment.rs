//! The environment says how much a test does, and from which seed on.

/// The number in the variable `name`, if it is set.
///
/// # Panics
/// When it isn't a number: a typing error must not choose another run.
#[must_use]
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
