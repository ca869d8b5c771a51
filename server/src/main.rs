//! The `weir` program: parses its words, does one thing, and says in one line what went wrong.

use std::process::ExitCode;

use clap::Parser;
use weir::cli::{Cli, Command, ConfigCommand, print_completions, print_manual};
use weir::error::Error;
use weir::serve;

fn main() -> ExitCode {
    // Ends the process with 2 when the words can't be parsed.
    let cli = Cli::parse();
    run(cli.command).unwrap_or_else(|error| {
        eprintln!("weir: {error}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Serve(options) => serve::run(*options),
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
