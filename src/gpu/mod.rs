//! Adapter choice, device, buffers, readback and timing; knows no medicine.
//!
//! Every call blocks until its answer is known, and every failure is a [`GpuError`]: driver layer errors are caught by error
//! scopes, a lost device by its callback.

mod adapter;
mod error;
mod profile;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytemuck::Pod;

pub use adapter::{AdapterKind, AdapterSummary, DeviceChoice, list_adapters};
pub use error::GpuError;
pub use profile::{Clock, KernelTime};

/// A buffer in GPU memory.
pub type Buffer = wgpu::Buffer;

/// A kernel ready to be dispatched.
pub type Pipeline = wgpu::ComputePipeline;

/// Entry point, source and override constants: one entry point may have several sources.
type PipelineKey = (&'static str, &'static str, Vec<(&'static str, u64)>);

/// An open GPU.
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    summary: AdapterSummary,
    max_storage_bytes: u64,
    pipelines: Mutex<HashMap<PipelineKey, Pipeline>>,
    /// First failure that no call could be blamed for: device loss, or an error outside every scope.
    fault: Arc<Mutex<Option<GpuError>>>,
    /// What is being measured.
    profile: Mutex<Option<profile::Profile>>,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu").field("summary", &self.summary).finish_non_exhaustive()
    }
}

impl Gpu {
    /// Opens what `choice` means; `None` is the CPU implementation.
    ///
    /// # Errors
    /// [`GpuError::NoGpu`], [`GpuError::NoSuchAdapter`], or [`GpuError::Open`] where the driver refuses.
    pub fn open(choice: &DeviceChoice) -> Result<Option<Self>, GpuError> {
        if *choice == DeviceChoice::Cpu {
            return Ok(None); // no driver is loaded
        }
        let mut adapters = adapter::enumerate();
        let summaries: Vec<_> = adapters.iter().map(|(_, summary)| summary.clone()).collect();
        let Some(index) = adapter::choose(choice, &summaries)? else { return Ok(None) };
        let (adapter, summary) = adapters.swap_remove(index);
        Self::request(&adapter, summary).map(Some)
    }

