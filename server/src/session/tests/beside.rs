//! Clients beside one whose request the store never finishes.

use super::*;

const MIB: u64 = 1 << 20;
const PAGE: u32 = 4096;
/// The point where changes hang before the store has them.
const HANGS: &str = "class cache:discard:submit";

/// Another client's reads and writes a MiB away from a change that hangs.
#[tokio::test]
async fn a_neighbour_goes_on_beside_a_change_that_hangs() {
    for command in [Command::TRIM, Command::WRITE_ZEROES] {
        let server = Server::new();
        let mut client = server.client(false).await;
        let mut neighbour = server.client(false).await;
        let faults = &server.context.faults;
        faults
            .set_points(&format!("{HANGS} oneshot pause"))
            .expect("a good query");
        client.request(request(command, 1, 4 * MIB, PAGE)).await;
        soon(faults.paused(HANGS)).await.expect("a good query");

        for (cookie, offset) in [(10, 3 * MIB), (20, 5 * MIB)] {
            let cold = neighbour.read(cookie, offset, PAGE).await;
            assert_eq!(cold, [0; PAGE as usize]);
            for length in [512, 128 << 10] {
                let data = pattern(cookie, length);
                assert_eq!(neighbour.write(cookie + 1, offset, &data).await, 0);
            }
            neighbour
                .request(request(command, cookie + 2, offset, PAGE))
                .await;
            assert_eq!(neighbour.reply().await, (0, cookie + 2));
        }
        // What overlaps it waits, and is answered in the end.
        neighbour
            .request(request(Command::READ, 30, 4 * MIB, PAGE))
            .await;
        neighbour
            .request(request(Command::READ, 31, 6 * MIB, PAGE))
            .await;
        assert_eq!(neighbour.reply().await, (0, 31));
        neighbour.take(PAGE as usize).await;
        assert_eq!(faults.release(HANGS), Ok(1));
        assert_eq!(client.reply().await, (0, 1));
        assert_eq!(neighbour.reply().await, (0, 30));
        neighbour.take(PAGE as usize).await;
    }
}
