//! The process edge: everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    quiet_mesa();
    roentgen::cli::main()
}

/// Mesa's Vulkan layer that reorders adapters asks for a Wayland display, and complains on stderr where there is none.
/// Adapters are chosen here by their kind, so the layer has nothing to add.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "an environment variable, set before there is a second thread")]
fn quiet_mesa() {
    // SAFETY: the first statement of `main`: no other thread reads or writes the environment yet.
    unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
}

#[cfg(not(target_os = "linux"))]
fn quiet_mesa() {}