    fn request(adapter: &wgpu::Adapter, summary: AdapterSummary) -> Result<Self, GpuError> {
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("roentgen"),
            required_limits: adapter.limits(), // the default caps bindings at 128 MiB
            required_features: adapter.features() & wgpu::Features::TIMESTAMP_QUERY,
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|err| GpuError::Open { adapter: summary.name.clone(), reason: err.to_string() })?;
        let fault = Arc::new(Mutex::new(None));
        let blamed = Arc::clone(&fault);
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                lock(&blamed).get_or_insert(GpuError::Lost { during: "earlier work".to_owned(), reason: message });
            }
        });
        let blamed = Arc::clone(&fault);
        device.on_uncaptured_error(Arc::new(move |err: wgpu::Error| {
            lock(&blamed).get_or_insert(typed(err, "earlier work"));
        }));
        let max_storage_bytes = summary.max_storage_binding_bytes.min(summary.max_buffer_bytes);
        Ok(Self { device, queue, summary, max_storage_bytes, pipelines: Mutex::default(), fault, profile: Mutex::default() })
    }

    /// What was opened.
    pub fn summary(&self) -> &AdapterSummary {
        &self.summary
    }

    /// Largest storage buffer that one kernel can see, bytes: larger data goes through in slabs.
    pub fn max_storage_bytes(&self) -> u64 {
        self.max_storage_bytes
    }

    /// Pretends to be a smaller device, so that tests meet slabs without large data.
    #[cfg(test)]
    pub(crate) fn limit_storage(&mut self, bytes: u64) {
        self.max_storage_bytes = bytes;
    }

    /// A storage buffer of at least `bytes` bytes, zeros.
    ///
    /// # Errors
    /// [`GpuError::TooLarge`] above [`Self::max_storage_bytes`], [`GpuError::OutOfMemory`], [`GpuError::Lost`].
    pub fn storage(&self, label: &str, bytes: u64) -> Result<Buffer, GpuError> {
        let size = bytes.next_multiple_of(4).max(4);
        if size > self.max_storage_bytes {
            return Err(GpuError::TooLarge { what: format!("buffer `{label}`, bytes"), needed: size, limit: self.max_storage_bytes });
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        self.guarded(label, || {
            self.device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
        })
    }

    /// A storage buffer that holds `data`, padded with zero bytes to a whole word.
    ///
    /// # Errors
    /// As for [`Self::storage`].
    pub fn upload<T: Pod>(&self, label: &str, data: &[T]) -> Result<Buffer, GpuError> {
        let buffer = self.storage(label, size_of_val(data) as u64)?;
        self.write(&buffer, 0, data)?;
        Ok(buffer)
    }

    /// Writes `data` at byte `offset`, a multiple of 4; a last word that is not full is padded with zero bytes.
    ///
    /// # Errors
    /// [`GpuError::Validation`] past the end or off a word boundary, [`GpuError::OutOfMemory`], [`GpuError::Lost`].
    pub fn write<T: Pod>(&self, buffer: &Buffer, offset: u64, data: &[T]) -> Result<(), GpuError> {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        let (words, rest) = bytes.split_at(bytes.len() / 4 * 4);
        self.guarded("an upload", || {
            if !words.is_empty() {
                self.queue.write_buffer(buffer, offset, words);
            }
            if !rest.is_empty() {
                let mut last = [0; 4];
                last[..rest.len()].copy_from_slice(rest);
                self.queue.write_buffer(buffer, offset + words.len() as u64, &last);
            }
        })
    }

    /// A uniform buffer that holds `params`.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`], [`GpuError::Lost`].
    pub fn uniform<T: Pod>(&self, label: &str, params: &T) -> Result<Buffer, GpuError> {
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size: size_of::<T>() as u64, usage, mapped_at_creation: false };
        let buffer = self.guarded(label, || self.device.create_buffer(&descriptor))?;
        self.write(&buffer, 0, std::slice::from_ref(params))?;
        Ok(buffer)
    }

    /// The kernel with entry point `entry` of WGSL `source`, made once for each source and set of `override` constants.
    ///
    /// # Errors
    /// [`GpuError::Validation`] where the source is refused, [`GpuError::Lost`].
    pub fn pipeline(&self, entry: &'static str, source: &'static str, overrides: &[(&'static str, f64)]) -> Result<Pipeline, GpuError> {
        let key = (entry, source, overrides.iter().map(|&(name, value)| (name, value.to_bits())).collect());
        if let Some(pipeline) = lock(&self.pipelines).get(&key) {
            return Ok(pipeline.clone());
        }
        let pipeline = self.guarded(entry, || {
            let source = wgpu::ShaderSource::Wgsl(source.into());
            let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(entry), source });
            self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(entry),
                layout: None,
                module: &module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions { constants: overrides, ..Default::default() },
                cache: None,
            })
        })?;
        lock(&self.pipelines).insert(key, pipeline.clone());
        Ok(pipeline)
    }

    /// Queues `groups` workgroups of `pipeline`; buffer `n` is `@group(0) @binding(n)`. Dispatches run in order.
    ///
    /// # Errors
    /// [`GpuError::TooLarge`] above the device's workgroups a dimension, [`GpuError::Validation`] where buffers do not fit the
    /// bindings, [`GpuError::OutOfMemory`], [`GpuError::Lost`].
    pub fn dispatch(&self, label: &str, pipeline: &Pipeline, buffers: &[&Buffer], groups: [u32; 3]) -> Result<(), GpuError> {
        let limit = self.summary.max_workgroups_per_dimension;
        if let Some(&most) = groups.iter().max().filter(|&&most| most > limit) {
            return Err(GpuError::TooLarge {
                what: format!("dispatch `{label}`, workgroups a dimension"),
                needed: most.into(),
                limit: limit.into(),
            });
        }
        let recorded = self.record(label)?;
        self.guarded(label, || {
            let entries: Vec<_> = (0..)
                .zip(buffers)
                .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
                .collect();
            let layout = pipeline.get_bind_group_layout(0);
            let bindings =
                self.device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some(label), layout: &layout, entries: &entries });
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(label) });
            {
                let timestamp_writes = recorded.writes();
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some(label), timestamp_writes });
                pass.set_pipeline(pipeline);
                pass.set_bind_group(0, &bindings, &[]);
                let [x, y, z] = groups;
                pass.dispatch_workgroups(x, y, z);
            }
            self.queue.submit([encoder.finish()]);
        })?;
        self.recorded(&recorded)
    }

    /// Waits for all queued work, then fills `out` from the start of `buffer`.
    ///
    /// # Errors
    /// [`GpuError::Validation`] where `buffer` is shorter, [`GpuError::OutOfMemory`], [`GpuError::Lost`].
    pub fn read_into<T: Pod>(&self, buffer: &Buffer, out: &mut [T]) -> Result<(), GpuError> {
        let out: &mut [u8] = bytemuck::cast_slice_mut(out);
        if out.is_empty() {
            return self.wait();
        }
        const DURING: &str = "a readback";
        let size = (out.len() as u64).next_multiple_of(4);
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor { label: Some("readback"), size, usage, mapped_at_creation: false };
        let answer = Arc::new(Mutex::new(None));
        let staging = self.guarded(DURING, || {
            let staging = self.device.create_buffer(&descriptor);
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(DURING) });
            encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, size);
            self.queue.submit([encoder.finish()]);
            let answer = Arc::clone(&answer);
            staging.map_async(wgpu::MapMode::Read, .., move |result| *lock(&answer) = Some(result.map_err(|err| err.to_string())));
            staging
        })?;
        self.wait()?;
        let refused = |reason: String| GpuError::Lost { during: DURING.to_owned(), reason };
        match lock(&answer).take() {
            Some(Ok(())) => {}
            Some(Err(reason)) => return Err(refused(reason)),
            None => return Err(refused("the driver never answered".to_owned())),
        }
        let mapped = staging.get_mapped_range(..).map_err(|err| refused(err.to_string()))?;
        out.copy_from_slice(&mapped[..out.len()]);
        Ok(())
    }

    /// Waits for all queued work.
    ///
    /// # Errors
    /// [`GpuError::Lost`], or what went wrong in that work.
    pub fn wait(&self) -> Result<(), GpuError> {
        let waited = self.guarded("waiting", || self.device.poll(wgpu::PollType::wait_indefinitely()))?;
        waited.map(drop).map_err(|err| GpuError::Lost { during: "waiting".to_owned(), reason: err.to_string() })
    }

    /// Runs `work`, waits for what it queued, and says how long that took on the wall clock.
    ///
    /// # Errors
    /// Those of `work`, and of [`Self::wait`].
    pub fn timed<T>(&self, work: impl FnOnce() -> Result<T, GpuError>) -> Result<(T, Duration), GpuError> {
        self.wait()?;
        let start = Instant::now();
        let done = work()?;
        self.wait()?;
        Ok((done, start.elapsed()))
    }

    /// Runs `calls` inside error scopes, which belong to this thread: what they catch is the fault of `calls`.
    fn guarded<T>(&self, during: &str, calls: impl FnOnce() -> T) -> Result<T, GpuError> {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        let [outer, middle, inner] = [Internal, OutOfMemory, Validation].map(|filter| self.device.push_error_scope(filter));
        let done = calls();
        let caught = [inner.pop(), middle.pop(), outer.pop()]; // innermost first; popped when called, not when awaited
        let first = caught.map(pollster::block_on).into_iter().flatten().next();
        if let Some(err) = first {
            return Err(typed(err, during));
        }
        match lock(&self.fault).clone() {
            Some(GpuError::Lost { reason, .. }) => Err(GpuError::Lost { during: during.to_owned(), reason }),
            Some(fault) => Err(fault),
            None => Ok(done),
        }
    }
}

