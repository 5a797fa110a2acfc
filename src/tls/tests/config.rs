use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Link, Made, Tested, made};
use crate::{
    Layer, TlsAcceptor, TlsConfigError, TlsConnector, TlsIdentity, TlsRoots,
    events::{Event, Publisher},
};

/// A directory that is removed with what is in it.
struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("framewire-tls-{}-{name}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn put(&self, name: &str, text: impl AsRef<[u8]>) -> std::io::Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn failure(certificate: &Path, key: &Path) -> String {
    TlsIdentity::from_pem_files(certificate, key).expect_err("it cannot be used").to_string()
}

#[test]
fn an_error_names_the_file_and_what_is_wrong_with_it() -> Tested {
    let dir = TempDir::new("errors")?;
    let (own, other) = (made(&["localhost"])?, made(&["localhost"])?);
    let certificate = dir.put("cert.pem", &own.certificate)?;
    let key = dir.put("key.pem", &own.key)?;
    TlsIdentity::from_pem_files(&certificate, &key)?;

    let cut = own.certificate.replace("-----END CERTIFICATE-----", "");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n\
                  -----END RSA PRIVATE KEY-----\n";
    let unusable = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let elsewhere = dir.0.join("none.pem");
    let put = |text: &str| dir.put("odd.pem", text);
    for (odd, said) in [
        (own.key.as_str(), "there is no certificate in it; it begins with: PRIVATE KEY"),
        ("", "there is no certificate in it; it is empty"),
        ("hello", "there is no certificate in it; it is not PEM"),
        ("\u{30}\u{2}\u{82}", "there is no certificate in it; it is not PEM"),
        (&cut, "not valid PEM: a section has no end"),
        ("-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n", "not valid PEM: base64: "),
        (broken, "certificate 1 in it cannot be used: "),
    ] {
        let error = failure(&put(odd)?, &key);
        assert!(error.contains("odd.pem: ") && error.contains(said), "{odd}: {error}");
    }
    let error = failure(&dir.put("odd.pem", [0x30, 0x82, 1, 0])?, &key);
    assert!(error.contains("it is DER, not PEM; `openssl x509"), "{error}");
    for (odd, said) in [
        (own.certificate.as_str(), "there is no private key in it; it begins with: CERTIFICATE"),
        (encrypted, "the private key is encrypted; decrypt it first"),
        (legacy, "the private key is encrypted; decrypt it first"),
        (unusable, "the private key cannot be used: "),
    ] {
        let error = failure(&certificate, &put(odd)?);
        assert!(error.contains("odd.pem: ") && error.contains(said), "{odd}: {error}");
    }
    let error = failure(&certificate, &put(&other.key)?);
    assert!(
        error.contains("odd.pem does not belong to the first certificate in ") && error.contains("cert.pem")
    );
    let error = failure(&elsewhere, &key);
    assert!(error.contains("none.pem: cannot be read: No such file"), "{error}");
    let error = TlsRoots::from_pem_file(&key).expect_err("a key is no root").to_string();
    assert!(error.contains("key.pem: there is no certificate in it"), "{error}");
    Ok(())
}

#[test]
fn a_certificate_and_its_key_may_be_in_one_file() -> Tested {
    let dir = TempDir::new("one")?;
    let own = made(&["localhost"])?;
    let both = dir.put("both.pem", format!("# ours\n{}{}", own.key, own.certificate))?;
    TlsIdentity::from_pem_files(&both, &both)?;
    Ok(())
}

/// Which certificate a client gets that asks for a name.
fn shown(acceptor: &TlsAcceptor, name: &str) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let gullible = TlsConnector::dangerous_builder_without_verification().build()?;
    let mut link = Link::new(acceptor, &gullible, name)?;
    link.shake(usize::MAX)?;
    let info = link.client.layer().tls().ok_or("open")?;
    Ok(info.peer_certificates().next().ok_or("a certificate")?.to_vec())
}

fn der(made: &Made) -> Result<Vec<u8>, TlsConfigError> {
    Ok(made.identity()?.key.cert[0].to_vec())
}

#[test]
fn a_client_gets_the_certificate_for_the_name_that_it_asks_for() -> Tested {
    let (default, exact) = (made(&["default.example"])?, made(&["mail.b.example"])?);
    let wild = made(&["*.b.example"])?;
    let acceptor = TlsAcceptor::builder(default.identity()?)
        .identity_for(["mail.b.example"], exact.identity()?)
        .identity_for(["*.B.example"], wild.identity()?)
        .build()?;
    for (name, expected) in [
        ("default.example", &default),
        ("mail.b.example", &exact),
        ("MAIL.b.example", &exact),
        ("www.b.example", &wild),
        ("a.www.b.example", &default),
        ("b.example", &default),
        ("192.0.2.1", &default),
    ] {
        assert_eq!(shown(&acceptor, name)?, der(expected)?, "{name}");
    }
    for name in ["c.example", "*.c.example", "*.mail.b.example", "a b", ""] {
        let wrong = TlsAcceptor::builder(default.identity()?).identity_for([name], wild.identity()?).build();
        assert!(matches!(wrong, Err(TlsConfigError::WrongName { .. })), "{name}: {wrong:?}");
    }
    Ok(())
}

#[test]
fn new_handshakes_get_what_the_files_hold_and_broken_files_change_nothing() -> Tested {
    let dir = TempDir::new("reload")?;
    let (old, new) = (made(&["localhost"])?, made(&["localhost"])?);
    let certificate = dir.put("cert.pem", &old.certificate)?;
    let key = dir.put("key.pem", &old.key)?;
    let acceptor = TlsAcceptor::new(TlsIdentity::from_pem_files(&certificate, &key)?)?;
    let (reloader, publisher) = (acceptor.reloader(), Publisher::default());
    acceptor.report_to(publisher.hub());
    let events = crate::events::Events::new(10, vec![publisher.hub().clone()]);

    let mut before = Link::new(&acceptor, &TlsConnector::new(old.roots()?)?, "localhost")?;
    before.shake(usize::MAX)?;
    dir.put("cert.pem", &new.certificate)?;
    let error = reloader.reload().expect_err("the key is still the old one");
    assert!(matches!(error, TlsConfigError::KeyMismatch { .. }), "{error}");
    assert_eq!(shown(&acceptor, "localhost")?, der(&old)?);
    dir.put("key.pem", &new.key)?;
    reloader.reload()?;
    assert_eq!(shown(&acceptor, "localhost")?, der(&new)?);
    dir.put("key.pem", "")?;
    assert!(matches!(reloader.reload(), Err(TlsConfigError::NoKey { .. })));
    assert_eq!(shown(&acceptor, "localhost")?, der(&new)?);

    // What was open before lives on.
    before.client.send(b"still there")?;
    assert_eq!(super::carry(&mut before.client, &mut before.server, 1)?, b"still there");
    drop(publisher);
    let told: Vec<bool> = events
        .iter()
        .map(|event| match event {
            Event::TlsReloaded { error } => error.is_none(),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(told, [false, true, false]);
    Ok(())
}
