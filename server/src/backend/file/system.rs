//! Error numbers of system calls, as this program names them.
//!
//! The bindings know the errors that have a name in C. The kernel also returns others: `ENOTSUPP` (524) and similar
//! errors leak out of drivers and network file systems. The bindings have one value for all of those. Its number is 0,
//! which would mean success wherever it is kept or sent. So an error of the bindings never travels further than the
//! call that it came from.

use nix::errno::Errno as SystemErrno;
use weir_faults::Errno;

/// The outcome of a system call. Must be called at once: a number without a name is still where the call has left it.
pub(super) fn called<T>(outcome: nix::Result<T>) -> Result<T, Errno> {
    outcome.map_err(|error| match error {
        SystemErrno::UnknownErrno => Errno::of_system(SystemErrno::last_raw()),
        named => Errno::of_system(named as i32),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_survives() {
        for number in 1..=Errno::MAX {
            SystemErrno::set_raw(number);
            let failed = SystemErrno::result(-1);
            assert_eq!(called(failed), Err(Errno(number)));
        }
    }

    #[test]
    fn an_error_without_a_number_is_an_error() {
        SystemErrno::set_raw(0);
        assert_eq!(called(SystemErrno::result(-1)), Err(Errno::EIO));
    }
}
