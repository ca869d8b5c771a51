//! The `weir` program: parses its words, does one thing, and says in one line what went wrong.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use weir::cli::{Cli, Command, ConfigCommand, print_completions, print_manual};
use weir::error::Error;
use weir::serve;

fn main() -> ExitCode {
    abort_on_panic();
    // Ends the process with 2 when the words can't be parsed.
    let cli = Cli::parse();
    run(cli.command).unwrap_or_else(|error| {
        // Nobody has to listen: the status says it too.
        let _ = writeln!(std::io::stderr(), "weir: {error}");
        ExitCode::FAILURE
    })
}

/// A panic ends the process, in every profile: one that a task swallowed would leave pages filling for ever.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
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
        Command::Completions { shell } => {
            print_completions(shell);
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => print_manual()
            .map(|()| ExitCode::SUCCESS)
            .map_err(Error::Output),
    }
}
