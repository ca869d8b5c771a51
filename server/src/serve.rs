//! `weir serve`: from settings to a running server and to its end.
//!
//! The order matters:
//!
//! 1. What can be found wrong without changing anything is looked for first.
//! 2. Addresses are bound before files are opened (and created), so a busy port leaves nothing behind.
//! 3. Signals are taken over before anything is printed, so that a script that waits for the printed line may send one.
//! 4. Clients are let in last.

use std::future::pending;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_faults::Faults;

use crate::admin::AdminListener;
use crate::cli::client::print;
use crate::cli::counted;
use crate::cli::serve::ServeOptions;
use crate::connection::ConnectionTable;
use crate::error::Error;
use crate::export::{self, ExportTable, OpenExportError};
use crate::listener::{AllowList, Gate, Listener, accept_loop, inherited};
use crate::process::parent::{Parent, WatchedParent};
use crate::resources::MachineMemory;
use crate::session::SessionContext;
use crate::settings::{AdminPort, Settings};
use crate::shutdown::finish;
use crate::signals::Signals;
use crate::size::Size;
use crate::{config, descriptors, logging, process};

mod announce;
mod attend;
mod check;
mod command;
mod remarks;
mod watchdog;

use announce::Announcement;
use attend::Attendant;
use command::RunningCommand;

/// A running server: what its sessions and its admin port work on.
#[derive(Debug)]
pub struct Server {
    /// What is served.
    pub exports: Arc<ExportTable>,
    /// Injected faults.
    pub faults: Faults,
    /// The open connections.
    pub connections: Arc<ConnectionTable>,
    /// Cancelled when the server is to stop.
    pub stop: CancellationToken,
}

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
    let server = open(settings, faults).await.map_err(located)?;
    if let Some(remark) = admin.as_ref().and_then(AdminListener::remark) {
        tracing::warn!("{remark}");
    }
    let mut attendant = Attendant::new(signals, config, &server);
    let admin_url = admin.as_ref().map(|admin| admin.url().to_owned());
    let announcement = Announcement::new(&listeners, &server, admin_url).map_err(Error::System)?;
    let sessions = TaskTracker::new();
    let acceptors = accept(settings, &server, listeners, &sessions);
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

/// Opens the exports. It logs nothing before all are open, so that a refusal is one line.
async fn open(settings: &Settings, faults: Faults) -> Result<Server, Error> {
    let mut exports = Vec::new();
    for settings in &settings.exports {
        let refused = |source| Error::Export {
            name: settings.name.clone(),
            keys: settings.keys,
            source,
        };
        let export = export::open(settings, &faults).await.map_err(refused)?;
        let counted = export.cache.count_space().await;
        counted.map_err(|errno| refused(OpenExportError::Space(errno)))?;
        exports.push(export);
    }
    let exports: Arc<ExportTable> = Arc::new(exports.into_iter().collect());
    report(settings, &exports);
    Ok(Server {
        exports,
        faults,
        connections: Arc::default(),
        stop: CancellationToken::new(),
    })
}

/// What was opened, and what its user should know about it.
fn report(settings: &Settings, exports: &ExportTable) {
    if let Some(memory) = settings.memory {
        tracing::info!(
            "--cache-size defaults to a share of {} MiB of memory",
            memory.bytes >> 20
        );
    }
    if let Some(remark) = remarks::of_memory(&settings.exports, MachineMemory::detect()) {
        tracing::warn!("{remark}");
    }
    for settings in &settings.exports {
        let Some(export) = exports.get(&settings.name) else {
            continue;
        };
        let size = export.cache.size();
        tracing::info!(
            "export {:?}: {}, {size} bytes ({}), cache {} MiB ({:?})",
            export.name,
            export.source,
            Size(size),
            settings.cache_bytes >> 20,
            settings.mode,
        );
        for remark in remarks::of(size, export.cache.space())
            .iter()
            .chain(&export.remarks)
        {
            tracing::warn!("{}: {remark}", export.source);
        }
    }
}

fn accept(
    settings: &Settings,
    server: &Server,
    listeners: Vec<Listener>,
    sessions: &TaskTracker,
) -> TaskTracker {
    let has_admin_port = settings.admin != AdminPort::Closed;
    let (connections_max, remark) =
        descriptors::connections_max(settings.max_connections, has_admin_port);
    if let Some(remark) = remark {
        tracing::warn!("{remark}");
    }
    let gate = Arc::new(Gate::new(
        AllowList::new(settings.allow.clone()),
        connections_max,
    ));
    let context = Arc::new(SessionContext {
        exports: Arc::clone(&server.exports),
        faults: server.faults.clone(),
        timeouts: settings.timeouts,
        connections: Arc::clone(&server.connections),
        shutdown: server.stop.clone(),
    });
    let acceptors = TaskTracker::new();
    for listener in listeners {
        acceptors.spawn(accept_loop(
            listener,
            Arc::clone(&gate),
            Arc::clone(&context),
            sessions.clone(),
            server.stop.clone(),
        ));
    }
    acceptors
}

/// Serves until a signal comes, the parent has ended, or the command of `--run` has ended, whose status is the outcome.
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
