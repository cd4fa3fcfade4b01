//! Reading what is sealed, for its SHA-256, while nobody else needs the processor.
//!
//! That hash takes as much processor time as all else of receiving an instance. By the scheduler's idle class it takes what sender and
//! receiver leave while they wait for each other; what it has not come to when a batch is entered, the indexer does.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::index::{Arrival, BATCH};

/// Starts it; it ends when the sender is dropped. A batch may wait for it; who finds its queue full leaves it to the indexer.
pub(super) fn start() -> io::Result<SyncSender<Arc<Arrival>>> {
    let (sender, queue) = sync_channel(BATCH);
    thread::Builder::new().name("namer".into()).spawn(move || run(&queue))?;
    Ok(sender)
}

fn run(queue: &Receiver<Arc<Arrival>>) {
    yield_to_all();
    while let Ok(arrival) = queue.recv() {
        let _ = arrival.contents(); // the indexer tells what is wrong
    }
}

/// Lets this thread run when no other wants to.
#[cfg(target_os = "linux")]
fn yield_to_all() {
    // SAFETY: the parameters live as long as the call, which changes nothing but this thread's class; where it may not, all goes on as before.
    #[allow(unsafe_code, reason = "there is no other way to ask for it")]
    unsafe {
        let parameters: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters);
    }
}

#[cfg(not(target_os = "linux"))]
fn yield_to_all() {}
