//! Encrypted connections: whose certificates are trusted.
//!
//! Without a certificate of one's own these are Mozilla's roots, compiled in. A server's certificate and its
//! name are always checked; there is no way to turn that off.

use std::path::Path;

use redis::ConnectionAddr;

use crate::error::ConfigError;

/// What connections with TLS need besides the address.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// An address with the trusted roots in it: redis-rs has no name for these alone.
    pattern: ConnectionAddr,
}

impl Tls {
    /// Trusts the certificates in the PEM file `ca_certificate` and no others, or the built-in roots where
    /// there is none. `field` is named in faults.
    ///
    /// rustls takes its cryptography from one provider for the whole process, and redis-rs panics while
    /// connecting where there is none or where two are compiled in and neither is chosen. So this installs
    /// ring as that provider unless the process has chosen one before.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or holds no certificate.
    #[cfg(feature = "redis-tls")]
    pub(crate) fn new(field: &str, ca_certificate: Option<&Path>) -> Result<Self, ConfigError> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // An error means that another thread was faster: there is one, which is all we need.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let pattern = address("", 0);
        let Some(path) = ca_certificate else {
            return Ok(Self { pattern });
        };
        let fault = |words: String| ConfigError::one(field, path.display(), words);
        let root_cert = read_certificates(path).map_err(fault)?;
        let certificates = redis::TlsCertificates {
            client_tls: None,
            root_cert: Some(root_cert),
        };
        let client = redis::Client::build_with_tls(pattern, certificates)
            .map_err(|error| fault(format!("holds a broken certificate: {error}")))?;
        let pattern = client.get_connection_info().addr().clone();
        Ok(Self { pattern })
    }

    /// Not without the feature `redis-tls`.
    ///
    /// # Errors
    ///
    /// Always.
    #[cfg(not(feature = "redis-tls"))]
    pub(crate) fn new(field: &str, _: Option<&Path>) -> Result<Self, ConfigError> {
        Err(ConfigError::one(field, "TLS", NEEDS_FEATURE))
    }

    /// This place, trusted by these roots.
    pub(crate) fn address(&self, host: &str, port: u16) -> ConnectionAddr {
        let mut address = self.pattern.clone();
        if let ConnectionAddr::TcpTls {
            host: its_host,
            port: its_port,
            ..
        } = &mut address
        {
            host.clone_into(its_host);
            *its_port = port;
        }
        address
    }
}

/// This place, trusted by the built-in roots.
pub(crate) fn address(host: &str, port: u16) -> ConnectionAddr {
    ConnectionAddr::TcpTls {
        host: host.to_owned(),
        port,
        insecure: false,
        tls_params: None,
    }
}

/// What a URL or a setting about TLS is told where TLS is not compiled in.
pub(crate) const NEEDS_FEATURE: &str = "needs the feature `redis-tls`";

/// The file's bytes, if there is at least one certificate among them: with none every handshake would
/// fail, and only then.
#[cfg(feature = "redis-tls")]
fn read_certificates(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read;

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(cannot)?;
    let mut pem = Vec::new();
    let limited = file.take(PEM_BYTES_MAX + 1).read_to_end(&mut pem);
    if limited.map_err(cannot)? as u64 > PEM_BYTES_MAX {
        return Err("is larger than 4 MiB".to_owned());
    }
    let mut certificates = CertificateDer::pem_slice_iter(&pem);
    match certificates.next() {
        Some(Ok(_)) => Ok(pem),
        _ => Err("holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)".to_owned()),
    }
}

/// A whole system's bundle of roots has some 250 KiB.
#[cfg(feature = "redis-tls")]
const PEM_BYTES_MAX: u64 = 4 << 20;

#[cfg(feature = "redis-tls")]
#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A self-signed root that nobody uses, valid until 2126.
    const ROOT: &str = "\
        -----BEGIN CERTIFICATE-----\n\
        MIIBeDCCAR+gAwIBAgIUSbKKQXNj/lZJaOqdtG6DyRBDxqQwCgYIKoZIzj0EAwIw\n\
        ETEPMA0GA1UEAwwGbm9ib2R5MCAXDTI2MTEyMTE1MTEwMVoYDzIxMjYxMDI4MTUx\n\
        MTAxWjARMQ8wDQYDVQQDDAZub2JvZHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC\n\
        AASbneIYcISZJNZILfOhTP5D3thlk4oiaPU5gfpdwpFP/IcQaQUApANZdXrOtWtg\n\
        JyV7HkWpnCKOjHA/ybX2aQQVo1MwUTAdBgNVHQ4EFgQU2lbh0cggw2TsleraZZ+l\n\
        wTbOSbEwHwYDVR0jBBgwFoAU2lbh0cggw2TsleraZZ+lwTbOSbEwDwYDVR0TAQH/\n\
        BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiAnawfdA1J3tparc4ZBWX+++/R2Eltv\n\
        e6IULNL9NSr/qwIgAvE0dxG0rnkkkAWT4B8MWhukIBCTIICP4x40cH1ZyC8=\n\
        -----END CERTIFICATE-----\n";

    fn file(name: &str, content: &[u8]) -> PathBuf {
        let path = std::env::temp_dir().join(format!("keep-tls-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        path
    }

    fn fault(path: &Path) -> String {
        let error = Tls::new("redis.ca_certificate", Some(path)).unwrap_err();
        let fault = error.faults()[0].clone();
        assert_eq!(fault.field, "redis.ca_certificate");
        assert_eq!(fault.value, path.display().to_string());
        fault.allowed
    }

    #[test]
    fn without_a_file_the_built_in_roots_are_trusted_and_a_provider_is_there() {
        let tls = Tls::new("redis.ca_certificate", None).unwrap();
        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
        let address = tls.address("h", 6380);
        assert_eq!(address, super::address("h", 6380));
        assert!(matches!(
            address,
            ConnectionAddr::TcpTls {
                tls_params: None,
                ..
            }
        ));
    }

    #[test]
    fn a_file_of_certificates_takes_the_place_of_the_built_in_roots() {
        let path = file("root", ROOT.as_bytes());
        let tls = Tls::new("redis.ca_certificate", Some(&path)).unwrap();
        std::fs::remove_file(path).unwrap();
        let address = tls.address("h", 6380);
        assert_eq!(address, super::address("h", 6380));
        assert!(matches!(
            address,
            ConnectionAddr::TcpTls {
                tls_params: Some(_),
                insecure: false,
                ..
            }
        ));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_the_reason() {
        let missing = PathBuf::from("/nonexistent/ca.pem");
        assert!(fault(&missing).starts_with("cannot be read: "));
        let cut = ROOT.replace("-----END", "");
        let garbled = ROOT.replace("MII", "MIJ");
        for (name, content, words) in [
            ("empty", "", "holds no certificate"),
            ("text", "not a certificate", "holds no certificate"),
            ("cut", &cut, "holds no certificate"),
            ("garbled", &garbled, "holds a broken certificate"),
        ] {
            let path = file(name, content.as_bytes());
            let allowed = fault(&path);
            std::fs::remove_file(path).unwrap();
            assert!(allowed.starts_with(words), "{name}: {allowed}");
        }
        let path = file("large", &vec![b'x'; (4 << 20) + 1]);
        assert_eq!(fault(&path), "is larger than 4 MiB");
        std::fs::remove_file(path).unwrap();
    }
}
