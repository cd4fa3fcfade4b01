//! Faults on purpose: where a test takes the process down as a power cut would, lets a run hang or takes its device away, to see that
//! nothing is lost and nothing done twice.
//!
//! `ROENTGEN_CRASH_AT=after-seal:5` ends the process at the fifth time that it comes to `after-seal`; `ROENTGEN_HANG_AT` lets the thread
//! that comes there sleep for ever (`job-running:every`: each that comes), and `ROENTGEN_LOSE_AT` has it find its device lost. Builds without debug assertions have none of it.
//!
//! ```text
//! after-seal       an instance is sealed and synced, nobody knows of it yet
//! after-enter      an instance is entered and lies in `incoming` still
//! job-running      a job is claimed                                              (crash, hang)
//! device           the device is to be used                                      (lose)
//! series-written   the results of a series are written, the job is not finished
//! after-finish     results and deliveries are entered, nothing is sent
//! before-settle    a destination has answered, the answer is not entered
//! after-remove     what is old is no longer in the database, its files are there still
//! ```

/// Ends the process at once, if it was told to end here; sleeps for ever, if it was told that.
pub fn crash_point(name: &str) {
    if told::at(told::Fault::Crash, name) {
        std::process::abort();
    }
    if told::at(told::Fault::Hang, name) {
        loop {
            std::thread::park();
        }
    }
}

/// Whether the device counts as lost here.
pub fn loses_device(name: &str) -> bool {
    told::at(told::Fault::Lose, name)
}

#[cfg(debug_assertions)]
mod told {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// What is to happen.
    #[derive(Clone, Copy)]
    pub(super) enum Fault {
        Crash,
        Hang,
        Lose,
    }

    /// For `every`.
    const EVERY: u64 = u64::MAX;

    /// A point, and how often the process comes to it until it happens there.
    type Point = Option<(String, AtomicU64)>;

    /// Whether it is to happen here and now.
    pub(super) fn at(fault: Fault, name: &str) -> bool {
        static TOLD: [OnceLock<Point>; 3] = [const { OnceLock::new() }; 3];
        let variable = ["ROENTGEN_CRASH_AT", "ROENTGEN_HANG_AT", "ROENTGEN_LOSE_AT"][fault as usize];
        let told = TOLD[fault as usize].get_or_init(|| {
            let text = std::env::var(variable).ok()?;
            let (point, times) = text.split_once(':').unwrap_or((&text, "1"));
            let times = if times == "every" { EVERY } else { times.parse().expect("it is `point`, `point:times` or `point:every`") };
            Some((point.to_owned(), AtomicU64::new(times)))
        });
        let now = |left: &AtomicU64| left.load(Ordering::SeqCst) == EVERY || left.fetch_sub(1, Ordering::SeqCst) == 1;
        told.as_ref().is_some_and(|(point, left)| point == name && now(left))
    }
}

#[cfg(not(debug_assertions))]
mod told {
    pub(super) enum Fault {
        Crash,
        Hang,
        Lose,
    }

    /// Nothing in this build.
    pub(super) fn at(_: Fault, _: &str) -> bool {
        false
    }
}
