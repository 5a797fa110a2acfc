use std::sync::Arc;

use bytes::BytesMut;
use rustls::{
    Connection, ServerConfig, ServerConnection,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{Link, Tested, VERSIONS, carry, layer::Start, made};
use crate::{
    CloseReason, Layer, LayerError, Sniff, Sniffed, TlsAcceptor, TlsConnector, TlsError, TlsVersion,
    testing::LayerDriver,
};

/// How many bytes a record of TLS 1.3 has beside its plain bytes: the header, the real kind, the tag.
const OVERHEAD: usize = RECORD_HEADER + 1 + 16;
const RECORD_HEADER: usize = 5;

/// What a layer may count as held by rustls: the longest message of a handshake.
const MOST_COUNTED: usize = 64 * 1024;

/// The lengths of what is in the records.
fn records(mut wire: &[u8]) -> Vec<usize> {
    let mut lens = Vec::new();
    while let [_, _, _, high, low, ..] = wire {
        let end = 5 + usize::from(u16::from_be_bytes([*high, *low]));
        lens.push(end - OVERHEAD);
        wire = &wire[end..];
    }
    assert_eq!(wire, b"");
    lens
}

#[test]
fn bytes_come_through_in_both_directions_however_they_are_cut() -> Tested {
    let own = made(&["localhost"])?;
    let (acceptor, connector) = (TlsAcceptor::new(own.identity()?)?, TlsConnector::new(own.roots()?)?);
    let long: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
    for piece in [1, 2, 5, 999, 4096, 16_384, 70_000, usize::MAX] {
        let mut link = Link::new(&acceptor, &connector, "localhost")?;
        link.shake(piece)?;
        for plain in [&b"hello"[..], &long, b"", &long[..16_384], b"!"] {
            link.client.send(plain)?;
            assert_eq!(carry(&mut link.client, &mut link.server, piece)?, plain);
            link.server.send(plain)?;
            assert_eq!(carry(&mut link.server, &mut link.client, piece)?, plain);
        }
        assert_eq!((link.server.layer().buffered(), link.client.layer().buffered()), (0, 0));
    }
    Ok(())
}

#[test]
fn a_batch_is_sent_in_as_few_records_as_it_fits_in() -> Tested {
    let own = made(&["localhost"])?;
    let (acceptor, connector) = (TlsAcceptor::new(own.identity()?)?, TlsConnector::new(own.roots()?)?);
    for (parts, expected) in [
        (&[1_usize, 2, 3][..], &[6_usize][..]),
        (&[16_384], &[16_384]),
        (&[16_385], &[16_384, 1]),
        (&[10_000, 10_000, 40_000], &[16_384, 16_384, 16_384, 10_848]),
        (&[16_383, 1], &[16_384]),
        (&[], &[]),
    ] {
        let mut server = acceptor.first_layer();
        let mut link = Link::new(&acceptor, &connector, "localhost")?;
        link.shake(usize::MAX)?;
        std::mem::swap(&mut server, &mut link.server.layer);
        let mut wire = BytesMut::new();
        for len in parts {
            server.send(&vec![7; *len], &mut wire)?;
        }
        server.flush(&mut wire)?;
        assert_eq!(records(&wire), expected, "{parts:?}");
        assert_eq!(server.buffered(), 0);
        assert_eq!(link.client.receive(&wire)?, vec![7; parts.iter().sum()]);
    }
    Ok(())
}

#[test]
fn what_was_agreed_on_is_known_on_both_sides() -> Tested {
    let (own, client) = (made(&["a.example", "*.b.example"])?, made(&["client"])?);
    let acceptor = TlsAcceptor::builder(own.identity()?)
        .alpn(["chat/2", "chat/1"])
        .request_client_certificates(client.roots()?)
        .build()?;
    let connector = TlsConnector::builder(own.roots()?).alpn(["chat/1", "other"]);
    let mut with =
        Link::new(&acceptor, &connector.clone().identity(client.identity()?).build()?, "X.b.example")?;
    assert!(with.server.layer().tls().is_none(), "there was no handshake yet");
    with.shake(usize::MAX)?;
    for side in [&with.server, &with.client] {
        let info = side.layer().tls().ok_or("open")?;
        assert_eq!(info.version(), TlsVersion::Tls13);
        assert_eq!(info.cipher_suite(), "TLS13_AES_256_GCM_SHA384");
        assert_eq!(info.alpn(), Some(&b"chat/1"[..]));
        assert!(info.server_name().is_some_and(|name| name.eq_ignore_ascii_case("x.b.example")));
        assert_eq!(info.peer_certificates().count(), 1);
        assert!(!info.is_resumed());
    }
    let mut without = Link::new(&acceptor, &connector.build()?, "a.example")?;
    without.shake(usize::MAX)?;
    let info = without.server.layer().tls().ok_or("open")?;
    assert_eq!((info.server_name(), info.peer_certificates().count()), (Some("a.example"), 0));
    Ok(())
}

#[test]
fn a_client_resumes_its_session_until_the_certificates_are_reloaded() -> Tested {
    let own = made(&["localhost"])?;
    let (acceptor, connector) = (TlsAcceptor::new(own.identity()?)?, TlsConnector::new(own.roots()?)?);
    for expected in [false, true, true, false, true] {
        if !expected {
            acceptor.reloader().reload()?;
        }
        let mut link = Link::new(&acceptor, &connector, "localhost")?;
        link.shake(usize::MAX)?;
        let resumed =
            [&link.server, &link.client].map(|side| side.layer().tls().is_some_and(|tls| tls.is_resumed()));
        assert_eq!(resumed, [expected; 2]);
    }
    Ok(())
}

#[test]
fn an_end_without_a_goodbye_is_a_cut_wherever_it_comes() -> Tested {
    let own = made(&["localhost"])?;
    let (acceptor, connector) = (TlsAcceptor::new(own.identity()?)?, TlsConnector::new(own.roots()?)?);
    let mut link = Link::new(&acceptor, &connector, "localhost")?;
    let mut cuts = 0;
    // Each piece of the client's side of a session, one after the other; the last is its goodbye.
    for flight in 0..4 {
        match flight {
            2 => link.client.send(&[3; 300])?,
            3 => link.client.end()?,
            _ => {}
        }
        for byte in link.client.take_wire() {
            let ended = link.server.receive_end();
            assert!(matches!(ended, Err(LayerError::Truncated { .. })), "after {cuts} bytes: {ended:?}");
            link.server.receive(&[byte])?;
            cuts += 1;
        }
        carry(&mut link.server, &mut link.client, usize::MAX)?;
    }
    assert!(cuts > 500, "{cuts}");
    assert!(link.server.has_ended());
    link.server.receive_end()?;
    Ok(())
}

#[test]
fn a_side_that_has_ended_still_receives() -> Tested {
    let mut link = Link::open()?;
    link.client.send(b"last")?;
    link.client.end()?;
    assert_eq!(carry(&mut link.client, &mut link.server, 1)?, b"last");
    assert!(link.server.has_ended() && !link.client.has_ended());
    link.server.send(b"reply")?;
    link.server.end()?;
    assert_eq!(carry(&mut link.server, &mut link.client, usize::MAX)?, b"reply");
    assert!(link.client.has_ended());
    Ok(())
}

/// What a server says to the first bytes of a peer.
fn refusal(driver: Result<LayerDriver<super::Tls>, LayerError>, wire: &[u8]) -> (LayerError, Vec<u8>) {
    let mut driver = driver.expect("it waits for the peer");
    let error = driver.receive(wire).expect_err("this is no TLS");
    (error, driver.take_wire())
}

#[test]
fn clear_text_is_called_what_it_is_and_answered_with_an_alert() -> Tested {
    let acceptor = TlsAcceptor::new(made(&["localhost"])?.identity()?)?;
    for wire in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\0\0\x05hello", b"\x16hello", b"\x80\x2e\x01\x03\x01"] {
        let (error, reply) = refusal(LayerDriver::new(acceptor.first_layer()), wire);
        let reason = CloseReason::Layer(error);
        assert!(matches!(TlsError::of(&reason), Some(TlsError::NotTls(_))), "{reason:?}");
        assert_eq!(reply, [0x15, 3, 3, 0, 2, 2, 10]);
    }
    let (error, _) = refusal(LayerDriver::new(acceptor.first_layer()), b"GET / HTTP/1.1\r\n\r\n");
    assert!(error.to_string().ends_with("(this looks like an HTTP request)"), "{error}");
    // The second byte comes later.
    let mut late = LayerDriver::new(acceptor.first_layer())?;
    assert_eq!(late.receive(&[0x16])?, b"");
    assert!(late.receive(b"hello").is_err());
    Ok(())
}

