//! The cost of unused exports.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use crate::connection::{Connection, Options};
use crate::contender::{Contender, Kind};
use crate::load::{Extent, LOADS, Load, run};
use crate::process::{self, Server};
use crate::stream::Address;
use crate::wire::failure;

use super::{REPEATS, Tables, median};

const EXPORTS: [usize; 4] = [1, 4, 16, 256];
const EXPORT_SIZE: u64 = 16 << 20;
const CACHE_SIZE: &str = "32M";

/// Reads from the first of many exports.
pub(super) fn beside(tables: &mut Tables<'_>, contender: &mut Contender) -> io::Result<()> {
    if !matches!(contender.kind, Kind::Weir | Kind::Baseline) {
        return Err(failure("serves one export only"));
    }
    for count in EXPORTS {
        let server = start(tables, contender, count)?;
        let (rate, used) = read(tables, &server)?;
        tables.add(
            contender,
            format!("{count} exports"),
            rate / 1e3,
            "k requests/s",
        );
        tables.add(contender, format!("{count} exports"), used, "us of cpu");
    }
    Ok(())
}

fn start(tables: &Tables<'_>, contender: &Contender, count: usize) -> io::Result<Server> {
    let socket = format!("{}-exports-{count}.sock", contender.name);
    let address = Address::Unix(tables.folder.join(socket));
    let mut command = process::command(contender.program());
    command.args(["serve", "--no-admin", "--cache-size", CACHE_SIZE]);
    command.args(["--listen", &address.to_string()]);
    for number in 0..count {
        command
            .arg("--export")
            .arg(format!("e{number}=memory:{EXPORT_SIZE}"));
    }
    command.stderr(Stdio::null());
    Server::start(&mut command, address)
}

/// Requests per second, and processor time per request in microseconds.
fn read(tables: &Tables<'_>, server: &Server) -> io::Result<(f64, f64)> {
    let load: &'static Load = LOADS
        .iter()
        .find(|load| load.name == "read")
        .expect("a load of that name");
    let options = Options {
        export: "e0".into(),
        ..tables.options.clone()
    };
    let mut connection = Connection::open(server.address(), &options, 4)?;
    connection.prefill(EXPORT_SIZE)?;
    connection.close();
    let (mut rates, mut times) = (Vec::new(), Vec::new());
    for repeat in 0..REPEATS {
        let extent = Extent {
            start: 0,
            span: EXPORT_SIZE,
            duration: Duration::from_millis(200),
            seed: repeat as u64,
        };
        let (outcome, before, after) =
            run(server.address(), &options, load, &extent, || server.usage())?;
        rates.push(outcome.requests_per_second());
        let used = after
            .since(before)
            .ok_or_else(|| failure("the kernel doesn't say what it used"))?;
        times.push(used.as_secs_f64() * 1e6 / outcome.requests as f64);
    }
    Ok((median(rates), median(times)))
}
