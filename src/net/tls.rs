//! How outgoing connections are encrypted and whom they trust, and certificates from files. Knows no protocol.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};

/// How much of the other side's identity is asked for, with the names that MySQL's clients use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Disabled,
    /// Encrypted if the other side can; nobody is verified.
    #[default]
    Preferred,
    /// Encrypted or not at all; nobody is verified.
    Required,
    /// The certificate must come from a trusted authority, whatever name it bears.
    VerifyCa,
    /// The certificate must come from a trusted authority and bear the host's name.
    VerifyIdentity,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub mode: Mode,
    /// PEM with the trusted authorities; without it those of the operating system are trusted.
    pub ca_file: Option<PathBuf>,
    /// PEM with our certificate (and its chain), where the other side asks for one; needs `key_file`.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

/// The client side's settings. Reads files: call it where blocking is allowed.
///
/// [`Mode::Disabled`] gives the settings of [`Mode::Required`]: whether to encrypt at all is the caller's to see.
pub fn client_config(config: &Config) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match config.mode {
        Mode::Disabled | Mode::Preferred | Mode::Required => {
            Arc::new(AnyCertificate(provider.clone()))
        }
        Mode::VerifyCa => Arc::new(AnyName(authorities(config, &provider)?)),
        Mode::VerifyIdentity => authorities(config, &provider)?,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let settings = match (&config.cert_file, &config.key_file) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|cause| unreadable("private key", key, cause))?;
            builder.with_client_auth_cert(chain, key).map_err(unusable)?
        }
        _ => {
            return Err(Error::input("one of `cert_file` and `key_file` is missing")
                .with_advice("set both for a client certificate, or none"));
        }
    };
    Ok(Arc::new(settings))
}

fn authorities(
    config: &Config,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>> {
    let Some(file) = &config.ca_file else {
        let verifier =
            rustls_platform_verifier::Verifier::new(provider.clone()).map_err(unusable)?;
        return Ok(Arc::new(verifier));
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(unusable)?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(unusable)?;
    Ok(verifier)
}

/// All of a PEM file; at least one.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file)
        .map_err(|cause| unreadable("certificates", file, cause))?
        .collect();
    let found = found.map_err(|cause| unreadable("certificates", file, cause))?;
    if found.is_empty() {
        return Err(Error::input(format!("{} holds no certificate", file.display())));
    }
    Ok(found)
}

pub fn unreadable(what: &str, file: &Path, cause: rustls::pki_types::pem::Error) -> Error {
    Error::input(format!("cannot read {what} from {}", file.display())).caused_by(cause)
}

fn unusable(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Input, "these TLS settings cannot be used").caused_by(cause)
}

/// Encryption without identity: what `preferred` and `required` mean in MySQL's clients. The signature of the handshake
/// is still checked, so the connection is private to whoever holds the certificate's key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Everything is verified but the name: the name is looked at last, so an error about it means that all else is right.
#[derive(Debug)]
struct AnyName(Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(mode: Mode) -> Config {
        Config { mode, ..Config::default() }
    }

    #[test]
    fn modes_without_files_are_usable() {
        for mode in [Mode::Preferred, Mode::Required] {
            client_config(&config(mode)).expect("needs nothing");
        }
    }

    #[test]
    fn a_missing_authority_file_is_named() {
        let config = Config { ca_file: Some("/nowhere/ca.pem".into()), ..config(Mode::VerifyCa) };
        let error = client_config(&config).expect_err("there is no such file");
        assert!(error.report().contains("/nowhere/ca.pem"), "{}", error.report());
    }

    #[test]
    fn half_a_client_certificate_is_refused() {
        let config =
            Config { cert_file: Some("/nowhere/cert.pem".into()), ..config(Mode::Required) };
        assert!(client_config(&config).is_err());
    }

    #[test]
    fn modes_are_written_as_in_mysql() {
        let read: Config = serde_json::from_str(r#"{"mode": "verify_identity"}"#).expect("valid");
        assert_eq!(read.mode, Mode::VerifyIdentity);
        assert!(serde_json::from_str::<Config>(r#"{"modus": "required"}"#).is_err());
    }
}
