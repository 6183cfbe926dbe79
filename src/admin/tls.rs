//! TLS of the door: our certificate, whose certificates of clients count, and both anew when their files are. Knows no
//! request.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use super::access::Peer;
use super::access::config;
use crate::error::{Error, ErrorKind, Result};
use crate::net::tls::{certificates, unreadable};

/// What handshakes are made with. Clones share it.
#[derive(Clone)]
pub struct Tls {
    files: Arc<Files>,
    now: Arc<Mutex<Now>>,
}

struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

struct Now {
    settings: Arc<ServerConfig>,
    /// Of the files when they were last read, whether they could be used or not.
    stamps: Vec<Option<(SystemTime, u64)>>,
}

impl Tls {
    /// None where TLS is off.
    pub fn new(config: &config::Tls) -> Result<Option<Self>> {
        let (cert, key) = match (&config.cert_file, &config.key_file) {
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            _ => {
                return Err(Error::input(
                    "one of `http.tls.cert_file` and `http.tls.key_file` is missing",
                )
                .with_advice("write both, or none"));
            }
        };
        let files = Files { cert, key, client_ca: config.client_ca_file.clone() };
        let now = Now { stamps: files.stamps(), settings: Arc::new(files.settings()?) };
        Ok(Some(Self { files: Arc::new(files), now: Arc::new(Mutex::new(now)) }))
    }

    /// For the next handshake.
    pub fn settings(&self) -> Arc<ServerConfig> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).settings.clone()
    }

    /// Looks whether the files are others than before, and reads them if so. Files that cannot be used are warned of
    /// once, and what was read before goes on.
    pub fn renew(&self) {
        let stamps = self.files.stamps();
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if stamps == now.stamps {
            return;
        }
        now.stamps = stamps;
        match self.files.settings() {
            Ok(settings) => {
                now.settings = Arc::new(settings);
                tracing::info!(file = %self.files.cert.display(), "the door has a renewed certificate");
            }
            Err(error) => {
                tracing::warn!(error = %error.report(), "the door keeps its certificate: the renewed files cannot be used");
            }
        }
    }
}

impl Files {
    fn stamps(&self) -> Vec<Option<(SystemTime, u64)>> {
        let stamp = |file: &PathBuf| {
            let about = std::fs::metadata(file).ok()?;
            Some((about.modified().ok()?, about.len()))
        };
        [&self.cert, &self.key].into_iter().chain(&self.client_ca).map(stamp).collect()
    }

    fn settings(&self) -> Result<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => builder.with_client_cert_verifier(clients(file, provider)?),
        };
        let chain = certificates(&self.cert)?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|cause| unreadable("private key", &self.key, cause))?;
        let mut settings = builder.with_single_cert(chain, key).map_err(unusable)?;
        settings.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(settings)
    }
}

/// Who has no certificate may still have a token.
fn clients(
    file: &std::path::Path,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(unusable)?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(unusable)
}

/// What a handshake has shown of the other side. The verifier has looked at its certificate already.
pub fn peer(connection: &ServerConnection) -> Peer {
    let certificate = connection.peer_certificates().and_then(|chain| chain.first());
    let names = certificate.and_then(|certificate| {
        let read = webpki::EndEntityCert::try_from(certificate).ok()?;
        Some(read.valid_dns_names().map(str::to_owned).collect())
    });
    Peer { is_encrypted: true, names }
}

fn unusable(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Input, "these TLS settings of the door cannot be used")
        .caused_by(cause)
        .with_advice(
            "`cert_file` holds the certificate with its chain, `key_file` its key, both in PEM",
        )
}
