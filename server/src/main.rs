//! The `weir` program: parses its arguments, does one thing, and says in one line what went wrong.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::process::ExitCode;

use clap::Parser;
use weir::cli::{Cli, Command, ConfigCommand, print_completions, print_manual};
use weir::error::{Error, without_numbers};
use weir::{logging, serve};

fn main() -> ExitCode {
    abort_on_panic();
    // Ends the process with 2 when the arguments can't be parsed.
    let cli = Cli::parse();
    let status = run(cli.command).unwrap_or_else(|error| {
        logging::last_words(&format!("weir: {}", without_numbers(&error.to_string())));
        ExitCode::FAILURE
    });
    logging::finish();
    status
}

/// A panic ends the process, in every profile: if a task swallowed it, pages could stay in the filling state for ever.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if logging::is_started() {
            // Writes what the usual report says, but without waiting for ever for a reader of standard error.
            let backtrace = Backtrace::capture();
            let mut text = format!("weir: {info}");
            if backtrace.status() == BacktraceStatus::Captured {
                text += &format!("\n{backtrace}");
            }
            logging::last_words(&text);
        } else {
            report(info);
        }
        std::process::abort();
    }));
}

fn run(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Serve(options) => serve::run(*options),
        Command::Status(command) => command.run(),
        Command::Export(command) => command.run(),
        Command::Connection(command) => command.run(),
        Command::Fault(command) => command.run(),
        Command::Point(command) => command.run(),
        Command::Device(command) => command.run(),
        Command::Inject(command) => command.run(),
        Command::Config(ConfigCommand::Check { file }) => serve::check_config(&file),
        Command::Completions { shell } => print_completions(shell),
        Command::Man => print_manual(),
    }
}
