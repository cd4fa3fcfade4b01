//! Faults on purpose: where a test takes the process down as a power cut would, lets a run hang or takes its device away, to see that
//! nothing is lost and nothing done twice.
//!
//! `ROENTGEN_CRASH_AT=after-seal:5` ends the process at the fifth time that it comes to `after-seal`; `ROENTGEN_HANG_AT` lets the thread
//! that comes there sleep for ever (`job-running:every`: each that comes), and `ROENTGEN_LOSE_AT` has it find its device lost. Builds without
//! debug assertions have none of it.
//!
//! ```text
//! after-seal       an instance is sealed and synced, nobody knows of it yet
//! after-enter      an instance is entered and lies in `incoming` still
//! prior-asked      an earlier study is to be retrieved
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

    /// Where it happens.
    struct Point {
        name: String,
        every: bool,
        /// How often the process comes there until it happens.
        left: AtomicU64,
    }

    /// Whether it is to happen here and now.
    pub(super) fn at(fault: Fault, name: &str) -> bool {
        static TOLD: [OnceLock<Option<Point>>; 3] = [const { OnceLock::new() }; 3];
        let variable = ["ROENTGEN_CRASH_AT", "ROENTGEN_HANG_AT", "ROENTGEN_LOSE_AT"][fault as usize];
        let told = TOLD[fault as usize].get_or_init(|| {
            let text = std::env::var(variable).ok()?;
            let (name, times) = text.split_once(':').unwrap_or((&text, "1"));
            let every = times == "every";
            let left = if every { 0 } else { times.parse().expect("it is `point`, `point:times` or `point:every`") };
            Some(Point { name: name.to_owned(), every, left: AtomicU64::new(left) })
        });
        let now = |point: &Point| point.every || point.left.fetch_sub(1, Ordering::SeqCst) == 1;
        told.as_ref().is_some_and(|point| point.name == name && now(point))
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
