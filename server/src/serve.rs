//! `weir serve`: from settings to a running server and to its end.
//!
//! The order matters:
//!
//! 1. Errors that can be found without changing anything are looked for first.
//! 2. Addresses are bound before files are opened (and created), so a busy port leaves nothing behind.
//! 3. Signals are taken over before anything is printed, so that a script that waits for the printed line may send one.
//! 4. Clients are let in last.

use std::future::pending;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use tokio_util::task::TaskTracker;

use crate::admin::AdminListener;
use crate::cli::client::print;
use crate::cli::counted;
use crate::cli::serve::ServeOptions;
use crate::error::Error;
use crate::listener::{Listener, inherited};
use crate::process::parent::{Parent, WatchedParent};
use crate::server::Server;
use crate::settings::Settings;
use crate::shutdown::finish;
use crate::signals::Signals;
use crate::{config, logging, process};

mod announce;
mod attend;
mod check;
mod command;
mod watchdog;

use announce::Announcement;
use attend::Attendant;
use command::RunningCommand;

/// Serves until told to stop.
///
/// # Errors
/// Whatever prevents the start or a clean stop.
pub fn run(options: ServeOptions) -> Result<ExitCode, Error> {
    logging::start(options.verbose, options.quiet).map_err(Error::System)?;
    let config = options.config.clone();
    let settings = Settings::resolve(with_file(options)?)?;
    let parent = match settings.exit_with_parent {
        true => Some(Parent::find()?),
        false => None,
    };
    process::prepare();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Error::System)?;
    let outcome = runtime.block_on(serve(&settings, config.as_deref(), parent));
    // I/O that hangs must not keep the process alive after its last line.
    runtime.shutdown_background();
    outcome
}

/// Options, completed from the file that they name.
fn with_file(options: ServeOptions) -> Result<ServeOptions, Error> {
    match &options.config {
        Some(path) => {
            let file = config::read(path)?;
            Ok(options.or(file))
        }
        None => Ok(options),
    }
}

async fn serve(
    settings: &Settings,
    config: Option<&Path>,
    parent: Option<Parent>,
) -> Result<ExitCode, Error> {
    let signals = Signals::install(config.is_some()).map_err(Error::System)?;
    let parent = parent
        .map(Parent::watch)
        .transpose()
        .map_err(Error::System)?;
    let located = |error| match config {
        Some(path) => config::located(path, error),
        None => error,
    };
    let faults = check::check(settings).map_err(located)?;
    let inherited = inherited()?;
    let listeners = bind(settings, inherited.listeners).await?;
    let admin = AdminListener::bind(settings, inherited.admin).await?;
    let server = Server::open(settings, faults).await.map_err(located)?;
    if let Some(remark) = admin.as_ref().and_then(AdminListener::remark) {
        tracing::warn!("{remark}");
    }
    let mut attendant = Attendant::new(signals, config, &server);
    let admin_url = admin.as_ref().map(|admin| admin.url().to_owned());
    let announcement = Announcement::new(&listeners, &server, admin_url).map_err(Error::System)?;
    let sessions = TaskTracker::new();
    let acceptors = server.accept(settings, listeners, &sessions);
    if let Some(admin) = admin {
        acceptors.spawn(admin.serve(&server, server.stop.clone()));
    }
    // With --run, standard output is the command's.
    if settings.run.is_none() {
        announcement.print();
    }
    watchdog::start(&server.connections);
    notify_service_manager(&[sd_notify::NotifyState::Ready]);

    let outcome = work(settings, &announcement, &mut attendant, parent).await;
    notify_service_manager(&[sd_notify::NotifyState::Stopping]);
    server.stop.cancel();
    acceptors.close();
    acceptors.wait().await;
    finish(
        &sessions,
        &server.connections,
        &server.exports,
        attendant.insistence(),
    )
    .await?;
    outcome
}

/// Listens on every address: those of the options and of the service manager, or the default.
async fn bind(settings: &Settings, mut listeners: Vec<Listener>) -> Result<Vec<Listener>, Error> {
    for address in &settings.listen {
        listeners.push(match settings.socket_mode {
            Some(mode) => Listener::bind_with_mode(address, "listen", mode).await?,
            None => Listener::bind(address, "listen").await?,
        });
    }
    if listeners.is_empty() {
        listeners.push(Listener::bind(&Settings::listen_default(), "listen").await?);
    }
    Ok(listeners)
}

/// Serves until a signal comes, the parent has ended, or the command of `--run` has ended. The command's status is then
/// the outcome.
async fn work(
    settings: &Settings,
    announcement: &Announcement,
    attendant: &mut Attendant,
    parent: Option<WatchedParent>,
) -> Result<ExitCode, Error> {
    let mut command = match &settings.run {
        Some(command) => Some(RunningCommand::start(command, announcement).map_err(Error::Run)?),
        None => None,
    };
    tokio::select! {
        outcome = ended(command.as_mut()) => return outcome.map_err(Error::Run),
        signal = attendant.stop() => tracing::info!("{signal}: stopping"),
        () = gone(parent.as_ref()) => tracing::info!("the parent process has ended: stopping"),
    }
    if let Some(command) = command {
        command.terminate();
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits for the end of a command; for ever if there is none. Cancel safe.
async fn ended(command: Option<&mut RunningCommand>) -> io::Result<ExitCode> {
    match command {
        Some(command) => command.wait().await,
        None => pending().await,
    }
}

/// Waits for the end of the parent; for ever without `--exit-with-parent`. Cancel safe.
async fn gone(parent: Option<&WatchedParent>) {
    match parent {
        Some(parent) => parent.ended().await,
        None => pending().await,
    }
}

/// Outside of a service this does nothing.
fn notify_service_manager(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("the service manager can't be told: {error}");
    }
}

/// Says on standard output that a configuration file is good: `weir serve` would not refuse it.
///
/// # Errors
/// What is wrong with it.
pub fn check_config(path: &Path) -> Result<ExitCode, Error> {
    let settings = Settings::resolve(config::read(path)?)?;
    check::check(&settings).map_err(|error| config::located(path, error))?;
    check::check_addresses(&settings)?;
    let exports = counted(settings.exports.len(), "export");
    print(&format!("{}: good, {exports}\n", path.display()))
}
