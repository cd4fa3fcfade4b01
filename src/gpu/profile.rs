//! How long dispatches take on the device: by its own timestamps where it has them, else by the wall clock around each one.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Gpu, GpuError, lock};

/// Dispatches that one profile can hold; later ones run and are not in it.
const MOST: u32 = 2048;

/// What a time was taken with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// Timestamps that the device writes at the beginning and the end of a pass.
    Timestamps,
    /// The wall clock of the host, from the call until the device has nothing left to do.
    Wall,
}

/// A dispatch and how long it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelTime {
    /// What it was called.
    pub label: String,
    /// When it began, from the beginning of the first one.
    pub start: Duration,
    /// Its time on the device.
    pub time: Duration,
}

/// Dispatches of the call that is being profiled.
#[derive(Debug)]
pub(super) struct Profile {
    labels: Vec<String>,
    /// Two timestamps a dispatch, where the device has them.
    queries: Option<wgpu::QuerySet>,
    /// When each began and ended, where it has not.
    wall: Vec<[Instant; 2]>,
}

/// One dispatch in a profile.
pub(super) enum Recorded {
    /// Nobody asks, or the profile is full.
    Not,
    /// Its pass writes timestamps `index` and the next one.
    Queries {
        set: wgpu::QuerySet,
        index: u32,
    },
    Wall(Instant),
}

impl Recorded {
    pub(super) fn writes(&self) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let Self::Queries { set, index } = self else { return None };
        let (beginning, end) = (Some(*index), Some(*index + 1));
        Some(wgpu::ComputePassTimestampWrites { query_set: set, beginning_of_pass_write_index: beginning, end_of_pass_write_index: end })
    }
}

impl Gpu {
    /// What [`Gpu::profiled`] measures with.
    pub fn clock(&self) -> Clock {
        if self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) { Clock::Timestamps } else { Clock::Wall }
    }

    /// Runs `work` and says how long each of its first 2048 dispatches took, in order. One call at a time.
    ///
    /// # Errors
    /// Those of `work`, and of reading the timestamps.
    pub fn profiled<T>(&self, work: impl FnOnce() -> Result<T, GpuError>) -> Result<(T, Vec<KernelTime>), GpuError> {
        self.begin_profile()?;
        let done = work();
        let times = self.end_profile();
        Ok((done?, times?))
    }

    /// Notes each dispatch from now on.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn begin_profile(&self) -> Result<(), GpuError> {
        let queries = match self.clock() {
            Clock::Timestamps => Some(self.guarded("a profile", || {
                let (ty, count) = (wgpu::QueryType::Timestamp, 2 * MOST);
                self.device.create_query_set(&wgpu::QuerySetDescriptor { label: Some("profile"), ty, count })
            })?),
            Clock::Wall => None,
        };
        *lock(&self.profile) = Some(Profile { labels: Vec::new(), queries, wall: Vec::new() });
        Ok(())
    }

    /// The dispatches since [`Gpu::begin_profile`]; none without it.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn end_profile(&self) -> Result<Vec<KernelTime>, GpuError> {
        let Some(Profile { labels, queries, wall }) = lock(&self.profile).take() else { return Ok(Vec::new()) };
        let spans: Vec<[Duration; 2]> = match &queries {
            Some(queries) => self.read_timestamps(queries, labels.len())?,
            None => wall.iter().map(|span| span.map(|at| at - wall[0][0])).collect(),
        };
        let times = labels.into_iter().zip(spans);
        Ok(times.map(|(label, [start, end])| KernelTime { label, start, time: end.saturating_sub(start) }).collect())
    }

    /// A dispatch begins.
    pub(super) fn record(&self, label: &str) -> Result<Recorded, GpuError> {
        let mut profile = lock(&self.profile);
        let Some(profile) = profile.as_mut().filter(|profile| profile.labels.len() < MOST as usize) else { return Ok(Recorded::Not) };
        let index = 2 * profile.labels.len() as u32;
        profile.labels.push(label.to_owned());
        if let Some(set) = profile.queries.clone() {
            return Ok(Recorded::Queries { set, index });
        }
        self.wait()?;
        Ok(Recorded::Wall(Instant::now()))
    }

    /// It is queued.
    pub(super) fn recorded(&self, recorded: &Recorded) -> Result<(), GpuError> {
        let Recorded::Wall(started) = *recorded else { return Ok(()) };
        self.wait()?;
        if let Some(profile) = lock(&self.profile).as_mut() {
            profile.wall.push([started, Instant::now()]);
        }
        Ok(())
    }

    fn read_timestamps(&self, queries: &wgpu::QuerySet, dispatches: usize) -> Result<Vec<[Duration; 2]>, GpuError> {
        if dispatches == 0 {
            return Ok(Vec::new());
        }
        let mut ticks = vec![0u64; 2 * dispatches];
        let resolved = self.guarded("a profile", || {
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
            let size = size_of_val(&ticks[..]) as u64;
            let resolved = self.device.create_buffer(&wgpu::BufferDescriptor { label: Some("profile"), size, usage, mapped_at_creation: false });
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("profile") });
            encoder.resolve_query_set(queries, 0..ticks.len() as u32, &resolved, 0);
            self.queue.submit([encoder.finish()]);
            resolved
        })?;
        self.read_into(&resolved, &mut ticks)?;
        let ns_a_tick = f64::from(self.queue.get_timestamp_period());
        let first = ticks[0];
        let since_first = |tick: u64| Duration::from_nanos((tick.saturating_sub(first) as f64 * ns_a_tick) as u64);
        Ok(ticks.chunks_exact(2).map(|pair| [pair[0], pair[1]].map(since_first)).collect())
    }
}
