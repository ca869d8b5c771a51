//! From the greeting to the transmission phase, driven by the protocol's state machine.
//!
//! Speed doesn't matter here, but bounds do: the whole handshake has one deadline, reads are small, and the state
//! machine keeps at most one option's data. A server that shuts down answers options with ERR_SHUTDOWN for a short
//! while; a killed connection ends at once.

use std::future::poll_fn;
use std::io::{self, IoSlice};

use bytes::{Buf, BytesMut};
use weir_faults::{Action, FaultContext, RequestKind, RequestKinds, RequestView, pause_point};
use weir_protocol::ServerHandshake;
use weir_protocol::handshake::server::{Negotiated, Step, TlsPolicy};

use super::end::End;
use super::socket::Socket;
use super::{SHUTDOWN_GRACE, SessionContext};
use crate::connection::Connection;

/// How much is read at once. Options are short, and clients send one and wait for the answer.
const READ_BYTES: usize = 4 << 10;

/// Negotiates with the client. Returns what was agreed on, and the bytes that were received beyond it.
pub(super) async fn negotiate(
    stream: &Socket,
    connection: &Connection,
    context: &SessionContext,
) -> Result<(Box<Negotiated>, BytesMut), End> {
    let faults = context.faults.context(RequestKinds::CONNECT);
    let work = async {
        // Before the clock of the handshake starts: an injected delay isn't the client's fault.
        inject(connection, context, &faults).await?;
        let talk = talk(stream, connection, context, &faults);
        tokio::time::timeout(context.timeouts.handshake, talk)
            .await
            .unwrap_or(Err(End::HandshakeTimeout))
    };
    tokio::select! {
        biased;
        end = stopped(connection) => Err(end),
        outcome = work => outcome,
    }
}

/// What faults do to a connection as such.
async fn inject(
    connection: &Connection,
    context: &SessionContext,
    faults: &FaultContext,
) -> Result<(), End> {
    if pause_point!(faults, "session:accept").await.is_err() {
        return Err(End::Injected);
    }
    let view = RequestView {
        export: "",
        connection: connection.id(),
        kind: RequestKind::Connect,
        offset: 0,
        length: 0,
        fua: false,
    };
    let Some(mut decision) = context.faults.decide(&view) else {
        return Ok(());
    };
    decision.wait().await;
    if decision.action == Some(Action::Drop) {
        Err(End::Injected)
    } else {
        Ok(())
    }
}

/// Ready when the handshake is to be given up.
async fn stopped(connection: &Connection) -> End {
    connection.stop().cancelled().await;
    if connection.is_killed() {
        return End::Killed;
    }
    tokio::select! {
        () = connection.kill_token().cancelled() => End::Killed,
        () = tokio::time::sleep(SHUTDOWN_GRACE) => End::Shutdown,
    }
}

async fn talk(
    stream: &Socket,
    connection: &Connection,
    context: &SessionContext,
    faults: &FaultContext,
) -> Result<(Box<Negotiated>, BytesMut), End> {
    let mut machine = ServerHandshake::new(TlsPolicy::Unsupported);
    let mut input = BytesMut::new();
    let mut output = BytesMut::new();
    loop {
        if connection.stop().is_cancelled() {
            machine.set_shutting_down();
        }
        if pause_point!(faults, "session:handshake").await.is_err() {
            return Err(End::Injected);
        }
        let advance = machine.advance(&input, &*context.exports, &mut output);
        input.advance(advance.consumed);
        if let Step::Close(reason) = advance.step {
            // The peer may have gone already, and then loses nothing.
            let _ = send(stream, &mut output).await;
            return Err(reason.into());
        }
        send(stream, &mut output).await?;
        match advance.step {
            Step::Reply => {}
            Step::NeedMore => receive(stream, &mut input).await?,
            Step::Transmission(negotiated) => return Ok((negotiated, input)),
            Step::StartTls | Step::Close(_) => return Err(End::NoTls),
        }
    }
}

/// Appends what is there to `input`, waiting for at least one byte.
async fn receive(stream: &Socket, input: &mut BytesMut) -> Result<(), End> {
    let start = input.len();
    input.resize(start + READ_BYTES, 0);
    let outcome = loop {
        poll_fn(|task| stream.poll_read_ready(task)).await?;
        match stream.try_read(&mut input[start..]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => break outcome,
        }
    };
    let count = outcome?;
    input.truncate(start + count);
    if count == 0 {
        Err(End::ClientGone)
    } else {
        Ok(())
    }
}

/// Sends all of `output`.
async fn send(stream: &Socket, output: &mut BytesMut) -> io::Result<()> {
    while !output.is_empty() {
        poll_fn(|task| stream.poll_write_ready(task)).await?;
        match stream.try_write_vectored(&[IoSlice::new(output)], output.len()) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => output.advance(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
