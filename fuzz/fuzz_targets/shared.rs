//! A file that holds the input, since the library reads paths; in memory where the system has that.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use roentgen::dataset::Instance;
use roentgen::series::{GeometryPolicy, Series};

pub fn file(name: &str, data: &[u8]) -> PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a temporary folder can be made")
    });
    let path = folder.path().join(name);
    std::fs::write(&path, data).expect("the temporary folder takes a file");
    path
}

/// Everything that is done with one instance: header, parts, gate, voxels.
pub fn read(path: &Path) {
    let Ok(instance) = Instance::read(path) else { return };
    let _ = instance.header();
    let series = Series::new(vec![instance]);
    for policy in [GeometryPolicy::Refuse, GeometryPolicy::Resample] {
        for part in series.parts(policy) {
            let Ok(stack) = part.gate() else { continue };
            // What is large by right would only make the fuzzer slow.
            if stack.grid.voxel_count() > 1 << 22 {
                continue;
            }
            if stack.is_colour() {
                let _ = stack.load_rgb();
            } else if let Ok(loaded) = stack.load() {
                let _ = loaded.content_sha256();
            }
        }
    }
}
