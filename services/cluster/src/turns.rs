//! Turns: how many tests of one process have servers to themselves at the same time.
//!
//! Most tests wait for servers most of the time, so more of them than there are cores go on at once; but not
//! many more, or what is to happen within seconds would not. Others wait for one another, since a cluster or a
//! service is theirs alone: these cost a thread and nothing else, so `cargo test` gets many of them
//! (`RUST_TEST_THREADS` in `.cargo/config.toml`), and whoever has what it waited for takes a turn.

use std::cell::RefCell;

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task,
};

/// Four for each of two cores.
const AT_ONCE: usize = 8;

static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

thread_local! {
    /// The turn of this thread's test, until the thread ends: each test has a thread of its own.
    static MINE: RefCell<Option<SemaphorePermit<'static>>> = const { RefCell::new(None) };
}

/// Waits for this test's turn, unless it has it. What a test spawns has that of its test.
///
/// Whatever another test may hold for long has to be waited for before: those who hold turns wait for nothing
/// but servers.
pub async fn take() {
    if task::try_id().is_some() || MINE.with_borrow(Option::is_some) {
        return;
    }
    // It is never closed.
    if let Ok(turn) = TURNS.acquire().await {
        MINE.set(Some(turn));
    }
}
