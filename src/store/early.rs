//! What is done for an instance while it still arrives, so that little is left to do at its end: its header is read.

use std::path::Path;

use super::StoreError;
use crate::dataset::Instance;

/// Bytes of a file in which its header is looked for.
const HEAD_BYTES: usize = 16 * 1024;

/// The beginning of an instance.
#[derive(Debug, Default)]
pub(super) struct Early {
    head: Vec<u8>,
    known: Option<Instance>,
}

impl Early {
    /// After the file's own beginning.
    pub(super) fn after(beginning: &[u8]) -> Self {
        Self { head: beginning.to_vec(), known: None }
    }

    /// The next piece of the data set.
    pub(super) fn more(&mut self, fragment: &[u8]) {
        let lacking = HEAD_BYTES.saturating_sub(self.head.len());
        if lacking == 0 {
            return;
        }
        self.head.extend(&fragment[..lacking.min(fragment.len())]);
        if self.head.len() == HEAD_BYTES {
            self.known = Instance::of_beginning(self.head.clone());
        }
    }

    /// The instance that has been written to `path`.
    pub(super) fn ended(self, path: &Path) -> Result<Instance, StoreError> {
        let instance = self.known.map_or_else(|| Instance::read(path), |instance| instance.written_to(path));
        Ok(instance?)
    }
}
