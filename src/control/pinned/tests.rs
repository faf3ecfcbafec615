use std::time::Duration;

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData};
use time::OffsetDateTime;

use super::*;

#[test]
fn a_pin_is_the_hash_of_the_public_key_information() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();

    let found = pin(certificate.der()).unwrap();

    let hash = digest(&SHA256, &key.subject_public_key_info());
    assert_eq!(found, Pin::new(hash.as_ref().try_into().unwrap()));
}

#[test]
fn any_key_of_the_chain_that_was_checked_will_do() {
    let Chain { root, middle, leaf } = Chain::new();
    for pinned in [&root, &middle, &leaf] {
        let pins = [pin(pinned.der()).unwrap(), Pin::new([7; 32])].into_iter().collect();

        assert_eq!(check(&root, pins, &leaf, &[&middle]), Ok(()));
    }
}

#[test]
fn no_pinned_key_is_told_with_the_one_that_was_shown() {
    let Chain { root, middle, leaf } = Chain::new();

    let error = check(&root, [Pin::new([7; 32])].into_iter().collect(), &leaf, &[&middle]);

    assert_eq!(error, Err(Some(NotPinned(pin(leaf.der()).unwrap()))));
}

#[test]
fn a_pinned_authority_that_only_comes_along_does_not_count() {
    let (Chain { root, middle, leaf }, stranger) = (Chain::new(), Chain::new());

    let pins: Pins = [pin(stranger.middle.der()).unwrap()].into_iter().collect();
    let error = check(&root, pins, &leaf, &[&middle, &stranger.middle]);

    assert_eq!(error, Err(Some(NotPinned(pin(leaf.der()).unwrap()))));
}

#[test]
fn a_pinned_key_that_nobody_signed_does_not_count() {
    let (Chain { middle, leaf, .. }, stranger) = (Chain::new(), Chain::new());

    let pins: Pins = [pin(leaf.der()).unwrap()].into_iter().collect();

    assert_eq!(check(&stranger.root, pins, &leaf, &[&middle]), Err(None));
}

/// Checks a chain with `root` as the only authority; `Err(None)` is another failure than the pin's.
fn check(root: &Certificate, pins: Pins, leaf: &Certificate, sent: &[&Certificate]) -> Result<(), Option<NotPinned>> {
    let known = [root.der().clone()];
    let mut roots = RootCertStore::empty();
    roots.add(known[0].clone()).unwrap();
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
    let verifier = Pinned::new(inner.build().unwrap(), pins, &known);
    let sent: Vec<_> = sent.iter().map(|sent| sent.der().clone()).collect();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW.cast_unsigned()));
    let name = ServerName::try_from("a.example").unwrap();
    match verifier.verify_server_cert(leaf.der(), &sent, &name, &[], now) {
        Ok(_) => Ok(()),
        Err(Error::InvalidCertificate(CertificateError::Other(other))) => Err(other.0.downcast_ref().copied()),
        Err(_) => Err(None),
    }
}

/// A server's certificate, and two authorities above it.
struct Chain {
    root: Certificate,
    middle: Certificate,
    leaf: Certificate,
}

impl Chain {
    fn new() -> Self {
        let keys = [(); 3].map(|()| KeyPair::generate().unwrap());
        let [root_key, middle_key, leaf_key] = &keys;
        let (root_params, middle_params) = (params("root", true), params("middle", true));
        let root = root_params.self_signed(root_key).unwrap();
        let middle = middle_params.signed_by(middle_key, &Issuer::from_params(&root_params, root_key)).unwrap();
        let leaf = params("leaf", false).signed_by(leaf_key, &Issuer::from_params(&middle_params, middle_key)).unwrap();
        Self { root, middle, leaf }
    }
}

fn params(name: &str, is_authority: bool) -> CertificateParams {
    let names = if is_authority { Vec::new() } else { vec!["a.example".to_owned()] };
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    if is_authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params.not_before = OffsetDateTime::from_unix_timestamp(NOW - 1000).unwrap();
    params.not_after = OffsetDateTime::from_unix_timestamp(NOW + 1000).unwrap();
    params
}

/// Seconds since 1970.
const NOW: i64 = 1_800_000_000;
