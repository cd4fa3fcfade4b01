//! Being asked to stop: SIGINT (Ctrl-C) and SIGTERM.

use std::io;

/// Exit code of a process that was asked twice: as a shell says it of one that SIGINT ended.
pub(super) const STOPPED_AT_ONCE: i32 = 130;

/// Calls `asked` each time, in a thread of its own.
///
/// # Errors
/// Where the system has no thread or no such signals to give.
pub(super) fn on_stop(asked: impl Fn() + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let listen = async move {
        loop {
            signals.next().await;
            asked();
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(listen))?;
    Ok(())
}

/// Listens from its making on: what comes while one is answered is not lost.
#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 2]);

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await; // without signals nobody can ask
        }
    }
}
