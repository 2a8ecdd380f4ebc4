//! Whom the system trusts.

use std::fs;

use ureq::tls::{Certificate, PemItem, parse_pem};

/// Where distributions keep the certificates of authorities, in one file:
/// Debian, Fedora, openSUSE, Alpine.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The authorities that this system trusts; none if no file of them is found.
pub(super) fn of_system() -> Vec<Certificate<'static>> {
    let bundle = BUNDLES.iter().find_map(|path| fs::read(path).ok());
    let Some(bundle) = bundle else {
        tracing::warn!("no certificates of authorities are installed: no https server is trusted");
        return Vec::new();
    };
    parse_pem(&bundle)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect()
}