#[test]
fn clear_text_behind_the_switch_is_refused_and_a_hello_is_not() -> Tested {
    let own = made(&["localhost"])?;
    let (acceptor, connector) = (TlsAcceptor::new(own.identity()?)?, TlsConnector::new(own.roots()?)?);
    let first_call = |wire: &[u8]| {
        let (mut plain, mut out) = (Vec::new(), BytesMut::new());
        let mut asked = crate::layer::LayerRequests::default();
        let received =
            acceptor.layer().received(wire, &mut crate::LayerIo::new(&mut plain, &mut out, &mut asked, 1024));
        assert_eq!(plain, b"");
        received
    };
    let error = first_call(b"MAIL FROM:<mallory@example.com>\r\n").expect_err("clear text");
    assert!(matches!(TlsError::of(&error), Some(TlsError::ClearTextBehindSwitch(_))), "{error}");
    let hello = LayerDriver::new(connector.layer("localhost"))?.take_wire();
    assert_eq!(first_call(&hello)?, hello.len());
    Ok(())
}

#[test]
fn a_server_is_believed_only_with_a_certificate_for_its_name_from_a_known_root() -> Tested {
    let (own, other) = (made(&["localhost"])?, made(&["localhost"])?);
    let acceptor = TlsAcceptor::new(own.identity()?)?;
    let fails = |connector: &TlsConnector, name: &str| -> Result<String, LayerError> {
        let mut link = Link::new(&acceptor, connector, name)?;
        carry(&mut link.client, &mut link.server, usize::MAX)?;
        let error = carry(&mut link.server, &mut link.client, usize::MAX).expect_err("not this server");
        // The server is told why, too.
        let told = carry(&mut link.client, &mut link.server, usize::MAX).expect_err("an alert");
        assert!(told.to_string().contains("alert"), "{told}");
        Ok(error.to_string())
    };
    let error = fails(&TlsConnector::new(own.roots()?)?, "elsewhere")?;
    assert!(error.contains("not valid for name"), "{error}");
    let error = fails(&TlsConnector::new(other.roots()?)?, "localhost")?;
    assert!(error.contains("certificate"), "{error}");
    // Unless all are.
    let gullible = TlsConnector::dangerous_builder_without_verification().build()?;
    Link::new(&acceptor, &gullible, "elsewhere")?.shake(usize::MAX)?;
    for name in ["localhost:7000", "", "a b"] {
        let error = LayerDriver::new(gullible.layer(name)).map(drop).expect_err("no name");
        assert!(matches!(TlsError::of(&error), Some(TlsError::ServerName(_))), "{name}: {error}");
    }
    Ok(())
}

