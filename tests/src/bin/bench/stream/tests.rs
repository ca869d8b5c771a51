use std::thread;

use crate::connection::{Connection, Options};
use crate::pattern::Pattern;
use crate::reference::handshake;

use super::*;

#[test]
fn addresses_are_read_as_they_are_written() {
    for text in ["unix:/tmp/a socket", "127.0.0.1:10809", "[::1]:1"] {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
    }
    assert!("10809".parse::<Address>().is_err());
}

/// Nagle's algorithm on either side would turn a latency of the server into one of the network.
#[test]
fn neither_side_of_a_tcp_connection_delays_small_packets() {
    let listener = Address::Tcp(([127, 0, 0, 1], 0).into()).listen().unwrap();
    let Listener::Tcp(socket) = &listener else {
        panic!("TCP was asked for")
    };
    let address = Address::Tcp(socket.local_addr().unwrap());
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap();
        handshake::serve(&mut stream, 1 << 20).unwrap();
        stream
    });
    let options = Options {
        export: String::new(),
        pattern: Pattern::new(1),
        structured: false,
    };
    let client = Connection::open(&address, &options, 1).unwrap();
    for stream in [client.stream(), &server.join().unwrap()] {
        let Stream::Tcp(stream) = stream else {
            panic!("TCP was asked for")
        };
        assert!(stream.nodelay().unwrap());
    }
}
