//! The ceiling: one thread per connection over plain memory, blocking sockets, nothing else.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread;

use super::engine::{Engine, INPUT_LENGTH, Memory};
use super::handshake;
use crate::stream::{Address, Stream};

/// Serves until it is killed.
pub(crate) fn serve(address: &Address, size: u64) -> io::Result<()> {
    let memory = Arc::new(Memory::new(size));
    let listener = address.listen()?;
    loop {
        let stream = listener.accept()?;
        let memory = Arc::clone(&memory);
        thread::spawn(move || {
            if let Err(error) = session(stream, &memory) {
                eprintln!("ceiling: {error}");
            }
        });
    }
}

fn session(mut stream: Stream, memory: &Memory) -> io::Result<()> {
    handshake::serve(&mut stream, memory.size())?;
    let mut engine = Engine::new(memory);
    let mut input = vec![0; INPUT_LENGTH];
    let mut filled = 0;
    while !engine.disconnected() {
        let length = stream.read(&mut input[filled..])?;
        if length == 0 {
            return Ok(());
        }
        filled += length;
        let mut used = 0;
        loop {
            let taken = engine.take(&input[used..filled])?;
            used += taken;
            while engine.wants_payload() {
                engine.read_payload(|target| stream.read(target))?;
            }
            while engine.wants_write() {
                engine.write(|slices| stream.write_vectored(slices))?;
            }
            if taken == 0 {
                break;
            }
        }
        input.copy_within(used..filled, 0);
        filled -= used;
    }
    Ok(())
}
