//! Certificates that are known by a key as well as by whoever signed them.
//!
//! A server sends what it likes beside its own certificate, so a pinned authority counts only if the server's
//! certificate really leads to it: the chain is checked once more with that authority as the only one.

use std::{fmt, sync::Arc};

use ring::digest::{SHA256, digest};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring::default_provider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use crate::model::{Pin, Pins};

/// No certificate between the server and a trusted authority has a pinned key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no pinned key; the server's own is {0}")]
pub(super) struct NotPinned(pub(super) Pin);

/// Checks certificates as usual, and then for a pinned key.
pub(super) struct Pinned {
    inner: Arc<WebPkiServerVerifier>,
    pins: Pins,
    /// Trusted authorities that are pinned.
    roots: Vec<CertificateDer<'static>>,
}

impl Pinned {
    /// `inner` does the usual checks with `roots` as authorities.
    pub(super) fn new(inner: Arc<WebPkiServerVerifier>, pins: Pins, roots: &[CertificateDer<'static>]) -> Self {
        let is_pinned = |root: &&CertificateDer<'_>| pin(root).is_ok_and(|pin| pins.contains(pin));
        let roots = roots.iter().filter(is_pinned).cloned().collect();
        Self { inner, pins, roots }
    }

    /// Whether the certificate leads to a pinned authority.
    fn leads_to_pinned(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> bool {
        let is_pinned = |sent: &&CertificateDer<'_>| pin(sent).is_ok_and(|pin| self.pins.contains(pin));
        let sent = intermediates.iter().filter(is_pinned).map(|sent| sent.clone().into_owned());
        let mut anchors = RootCertStore::empty();
        let (found, _) = anchors.add_parsable_certificates(self.roots.iter().cloned().chain(sent));
        if found == 0 {
            return false;
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(anchors), Arc::new(default_provider())).build();
        verifier
            .is_ok_and(|verifier| verifier.verify_server_cert(end_entity, intermediates, server_name, &[], now).is_ok())
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let own = pin(end_entity)?;
        if self.pins.contains(own) || self.leads_to_pinned(end_entity, intermediates, server_name, now) {
            return Ok(verified);
        }
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(NotPinned(own))))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({:?})", self.pins)
    }
}

/// The pin of a certificate's key.
pub(super) fn pin(certificate: &CertificateDer<'_>) -> Result<Pin, Error> {
    let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
    let hash = digest(&SHA256, &key);
    Ok(Pin::new(hash.as_ref().try_into().expect("SHA-256 has 32 bytes")))
}

#[cfg(test)]
mod tests;
