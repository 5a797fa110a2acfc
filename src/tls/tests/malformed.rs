use proptest::prelude::*;

use super::{Link, Tested, made};
use crate::{Layer, LayerError, TlsAcceptor, TlsConnector, TlsError, testing::LayerDriver};

/// More than a layer may ever hold of a peer's bytes.
const MOST_HELD: usize = 200 * 1024;

/// Feeds a server, and checks what holds whatever comes. Returns how it ended.
fn feed(server: &mut LayerDriver<super::Tls>, wire: &[u8], piece: usize) -> Result<usize, LayerError> {
    let mut plain = 0;
    for piece in wire.chunks(piece) {
        plain += server.receive(piece)?.len();
        assert!(server.layer().buffered() < MOST_HELD);
    }
    Ok(plain)
}

/// A server whose certificate is made once.
fn acceptor() -> &'static (TlsAcceptor, TlsConnector) {
    static BOTH: std::sync::OnceLock<(TlsAcceptor, TlsConnector)> = std::sync::OnceLock::new();
    BOTH.get_or_init(|| {
        let own = made(&["localhost"]).expect("a certificate");
        let acceptor = TlsAcceptor::new(own.identity().expect("usable")).expect("usable");
        (acceptor, TlsConnector::new(own.roots().expect("usable")).expect("usable"))
    })
}

proptest! {
    #[test]
    fn whatever_comes_is_refused_or_waits_for_more(
        wire in proptest::collection::vec(any::<u8>(), 0..2_000),
        piece in 1_usize..500,
    ) {
        let mut server = LayerDriver::new(acceptor().0.first_layer()).expect("it waits");
        if let Ok(plain) = feed(&mut server, &wire, piece) {
            prop_assert_eq!(plain, 0);
            prop_assert!(!server.is_open());
        }
    }

    #[test]
    fn records_of_any_kind_and_content_are_refused_or_wait_for_more(
        records in proptest::collection::vec(
            (0x14_u8..0x19, proptest::collection::vec(any::<u8>(), 0..300)),
            1..40,
        ),
        piece in 1_usize..500,
    ) {
        let mut wire = Vec::new();
        for (kind, body) in records {
            wire.extend([kind, 3, 3]);
            wire.extend((body.len() as u16).to_be_bytes());
            wire.extend(body);
        }
        let mut server = LayerDriver::new(acceptor().0.first_layer()).expect("it waits");
        if let Ok(plain) = feed(&mut server, &wire, piece) {
            prop_assert_eq!(plain, 0);
            prop_assert!(!server.is_open());
        }
    }

    #[test]
    fn a_client_with_a_changed_byte_is_refused_or_not_understood(
        at in any::<proptest::sample::Index>(),
        flip in 1_u8..,
        flight in 0_usize..3,
        piece in 1_usize..500,
    ) {
        let (acceptor, connector) = acceptor();
        let mut link = Link::new(acceptor, connector, "localhost").expect("it begins");
        for number in 0..3 {
            if number == 2 {
                link.client.send(&[5; 1000]).expect("open");
            }
            let mut wire = link.client.take_wire();
            if number == flight {
                *at.get_mut(&mut wire) ^= flip;
                match feed(&mut link.server, &wire, piece) {
                    // A length may have become longer, and a hello may offer something else.
                    Ok(plain) => prop_assert!(plain == 0, "{plain} bytes were accepted"),
                    Err(error) => prop_assert!(TlsError::of(&error).is_some(), "{error:?}"),
                }
                return Ok(());
            }
            feed(&mut link.server, &wire, piece).expect("unchanged");
            let wire = link.server.take_wire();
            link.client.receive(&wire).expect("unchanged");
        }
    }
}

#[test]
fn a_record_that_is_changed_sent_twice_or_left_out_is_refused() -> Tested {
    for change in 0..3 {
        let mut link = Link::open()?;
        let mut records = Vec::new();
        for part in [b"one", b"two"] {
            link.client.send(part)?;
            records.push(link.client.take_wire());
        }
        let [first, second] = &mut records[..] else { return Err("two were sent".into()) };
        let wire = match change {
            0 => {
                first[20] ^= 1;
                first.clone()
            }
            1 => [first.clone(), first.clone()].concat(),
            _ => second.clone(),
        };
        let outcome = link.server.receive(&wire);
        assert!(outcome.as_ref().is_err_and(|error| TlsError::of(error).is_some()), "{outcome:?}");
        assert_ne!(link.server.take_wire(), b"", "an alert");
    }
    Ok(())
}

#[test]
fn a_handshake_without_end_is_refused_before_it_takes_much() -> Tested {
    let mut server = LayerDriver::new(acceptor().0.first_layer())?;
    // A hello that announces 16 MiB, in records of 100 bytes.
    let mut fed = 0;
    let outcome = (0..10_000).find_map(|number| {
        let mut record = vec![7; 105];
        record[..5].copy_from_slice(&[0x16, 3, 1, 0, 100]);
        if number == 0 {
            record[5..9].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
        }
        fed += record.len();
        server.receive(&record).err()
    });
    assert!(outcome.is_some() && fed < 140 * 1024, "{outcome:?} after {fed} bytes");
    assert!(server.layer().buffered() < MOST_HELD);
    Ok(())
}

#[test]
fn empty_records_without_end_are_refused() -> Tested {
    let mut link = Link::open()?;
    link.client.send(b"x")?;
    link.server.receive(&link.client.take_wire())?;
    let outcome = (0..1000).find_map(|_| link.server.receive(&[0x14, 3, 3, 0, 1, 1]).err());
    assert!(outcome.is_some());
    Ok(())
}
