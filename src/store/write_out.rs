//! Writing to the disk while an instance still arrives, so that little is left to wait for at its end.

use std::fs::File;

/// Bytes that are handed to the disk together.
const TOGETHER: u64 = 128 * 1024;
/// The start of the file is left alone: the seal comes there last.
const PAGE: u64 = 4096;

/// How far a file that grows has been handed to the disk. That is no promise: only a sync makes it safe.
#[derive(Debug)]
pub(super) struct WriteOut {
    written: u64,
    begun: u64,
}

impl WriteOut {
    /// Of a file of `written` bytes.
    pub(super) fn after(written: u64) -> Self {
        Self { written, begun: PAGE }
    }

    /// Bytes of the file.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// `count` more bytes were written to the end of `file`.
    pub(super) fn more(&mut self, file: &File, count: u64) {
        self.written += count;
        let whole = self.written - self.written % PAGE;
        if whole >= self.begun + TOGETHER {
            begin(file, self.begun, whole - self.begun);
            self.begun = whole;
        }
    }

    /// Nothing more comes; a little is left to the sync.
    pub(super) fn ended(&self, file: &File) {
        if self.written >= self.begun + TOGETHER / 2 {
            begin(file, self.begun, self.written - self.begun);
        }
    }
}

#[cfg(target_os = "linux")]
fn begin(file: &File, offset: u64, count: u64) {
    use std::os::fd::AsRawFd;

    // SAFETY: the descriptor is open as long as `file` is; what the call does not do now, or cannot, the sync at the end does.
    #[allow(unsafe_code, reason = "there is no other way to ask for it")]
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset as i64, count as i64, libc::SYNC_FILE_RANGE_WRITE);
    }
}

#[cfg(not(target_os = "linux"))]
fn begin(_: &File, _: u64, _: u64) {}
