//! Telling systemd what becomes of a service (sd_notify(3)), where it has asked for that with NOTIFY_SOCKET.

/// Sends lines such as `READY=1`. Nobody listens where systemd did not start us, and that is no failure.
#[cfg(target_os = "linux")]
pub(super) fn notify(lines: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(lines.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!(%error, "systemd cannot be told how this service is");
    }
}

/// There is no systemd.
#[cfg(not(target_os = "linux"))]
pub(super) fn notify(_lines: &str) {}
