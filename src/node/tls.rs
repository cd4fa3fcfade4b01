//! TLS under DICOM (PS3.15 B.12, BCP 195): versions 1.2 and 1.3 with rustls' cipher suites, certificates asked of both sides.
//!
//! What a peer does slowly is bounded here as it is for plain TCP: a handshake and a read each have one deadline, however many bytes at a
//! time come.

use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};

use super::config::{TlsClient, TlsListen};
use crate::dimse::{Channel, TcpChannel};

/// What a listener shows and asks for, read from its files.
///
/// # Errors
/// What is wrong with which file.
pub(super) fn server(listen: &TlsListen) -> Result<Arc<ServerConfig>, String> {
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(&listen.client_ca)?), provider()).build();
    let clients = clients.map_err(|error| format!("{}: {error}", listen.client_ca.display()))?;
    let (chain, key) = identity(&listen.certificate, &listen.key)?;
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    let config = config.with_client_cert_verifier(clients).with_single_cert(chain, key);
    config.map(Arc::new).map_err(|error| format!("{}: {error}", listen.certificate.display()))
}

/// What we show and ask for where we call, read from its files.
///
/// # Errors
/// What is wrong with which file.
pub(super) fn client(tls: &TlsClient) -> Result<Arc<ClientConfig>, String> {
    let (chain, key) = identity(&tls.certificate, &tls.key)?;
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    let config = config.with_root_certificates(authorities(&tls.ca)?).with_client_auth_cert(chain, key);
    config.map(Arc::new).map_err(|error| format!("{}: {error}", tls.certificate.display()))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| format!("{}: {error}", path.display()))?;
    if certificates.is_empty() { Err(format!("{}: no certificate in it", path.display())) } else { Ok(certificates) }
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(store)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(certificate: &Path, key: &Path) -> Result<Identity, String> {
    // What is wrong with a key is not told in detail.
    let key = PrivateKeyDer::from_pem_file(key).map_err(|_| format!("{}: no private key in PEM form", key.display()))?;
    Ok((certificates(certificate)?, key))
}

/// A TLS connection set up for messages.
#[derive(Debug)]
pub(super) struct TlsChannel {
    tls: Connection,
    tcp: TcpChannel,
    read_timeout: Duration,
}

impl TlsChannel {
    /// Takes a connection: the handshake is over, and the peer has shown a certificate that we trust, within `limit`.
    ///
    /// # Errors
    /// `InvalidData` where what the peer says or shows is not taken; the peer has been told so.
    pub(super) fn accept(tcp: TcpChannel, config: Arc<ServerConfig>, limit: Duration) -> io::Result<Self> {
        Self::shake_hands(ServerConnection::new(config).map_err(invalid)?.into(), tcp, limit)
    }

    /// Calls the peer that has a certificate of this `name`.
    ///
    /// # Errors
    /// As [`TlsChannel::accept`].
    pub(super) fn call(tcp: TcpChannel, config: Arc<ClientConfig>, name: &str, limit: Duration) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Self::shake_hands(ClientConnection::new(config, name).map_err(invalid)?.into(), tcp, limit)
    }

    fn shake_hands(tls: Connection, tcp: TcpChannel, limit: Duration) -> io::Result<Self> {
        let mut channel = Self { tls, tcp, read_timeout: limit };
        let deadline = Instant::now() + limit;
        let ended = loop {
            if let Err(error) = channel.write_out() {
                break Err(error);
            }
            if !channel.tls.is_handshaking() {
                break Ok(());
            }
            match channel.read_in(deadline) {
                Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        match ended {
            Ok(()) => Ok(channel),
            Err(error) => {
                channel.tcp.close();
                Err(error)
            }
        }
    }

    /// One read of the socket before `deadline`; its bytes, 0 where the peer has closed.
    fn read_in(&mut self, deadline: Instant) -> io::Result<usize> {
        let left = deadline.checked_duration_since(Instant::now()).ok_or(io::ErrorKind::TimedOut)?;
        self.tcp.set_read_timeout(left)?;
        let count = self.tls.read_tls(&mut self.tcp)?;
        if let Err(error) = self.tls.process_new_packets() {
            let _ = self.write_out(); // the alert; the peer may have gone before
            return Err(invalid(error));
        }
        Ok(count)
    }

    fn write_out(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.tcp)?;
        }
        Ok(())
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Read for TlsChannel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let deadline = Instant::now() + self.read_timeout;
        loop {
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Closed without a good-bye: PDUs say for themselves whether they are whole.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            self.read_in(deadline)?;
            self.write_out()?;
        }
    }
}

impl Write for TlsChannel {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.tls.writer().write(buffer)?;
        self.write_out()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_out()?;
        self.tcp.flush()
    }
}

impl Channel for TlsChannel {
    fn set_read_timeout(&mut self, limit: Duration) -> io::Result<()> {
        self.read_timeout = limit;
        Ok(())
    }

    fn is_readable(&mut self) -> io::Result<bool> {
        match self.tls.reader().fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.tcp.is_readable(),
            _ => Ok(true),
        }
    }

    fn close(&mut self) {
        self.tls.send_close_notify();
        let _ = self.write_out(); // the peer may have gone before
        self.tcp.close();
    }
}
