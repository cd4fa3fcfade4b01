//! Crash points: where a test takes the process down as a power cut would, to see that nothing is lost and nothing done twice.
//!
//! `ROENTGEN_CRASH_AT=after-seal:5` ends the process at the fifth time that it comes to `after-seal`. Builds without debug assertions have
//! no crash points.
//!
//! ```text
//! after-seal       an instance is sealed and synced, nobody knows of it yet
//! after-enter      an instance is entered and lies in `incoming` still
//! prior-asked      an earlier study is to be retrieved
//! job-running      a job is claimed
//! series-written   the results of a series are written, the job is not finished
//! after-finish     results and deliveries are entered, nothing is sent
//! before-settle    a destination has answered, the answer is not entered
//! ```

/// Ends the process at once, if it was told to end here.
#[cfg(debug_assertions)]
pub fn crash_point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The point, and how often the process comes to it until it ends there.
    static TOLD: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    let told = TOLD.get_or_init(|| {
        let text = std::env::var("ROENTGEN_CRASH_AT").ok()?;
        let (point, times) = text.split_once(':').unwrap_or((&text, "1"));
        Some((point.to_owned(), AtomicU64::new(times.parse().expect("ROENTGEN_CRASH_AT is `point` or `point:times`"))))
    });
    if let Some((point, left)) = told
        && point == name
        && left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        std::process::abort();
    }
}

/// Nothing in this build.
#[cfg(not(debug_assertions))]
pub fn crash_point(_name: &str) {}
