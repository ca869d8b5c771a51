//! What the server says on standard output once it listens: scripts read the beginnings of the first lines.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use super::Server;
use crate::listener::Listener;

/// The Unix socket in the hint of a server that listens on TCP only.
const UNIX_EXAMPLE: &str = "/tmp/weir.sock";

/// The server's addresses and how to use them.
#[derive(Debug)]
pub(super) struct Announcement {
    uris: Vec<String>,
    admin: Option<String>,
    attach: Vec<String>,
}

impl Announcement {
    /// Describes `listeners`.
    ///
    /// # Errors
    /// The system doesn't know a socket's address.
    pub(super) fn new(
        listeners: &[Listener],
        server: &Server,
        admin: Option<String>,
    ) -> io::Result<Self> {
        let name = match server.exports.get("") {
            Some(_) => String::new(),
            None => server
                .exports
                .iter()
                .next()
                .map(|export| export.name.clone())
                .unwrap_or_default(),
        };
        let name = if name.is_empty() {
            name
        } else {
            format!(" -N {}", quoted(&name))
        };
        let mut attach = Vec::new();
        for listener in listeners {
            attach.push(listener.attach_command()? + &name);
        }
        if !listeners
            .iter()
            .any(|listener| matches!(listener, Listener::Unix(..)))
        {
            attach.push(format!(
                "nbd-client -unix {UNIX_EXAMPLE} /dev/nbd0 -b 4096 -C 2{name}   (with --listen unix:{UNIX_EXAMPLE}: faster)"
            ));
        }
        Ok(Self {
            uris: listeners
                .iter()
                .map(Listener::uri)
                .collect::<io::Result<_>>()?,
            admin,
            attach,
        })
    }

    /// The first address.
    pub(super) fn uri(&self) -> &str {
        &self.uris[0]
    }

    /// The admin port's URL.
    pub(super) fn admin(&self) -> Option<&str> {
        self.admin.as_deref()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for uri in &self.uris {
            text += uri;
            text.push('\n');
        }
        if let Some(admin) = &self.admin {
            writeln!(text, "admin {admin}").expect("a String takes everything");
        }
        text += "\nTo attach it as a disk, as root:\n  modprobe nbd\n";
        for (index, command) in self.attach.iter().enumerate() {
            let or = if index > 0 { "or " } else { "" };
            writeln!(text, "  {or}{command}").expect("a String takes everything");
        }
        text += "To detach it:\n  nbd-client -d /dev/nbd0\n";
        text
    }

    /// Prints it in one write. A server whose standard output is closed can still serve.
    pub(super) fn print(&self) {
        let mut out = io::stdout().lock();
        if let Err(error) = out
            .write_all(self.text().as_bytes())
            .and_then(|()| out.flush())
        {
            tracing::debug!("standard output: {error}");
        }
    }
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte);
    if word.bytes().all(plain) {
        word.to_owned()
    } else if word.chars().any(char::is_control) {
        // In the notation of bash and others, so no control character reaches the terminal.
        let bytes = word.bytes();
        let escaped = bytes.map(|byte| match byte {
            b'\'' | b'\\' | 0..0x20 | 0x7f.. => format!("\\x{byte:02x}"),
            byte => char::from(byte).to_string(),
        });
        format!("$'{}'", escaped.collect::<String>())
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell() {
        for (word, expected) in [
            ("disk-1.img", "disk-1.img"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("\u{1b}[2Jit's\n", r"$'\x1b[2Jit\x27s\x0a'"),
            ("\u{9b}1m", r"$'\xc2\x9b1m'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