/// Any adapter, a software one included, for tests and benches; says "skipped: no adapter" on stderr where there is none.
pub fn for_tests() -> Option<Gpu> {
    let opened = Gpu::open(&DeviceChoice::Gpu).or_else(|_| Gpu::open(&DeviceChoice::GpuIndex(0)));
    match opened {
        Ok(gpu) => gpu,
        Err(GpuError::NoSuchAdapter { .. }) => {
            eprintln!("skipped: no adapter");
            None
        }
        Err(err) => {
            eprintln!("skipped: no adapter that opens ({err})");
            None
        }
    }
}

fn typed(err: wgpu::Error, during: &str) -> GpuError {
    let during = during.to_owned();
    match err {
        wgpu::Error::OutOfMemory { .. } => GpuError::OutOfMemory { during },
        wgpu::Error::Validation { description, .. } => GpuError::Validation { during, message: description },
        wgpu::Error::Internal { description, .. } => GpuError::Lost { during, reason: description },
    }
}

/// A panic elsewhere leaves these values whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Coded;

    const DOUBLE: &str = "
        override factor: u32 = 2u;
        @group(0) @binding(0) var<storage, read> source: array<u32>;
        @group(0) @binding(1) var<storage, read_write> doubled: array<u32>;
        @compute @workgroup_size(64)
        fn double(@builtin(global_invocation_id) id: vec3<u32>) {
            if id.x < arrayLength(&source) { doubled[id.x] = factor * source[id.x]; }
        }";

    #[test]
    fn numbers_go_there_and_come_back() -> Result<(), GpuError> {
        let Some(gpu) = for_tests() else { return Ok(()) };
        let numbers: Vec<u32> = (0..1000).collect();
        let source = gpu.upload("numbers", &numbers)?;
        for factor in [2, 5] {
            let out = gpu.storage("doubled", 4000)?;
            let pipeline = gpu.pipeline("double", DOUBLE, &[("factor", factor.into())])?;
            gpu.dispatch("double", &pipeline, &[&source, &out], [16, 1, 1])?;
            let mut back = vec![0u32; 1000];
            let ((), wall) = gpu.timed(|| gpu.read_into(&out, &mut back))?;
            let ((), times) = gpu.profiled(|| gpu.dispatch("again", &pipeline, &[&source, &out], [16, 1, 1]))?;
            assert_eq!(times.iter().map(|kernel| kernel.label.as_str()).collect::<Vec<_>>(), ["again"]);
            assert!(times[0].time > Duration::ZERO && times[0].time < Duration::from_secs(10), "{times:?}");
            assert!(wall > Duration::ZERO);
            assert!(back.iter().zip(&numbers).all(|(&b, &n)| b == factor * n));
        }
        assert_eq!(lock(&gpu.pipelines).len(), 2);
        Ok(())
    }

    #[test]
    fn odd_bytes_are_padded() -> Result<(), GpuError> {
        let Some(gpu) = for_tests() else { return Ok(()) };
        let buffer = gpu.upload("odd", &[1i16, -2, 3])?;
        let mut back = [9i16; 3];
        gpu.read_into(&buffer, &mut back)?;
        assert_eq!(back, [1, -2, 3]);
        gpu.read_into(&buffer, &mut [0u8; 0])
    }

    #[test]
    fn refusals_are_typed_and_leave_the_device_usable() -> Result<(), GpuError> {
        let Some(gpu) = for_tests() else { return Ok(()) };
        let err = gpu.pipeline("broken", "fn broken( {", &[]).expect_err("this is no WGSL");
        assert_eq!(err.code(), "gpu.validation");
        let err = gpu.storage("huge", 1 << 60).expect_err("no device is that large");
        assert_eq!(err.code(), "gpu.too-large");
        let pipeline = gpu.pipeline("double", DOUBLE, &[])?;
        let small = gpu.storage("small", 4)?;
        let err = gpu.dispatch("double", &pipeline, &[&small], [1, 1, 1]).expect_err("a binding is missing");
        assert_eq!(err.code(), "gpu.validation");
        let err = gpu.dispatch("double", &pipeline, &[&small, &small], [u32::MAX, 1, 1]).expect_err("too many workgroups");
        assert_eq!(err.code(), "gpu.too-large");
        let err = gpu.read_into(&small, &mut [0u32; 2]).expect_err("the buffer is shorter");
        assert_eq!(err.code(), "gpu.validation");
        let mut back = [7u32];
        gpu.read_into(&small, &mut back)?;
        assert_eq!(back, [0]);
        Ok(())
    }

    #[test]
    fn a_lost_device_is_an_error() -> Result<(), GpuError> {
        let Some(gpu) = for_tests() else { return Ok(()) };
        let buffer = gpu.storage("early", 4)?;
        gpu.device.destroy();
        assert!(gpu.read_into(&buffer, &mut [0u32]).is_err());
        Ok(())
    }

    #[test]
    fn the_processor_needs_no_adapter() {
        assert!(matches!(Gpu::open(&DeviceChoice::Cpu), Ok(None)));
        assert!(Gpu::open(&DeviceChoice::GpuName("no such adapter".to_owned())).is_err());
    }
}
