//! A server that speaks TLS only, with a certificate that nobody knows but its own authority.

use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::folder::Folder;
use super::server::{Plan, TestRedis, arguments};

/// Who signs, and for whom: `localhost` and 127.0.0.1.
const EXTENSIONS: &str = "\
[req]
distinguished_name = subject
[subject]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1, DNS:localhost
";

/// A [`TestRedis`] behind TLS: all that one can do with that, one can do with this.
pub struct TestTls {
    server: TestRedis,
    certificates: Folder,
}

impl TestTls {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With these words added to its command line.
    pub fn with(options: &[&str]) -> Self {
        let certificates = Folder::new();
        make_certificates(&certificates);
        let plan = Plan {
            tls: Some(Arc::new(client(&certificates))),
            ..Plan::default()
        };
        let file = |name| certificates.file(name);
        let (ca, certificate, key) = (file("ca.pem"), file("server.pem"), file("server.key"));
        let server = TestRedis::launch_as(plan, |folder, port| {
            let port = port.to_string();
            let mut words = vec![
                "--port",
                "0",
                "--tls-port",
                &port,
                "--tls-auth-clients",
                "no",
            ];
            words.extend(["--tls-ca-cert-file", &ca, "--tls-cert-file", &certificate]);
            words.extend(["--tls-key-file", &key]);
            words.extend(options);
            arguments(folder, 0, &words)
        });
        Self {
            server,
            certificates,
        }
    }

    /// The authority's certificate in PEM: who trusts it, trusts the server.
    pub fn ca_path(&self) -> PathBuf {
        self.certificates.path().join("ca.pem")
    }
}

impl Deref for TestTls {
    type Target = TestRedis;

    fn deref(&self) -> &TestRedis {
        &self.server
    }
}

/// An authority's `ca.pem`, and a server's `server.pem` and `server.key`.
fn make_certificates(folder: &Folder) {
    std::fs::write(folder.file("extensions"), EXTENSIONS).expect("a file");
    let steps = [
        "req -x509 -config extensions -extensions authority -subj /CN=authority -days 30 -nodes \
         -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -keyout ca.key -out ca.pem",
        "req -new -config extensions -subj /CN=server -nodes \
         -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
         -extfile extensions -extensions server -out server.pem",
    ];
    for step in steps {
        let done = Command::new("openssl")
            .args(step.split_whitespace())
            .current_dir(folder.path())
            .output();
        let Output { status, stderr, .. } = done.unwrap_or_else(|error| {
            panic!(
                "openssl does not start ({error}). It makes the certificates of these tests; on \
                 Debian or Ubuntu `apt-get install openssl` installs it."
            )
        });
        assert!(
            status.success(),
            "openssl {step}:\n{}",
            String::from_utf8_lossy(&stderr)
        );
    }
}

/// A client that trusts this authority alone.
fn client(folder: &Folder) -> ClientConfig {
    let authority = CertificateDer::from_pem_file(folder.file("ca.pem"));
    let mut roots = RootCertStore::empty();
    let authority = authority.expect("a certificate");
    roots.add(authority).expect("an authority's");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