#[test]
fn clients_are_served_with_the_certificates_that_are_asked_for() -> Tested {
    let (own, known, stranger) = (made(&["localhost"])?, made(&["known"])?, made(&["stranger"])?);
    let required =
        TlsAcceptor::builder(own.identity()?).require_client_certificates(known.roots()?).build()?;
    let optional =
        TlsAcceptor::builder(own.identity()?).request_client_certificates(known.roots()?).build()?;
    let connector = || own.roots().map(TlsConnector::builder);
    let (with, without) = (connector()?.identity(known.identity()?).build()?, connector()?.build()?);
    let strange = connector()?.identity(stranger.identity()?).build()?;
    for (acceptor, connector, is_served) in [
        (&required, &with, true),
        (&required, &without, false),
        (&required, &strange, false),
        (&optional, &with, true),
        (&optional, &without, true),
        (&optional, &strange, false),
    ] {
        let mut link = Link::new(acceptor, connector, "localhost")?;
        carry(&mut link.client, &mut link.server, usize::MAX)?;
        carry(&mut link.server, &mut link.client, usize::MAX)?;
        let outcome = carry(&mut link.client, &mut link.server, usize::MAX);
        assert_eq!((outcome.is_ok(), link.server.is_open()), (is_served, is_served), "{outcome:?}");
    }
    Ok(())
}

