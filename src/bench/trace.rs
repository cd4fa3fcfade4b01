//! One run as a timeline that chrome://tracing and ui.perfetto.dev show.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::runs::{RunError, Runs};
use crate::engine::{Engine, Stage};

/// The second of two runs: its stages on one track, and what the GPU did on another.
///
/// Dispatches have the device's own times between them; the first is put where the first stage that uses the GPU begins.
///
/// # Errors
/// Where the engine fails.
pub fn trace(runs: &Runs, engine: &mut Engine) -> Result<Value, RunError> {
    runs.once(engine, &mut |_| {})?;
    let started = Instant::now();
    let mut begun: Vec<(Stage, Duration)> = Vec::new();
    engine.begin_profile()?;
    let timings = runs.once(engine, &mut |stage| begun.push((stage, started.elapsed())));
    let kernels = engine.end_profile()?;
    let timings = timings?;
    let name = |tid: u32, name: &str| json!({"ph": "M", "name": "thread_name", "pid": 1, "tid": tid, "args": {"name": name}});
    let event = |tid: u32, name: &str, start: Duration, time: Duration| {
        let us = |time: Duration| time.as_nanos() as f64 / 1e3;
        json!({"ph": "X", "name": name, "pid": 1, "tid": tid, "ts": us(start), "dur": us(time)})
    };
    let first = begun.iter().find(|(stage, _)| *stage == Stage::Preprocess).map_or(Duration::ZERO, |(_, at)| *at);
    let mut events = vec![name(1, "stages")];
    events.extend(begun.iter().zip(&timings.0).map(|((stage, start), (_, time))| event(1, &stage.to_string(), *start, *time)));
    if !kernels.is_empty() {
        events.push(name(2, &engine.device()));
        events.extend(kernels.iter().map(|kernel| event(2, &kernel.label, first + kernel.start, kernel.time)));
    }
    Ok(json!({"displayTimeUnit": "ms", "otherData": {"roentgen": env!("CARGO_PKG_VERSION"), "device": engine.device()}, "traceEvents": events}))
}
