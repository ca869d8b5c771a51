//! A load for crash tests, and the check of what must have survived it.
//!
//! `fsync-load write FOLDER LOG SEED` makes files until one fails. It puts each name into LOG, synced, only after the
//! fsync of the file and that of its folder have returned. `fsync-load verify FOLDER LOG` reads each file that LOG
//! names. A file's content follows from its name, so only the name has to survive on the other disk.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use weir_tests::pattern::{Pattern, bytes};

/// The largest file: several blocks, and more than fits into an inode or a leaf.
const FILE_BYTES_MAX: u64 = 200_000;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["write", folder, log, seed] => write(Path::new(folder), Path::new(log), seed),
        ["verify", folder, log] => verify(Path::new(folder), Path::new(log)),
        _ => Err(io::Error::other(
            "usage: fsync-load write FOLDER LOG SEED | verify FOLDER LOG",
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fsync-load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The content of a file, from its name `SEED-NUMBER`.
fn content(name: &str) -> io::Result<Vec<u8>> {
    let parse = |text: &str| text.parse::<u64>().map_err(io::Error::other);
    let (seed, number) = name
        .split_once('-')
        .ok_or_else(|| io::Error::other(format!("not a name: {name}")))?;
    let mut random = Pattern::new(parse(seed)? << 32 | parse(number)?);
    let len = usize::try_from(random.below(FILE_BYTES_MAX)).map_err(io::Error::other)?;
    Ok(bytes(random.next_u64(), len))
}

fn write(folder: &Path, log: &Path, seed: &str) -> io::Result<()> {
    let mut log = File::options().create(true).append(true).open(log)?;
    for number in 0_u64.. {
        let name = format!("{seed}-{number}");
        let mut file = File::create(folder.join(&name))?;
        file.write_all(&content(&name)?)?;
        file.sync_all()?;
        File::open(folder)?.sync_all()?;
        writeln!(log, "{name}")?;
        log.sync_data()?;
        // A script waits for these lines.
        println!("{name}");
    }
    Ok(())
}

fn verify(folder: &Path, log: &Path) -> io::Result<()> {
    let names = fs::read_to_string(log)?;
    for name in names.lines() {
        let found =
            fs::read(folder.join(name)).map_err(|e| io::Error::other(format!("{name}: {e}")))?;
        let want = content(name)?;
        if found != want {
            let at = found
                .iter()
                .zip(&want)
                .position(|(a, b)| a != b)
                .unwrap_or(found.len().min(want.len()));
            let (is, was) = (found.len(), want.len());
            return Err(io::Error::other(format!(
                "{name}: {is} bytes of {was}, the first that is wrong at {at}"
            )));
        }
    }
    println!("{} files whole", names.lines().count());
    Ok(())
}