#[test]
fn what_was_agreed_on_is_known_also_where_tls_was_told_apart_from_something_else() -> Tested {
    let own = made(&["localhost"])?;
    let (acceptor, connector) = (TlsAcceptor::new(own.identity()?)?, TlsConnector::new(own.roots()?)?);
    let sniff = Sniff::new().when(|first| Sniffed::prefix(first, &[0x16]), move || acceptor.layer());
    let mut server = LayerDriver::new(sniff.layer())?;
    let mut client = LayerDriver::new(connector.first_layer("localhost"))?;
    assert!(server.layer().tls().is_none());
    for _ in 0..10 {
        carry(&mut client, &mut server, usize::MAX)?;
        carry(&mut server, &mut client, usize::MAX)?;
    }
    assert!(server.is_open() && client.is_open());
    assert_eq!(server.layer().tls().map(|tls| tls.version()), Some(TlsVersion::Tls13));
    Ok(())
}

/// A client of a server that sends so many tickets, in records of `fragment` plain bytes. Returns both, and what the
/// server has sent last.
fn with_tickets(
    tickets: usize,
    fragment: Option<usize>,
) -> Result<(Link, Vec<u8>), Box<dyn std::error::Error>> {
    let own = made(&["localhost"])?;
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes())?;
    let certificate = CertificateDer::from_pem_slice(own.certificate.as_bytes())?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(VERSIONS)?.with_no_client_auth();
    let mut config = builder.with_single_cert(vec![certificate], key)?;
    config.send_tls13_tickets = tickets;
    config.max_fragment_size = fragment.map(|plain| RECORD_HEADER + plain);
    let server = ServerConnection::new(config.into()).map(Connection::from).map_err(TlsError::Protocol);
    let connector = TlsConnector::new(own.roots()?)?;
    let mut link = Link {
        server: LayerDriver::new(super::Tls::new(server, None, Start::First))?,
        client: LayerDriver::new(connector.first_layer("localhost"))?,
    };
    carry(&mut link.client, &mut link.server, usize::MAX)?;
    carry(&mut link.server, &mut link.client, usize::MAX)?;
    carry(&mut link.client, &mut link.server, usize::MAX)?;
    let last = link.server.take_wire();
    Ok((link, last))
}

#[test]
fn tickets_without_end_do_not_count_as_held() -> Tested {
    const TICKETS: usize = 2_000;
    let (_, one) = with_tickets(1, None)?;
    let [len] = records(&one)[..] else { return Err("one ticket is not one record".into()) };
    let (mut link, all) = with_tickets(TICKETS, Some(len))?;
    assert_eq!(records(&all), [len; TICKETS]);
    assert!(all.len() > 2 * MOST_COUNTED, "there are only {} bytes", all.len());
    assert_eq!(link.client.receive(&all)?, b"");
    assert!(link.client.layer().buffered() <= MOST_COUNTED, "{:?}", link.client.layer());
    link.server.send(b"hello")?;
    assert_eq!(carry(&mut link.server, &mut link.client, usize::MAX)?, b"hello");
    assert_eq!(link.client.layer().buffered(), 0);
    Ok(())
}
