//! Acknowledged data that is lost behind its writer's back: which clients are told, and how often.

use super::*;
use weir_faults::RequestKinds;

const EIO: u32 = 5;
const ENOSPC: u32 = 28;

impl Server {
    /// The next sync of the store fails, for whichever client it runs.
    fn fail_next_sync(&self) {
        self.context
            .faults
            .set_points("class cache:sync:submit oneshot error EIO")
            .expect("there is such a point");
    }

    /// One of the cache's own syncs fails: what can't be written again is lost, and no client has been told.
    async fn lose_unseen(&self) {
        self.fail_next_sync();
        let context = self.context.faults.context(RequestKinds::WRITEBACK);
        self.cache
            .flush(&context)
            .await
            .expect_err("its sync fails");
    }
}

impl Client {
    async fn command(&mut self, command: Command, flags: CommandFlags, length: u32) -> u32 {
        let mut request = request(command, 1, 0, length);
        request.flags = flags;
        self.request(request).await;
        if command == Command::WRITE {
            self.send(&vec![9; length as usize]).await;
        }
        self.reply().await.0
    }

    async fn flush(&mut self) -> u32 {
        self.command(Command::FLUSH, CommandFlags::EMPTY, 0).await
    }

    async fn zero(&mut self) -> u32 {
        self.command(Command::WRITE_ZEROES, CommandFlags::EMPTY, 4096)
            .await
    }
}

#[tokio::test]
async fn every_open_connection_is_told_of_a_loss_once() {
    let server = Server::new();
    let mut writer = server.client(false).await;
    let mut other = server.client(false).await;
    let mut third = server.client(false).await;
    assert_eq!(writer.zero().await, 0);
    server.fail_next_sync();
    // Another client's sync fails: the writer's data that it should cover can't be written again.
    let fua = other.command(Command::WRITE, CommandFlags::FUA, 4096).await;
    assert_eq!(fua, EIO);
    assert_eq!(other.flush().await, 0, "told twice");
    assert_eq!(writer.flush().await, EIO, "a flush hides a loss");
    assert_eq!(writer.flush().await, 0, "told twice");
    let fua = third.command(Command::WRITE, CommandFlags::FUA, 4096).await;
    assert_eq!(fua, EIO, "a FUA tells as well");
    assert_eq!(third.flush().await, 0, "told twice");
    let mut late = server.client(false).await;
    assert_eq!(late.flush().await, 0, "others have been told");
}

#[tokio::test]
async fn a_loss_that_nobody_saw_is_told_to_the_next_connection() {
    let server = Server::new();
    let mut writer = server.client(false).await;
    assert_eq!(writer.zero().await, 0);
    drop(writer);
    server.lose_unseen().await;
    let mut next = server.client(false).await;
    // Only a FLUSH or a FUA tells.
    assert_eq!(next.zero().await, 0);
    assert_eq!(next.write(1, 0, &[1; 512]).await, 0);
    assert_eq!(next.flush().await, EIO);
    assert_eq!(next.flush().await, 0);
    let mut after = server.client(false).await;
    assert_eq!(after.flush().await, 0);
}

#[tokio::test]
async fn a_flush_that_a_rule_has_taken_tells_of_a_loss_unless_it_is_dropped() {
    let server = Server::new();
    let mut client = server.client(false).await;
    assert_eq!(client.zero().await, 0);
    server.lose_unseen().await;
    let faults = &server.context.faults;
    faults.add_rule("flush drop").expect("a good rule");
    client.request(request(Command::FLUSH, 1, 0, 0)).await;
    client.expect_over().await;
    faults.clear_rules();
    faults.add_rule("flush delay=1ms").expect("a good rule");
    let mut next = server.client(false).await;
    assert_eq!(next.flush().await, EIO);
    assert_eq!(next.flush().await, 0);
}

#[tokio::test]
async fn what_can_be_written_again_is_no_loss() {
    let server = Server::new();
    let mut writer = server.client(false).await;
    let mut other = server.client(false).await;
    assert_eq!(writer.write(1, 0, &[1; 4096]).await, 0);
    server.fail_next_sync();
    assert_eq!(other.flush().await, EIO);
    assert_eq!(writer.flush().await, 0, "it is durable now");
    assert_eq!(other.flush().await, 0);
}

#[tokio::test]
async fn a_failure_that_is_not_the_stores_tells_of_no_loss() {
    let server = Server::new();
    let mut client = server.client(false).await;
    assert_eq!(client.zero().await, 0);
    server.lose_unseen().await;
    let faults = &server.context.faults;
    faults.add_rule("write error=ENOSPC").expect("a good rule");
    let fua = client
        .command(Command::WRITE, CommandFlags::FUA, 4096)
        .await;
    assert_eq!(fua, ENOSPC);
    faults.clear_rules();
    assert_eq!(client.flush().await, EIO, "swallowed");
    assert_eq!(client.flush().await, 0);
}
