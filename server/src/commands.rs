//! The commands of NBD in one table: what they are called here, and which faults they meet.
//!
//! A command's row is its number on the wire, so that finding it costs an index. What is kept per command (counters,
//! fault contexts) is an array with a cell per row. A new command gets a row here; what it does is in `session::slow`.

use weir_faults::RequestKind;
use weir_protocol::Command;

/// One command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandRow {
    /// Its name in the API and the metrics: that of its kind, if it has one.
    pub name: &'static str,
    /// The name by which fault rules and points know it. DISC has no reply that could fail, and unknown commands always
    /// fail.
    pub kind: Option<RequestKind>,
}

impl CommandRow {
    const fn of(kind: RequestKind) -> Self {
        Self {
            name: kind.name(),
            kind: Some(kind),
        }
    }

    const fn without_faults(name: &'static str) -> Self {
        Self { name, kind: None }
    }
}

/// How many rows the table has: one per command from 0 on, and one for all unknown commands.
pub const COMMAND_ROWS: usize = 9;

/// The table.
pub static COMMANDS: [CommandRow; COMMAND_ROWS] = {
    let mut rows = [CommandRow::without_faults("unknown"); COMMAND_ROWS];
    rows[row_of(Command::READ)] = CommandRow::of(RequestKind::Read);
    rows[row_of(Command::WRITE)] = CommandRow::of(RequestKind::Write);
    rows[row_of(Command::DISC)] = CommandRow::without_faults("disconnect");
    rows[row_of(Command::FLUSH)] = CommandRow::of(RequestKind::Flush);
    rows[row_of(Command::TRIM)] = CommandRow::of(RequestKind::Trim);
    rows[row_of(Command::CACHE)] = CommandRow::of(RequestKind::Cache);
    rows[row_of(Command::WRITE_ZEROES)] = CommandRow::of(RequestKind::Zero);
    rows[row_of(Command::BLOCK_STATUS)] = CommandRow::of(RequestKind::Status);
    rows
};

/// The row of a command, below [`COMMAND_ROWS`]. All unknown commands share the last one.
#[inline]
pub const fn row_of(command: Command) -> usize {
    let number = command.0 as usize;
    if number < COMMAND_ROWS {
        number
    } else {
        COMMAND_ROWS - 1
    }
}

/// The name by which fault rules and points know a command.
#[inline]
pub fn kind_of(command: Command) -> Option<RequestKind> {
    COMMANDS[row_of(command)].kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_request_of_a_client_has_a_row_of_its_name() {
        let client = [
            (Command::READ, RequestKind::Read, "read"),
            (Command::WRITE, RequestKind::Write, "write"),
            (Command::FLUSH, RequestKind::Flush, "flush"),
            (Command::TRIM, RequestKind::Trim, "trim"),
            (Command::CACHE, RequestKind::Cache, "cache"),
            (Command::WRITE_ZEROES, RequestKind::Zero, "zero"),
            (Command::BLOCK_STATUS, RequestKind::Status, "status"),
        ];
        for (command, kind, name) in client {
            assert_eq!(kind_of(command), Some(kind));
            assert_eq!(COMMANDS[row_of(command)].name, name);
        }
        let with_kind = COMMANDS.iter().filter(|row| row.kind.is_some());
        assert_eq!(with_kind.count(), client.len(), "a row that isn't tested");
    }

    #[test]
    fn what_is_unknown_shares_the_last_row() {
        for command in [Command::RESIZE, Command(9), Command(u16::MAX)] {
            assert_eq!(row_of(command), COMMAND_ROWS - 1);
            assert_eq!(kind_of(command), None);
        }
        assert_eq!(COMMANDS[COMMAND_ROWS - 1].name, "unknown");
    }
}
