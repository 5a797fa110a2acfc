use std::{error::Error, net::SocketAddr, path::PathBuf};

use proptest::prelude::*;

use super::*;
use crate::testing::LayerDriver;

type Tested = Result<(), Box<dyn Error>>;

/// As on the wire.
fn encoded(header: &ProxyHeader) -> Vec<u8> {
    let mut out = BytesMut::new();
    header.encode(&mut out);
    out.to_vec()
}

fn received(wire: &[u8]) -> Result<Option<(ProxyHeader, usize)>, String> {
    parse(wire, MAX_HEADER).map_err(|error| error.to_string())
}

/// A header of version 2 with these bytes behind the signature.
fn binary(behind: &[u8]) -> Vec<u8> {
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], behind].concat()
}

/// TCP over IPv4 with these TLVs.
fn with_tlvs(tlvs: &[u8]) -> Vec<u8> {
    let len = u16::try_from(12 + tlvs.len()).expect("a test has few").to_be_bytes();
    binary(&[&[0x21, 0x11], &len[..], &[192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 1, 187], tlvs].concat())
}

fn ip(text: &str) -> Addr {
    Addr::Ip(text.parse().expect("an address"))
}

#[test]
fn lines_of_version_1_name_both_ends() {
    for (line, source, destination) in [
        ("PROXY TCP4 192.0.2.7 10.0.0.1 4711 443", "192.0.2.7:4711", "10.0.0.1:443"),
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535",
            "255.255.255.255:65535",
            "255.255.255.255:65535",
        ),
        ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0", "0.0.0.0:0", "0.0.0.0:0"),
        ("PROXY TCP6 2001:DB8::1 ::1 4711 443", "[2001:db8::1]:4711", "[::1]:443"),
        ("PROXY TCP6 ::ffff:10.0.0.1 ::1 1 2", "[::ffff:10.0.0.1]:1", "[::1]:2"),
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
        ),
    ] {
        let wire = format!("{line}\r\nhello");
        let header = ProxyHeader::v1(ip(source), ip(destination));
        assert_eq!(received(wire.as_bytes()), Ok(Some((header, line.len() + 2))), "{line}");
    }
    for line in [
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
        "PROXY UNKNOWN what ever\tit says\r\n",
        &format!("PROXY UNKNOWN {}\r\n", "f".repeat(107 - 16)),
    ] {
        let header = ProxyHeader::new(header::Version::One, None);
        assert_eq!(received(line.as_bytes()), Ok(Some((header, line.len()))), "{line}");
    }
}

#[test]
fn a_header_is_what_was_sent() -> Tested {
    let path = |len: usize| Addr::Unix(Some(PathBuf::from("/".repeat(len))));
    let (v4, v6) = (ip("192.0.2.7:4711"), ip("[2001:db8::1]:443"));
    let mapped = ip("[::ffff:192.0.2.7]:4711");
    for (source, destination, shown) in [
        (v4.clone(), ip("10.0.0.1:443"), Some((v4.clone(), ip("10.0.0.1:443")))),
        (v6.clone(), ip("[::]:0"), Some((v6.clone(), ip("[::]:0")))),
        (v4.clone(), v6.clone(), Some((mapped.clone(), v6.clone()))),
        (v6.clone(), v4.clone(), Some((v6, mapped))),
        (path(7), path(108), Some((path(7), path(108)))),
        (Addr::Unix(None), path(1), Some((Addr::Unix(None), path(1)))),
        (path(7), path(109), None),
        (v4.clone(), path(7), None),
    ] {
        let sent = ProxyHeader::v2(source.clone(), destination.clone())
            .with_tlv(ProxyHeader::ALPN, b"h2")?
            .with_tlv(ProxyHeader::NOOP, b"")?
            .with_tlv(0xe0, [7; 300])?;
        for sent in [sent.clone(), sent.with_checksum()] {
            let wire = encoded(&sent);
            let (header, used) = received(&wire)?.ok_or("it is incomplete")?;
            assert_eq!((used, header.version()), (wire.len(), 2));
            assert_eq!((header.source().cloned(), header.destination().cloned()), shown.clone().unzip());
            let tlvs: Vec<(u8, &[u8])> = vec![(1, b"h2"), (4, b""), (0xe0, &[7; 300])];
            // Without addresses, the block is to be ignored.
            assert_eq!(header.tlvs().collect::<Vec<_>>(), if shown.is_some() { tlvs } else { Vec::new() });
            assert_eq!(encoded(&header).len(), if shown.is_some() { wire.len() } else { FIXED });
        }
        let line = encoded(&ProxyHeader::v1(source, destination));
        let (header, used) = received(&line)?.ok_or("it is incomplete")?;
        let is_ip = shown.as_ref().is_some_and(|(source, _)| source.ip().is_some());
        assert_eq!((used, header.source().cloned()), (line.len(), shown.filter(|_| is_ip).unzip().0));
    }
    Ok(())
}

#[test]
fn the_line_of_a_mapped_address_has_no_dots() {
    let header = ProxyHeader::v1(ip("192.0.2.7:1"), ip("[::1]:2"));
    assert_eq!(encoded(&header), b"PROXY TCP6 ::ffff:c000:207 ::1 1 2\r\n");
}

#[test]
fn facts_are_found_by_their_kinds() -> Tested {
    let header = ProxyHeader::v2(ip("192.0.2.7:1"), ip("10.0.0.1:2"))
        .with_tlv(ProxyHeader::ALPN, b"h2")?
        .with_tlv(ProxyHeader::AUTHORITY, "b\u{fc}cher.example")?
        .with_tlv(ProxyHeader::UNIQUE_ID, [9; 128])?
        .with_tlv(ProxyHeader::SSL, [1, 0, 0, 0, 0])?
        .with_tlv(ProxyHeader::ALPN, b"http/1.1")?;
    let (header, _) = received(&encoded(&header))?.ok_or("it is incomplete")?;
    assert_eq!((header.alpn(), header.authority()), (Some(&b"h2"[..]), Some("b\u{fc}cher.example")));
    assert_eq!((header.unique_id(), header.ssl()), (Some(&[9; 128][..]), Some(&[1, 0, 0, 0, 0][..])));
    assert_eq!((header.tlv(ProxyHeader::NETNS), header.is_local()), (None, false));
    let nameless = ProxyHeader::v2(ip("192.0.2.7:1"), ip("10.0.0.1:2")).with_tlv(2, [0xff])?;
    assert_eq!(nameless.authority(), None);
    Ok(())
}

#[test]
fn what_no_header_can_hold_is_refused_when_it_is_made() {
    let (from, to) = (ip("192.0.2.7:1"), ip("10.0.0.1:2"));
    let v2 = ProxyHeader::v2(from.clone(), to.clone());
    for (made, said) in [
        (ProxyHeader::v1(from, to).with_tlv(ProxyHeader::ALPN, b"h2"), "version 1 has no TLVs"),
        (v2.clone().with_tlv(ProxyHeader::UNIQUE_ID, [0; 129]), "129 bytes is over the maximum of 128"),
        (v2.clone().with_tlv(0xe0, vec![0; 65_312]), "over the maximum of 65312"),
        (v2.clone().with_tlv(0x03, [0; 4]), "is added by `with_checksum`"),
    ] {
        let error = made.expect_err(said).to_string();
        assert!(error.contains(said), "{error}");
    }
    let longest = v2.with_tlv(0xe0, vec![0; 65_312 - 3]).map(ProxyHeader::with_checksum);
    let wire = encoded(&longest.expect("it fits"));
    assert!(parse(&wire, 65_551).is_ok_and(|parsed| parsed.is_some_and(|(_, used)| used == wire.len())));
}

#[test]
fn connections_of_the_proxy_itself_name_no_client() {
    let noise = [0xff; 12];
    for (name, wire, is_local) in [
        ("LOCAL", encoded(&ProxyHeader::local()), true),
        ("LOCAL with a block", binary(&[&[0x20, 0x11, 0, 12][..], &noise].concat()), true),
        ("LOCAL of an unknown family", binary(&[&[0x20, 0x99, 0, 12][..], &noise].concat()), true),
        ("unspecified", binary(&[0x21, 0x00, 0, 0]), false),
        ("unspecified with a block", binary(&[&[0x21, 0x00, 0, 12][..], &noise].concat()), false),
        ("unspecified protocol", binary(&[&[0x21, 0x10, 0, 12][..], &noise].concat()), false),
    ] {
        let Ok(Some((header, used))) = received(&wire) else { panic!("{name}: {:?}", received(&wire)) };
        assert_eq!((header.source(), header.is_local(), used), (None, is_local, wire.len()), "{name}");
        assert_eq!(header.tlvs().count(), 0, "{name}");
    }
}

/// Each is refused, with a reason that says what is wrong.
fn assert_faults(table: impl IntoIterator<Item = (Vec<u8>, &'static str)>) {
    for (wire, fault) in table {
        let shown = wire.escape_ascii().to_string();
        let error = match received(&wire) {
            Err(error) => error,
            Ok(parsed) => panic!("{shown} was taken: {parsed:?}"),
        };
        assert!(error.contains(fault), "{shown}: {error}");
    }
}

#[test]
fn malformed_lines_are_refused_by_their_fault() {
    let line = |text: &str| text.as_bytes().to_vec();
    assert_faults([
        // Neither version.
        (line("GET / HTTP/1.1\r\n"), "no PROXY header"),
        (line("\x16\x03\x01"), "no PROXY header"),
        (line("proxy TCP4"), "no PROXY header"),
        (line("PROXY\r\n"), "no PROXY header"),
        (line("PROXYTCP4"), "no PROXY header"),
        (line("\r\n\r\n\0\r\nQUIT\r"), "no PROXY header"),
        (line("\r\n\r\nX"), "no PROXY header"),
        // Of version 1.
        (line("PROXY \r\n"), "none of TCP4, TCP6 and UNKNOWN"),
        (line("PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n"), "none of TCP4, TCP6 and UNKNOWN"),
        (line("PROXY tcp4 1.1.1.1 2.2.2.2 1 2\r\n"), "none of TCP4, TCP6 and UNKNOWN"),
        (line("PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n"), "none of TCP4, TCP6 and UNKNOWN"),
        (line("PROXY UNKNOWNS\r\n"), "none of TCP4, TCP6 and UNKNOWN"),
        (line("PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n"), "none of TCP4, TCP6 and UNKNOWN"),
        (line("PROXY TCP4\r\n"), "lacks an address or a port"),
        (line("PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n"), "lacks an address or a port"),
        (line("PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n"), "more than two addresses and two ports"),
        (line("PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n"), "more than two addresses and two ports"),
        (line("PROXY TCP4 1.1.1.1  2.2.2.2 1\r\n"), "no IPv4 address"),
        (line("PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n"), "no IPv4 address"),
        (line("PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n"), "no IPv4 address"),
        (line("PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n"), "no IPv4 address"),
        (line("PROXY TCP4 1.1.1.1 ::1 1 2\r\n"), "no IPv4 address"),
        (line("PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n"), "no IPv6 address"),
        (line("PROXY TCP6 ::1 ::2::3 1 2\r\n"), "no IPv6 address"),
        (line("PROXY TCP6 fe80::1%lo ::2 1 2\r\n"), "no IPv6 address"),
        (line("PROXY TCP6 [::1] ::2 1 2\r\n"), "no IPv6 address"),
        (line("PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n"), "a port of a PROXY line"),
        (line("PROXY TCP4 1.1.1.1 2.2.2.2 1 -2\r\n"), "a port of a PROXY line"),
        (line("PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n"), "a port of a PROXY line"),
        (line("PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n"), "a port of a PROXY line"),
        (line("PROXY TCP4 1.1.1.1 2.2.2.2 1 \r\n"), "a port of a PROXY line"),
        (line("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n"), "does not end in CR and LF"),
        (line("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\rX"), "does not end in CR and LF"),
        (line("PROXY UNKNOWN\n\r\n"), "does not end in CR and LF"),
        (line(&format!("PROXY UNKNOWN {}", "f".repeat(93))), "longer than 107 bytes"),
        (line(&format!("PROXY UNKNOWN {}\r", "f".repeat(92))), "longer than 107 bytes"),
        (line(&format!("PROXY UNKNOWN {}\r\n", "f".repeat(92))), "longer than 107 bytes"),
        (b"PROXY TCP4 1.1.1.1\xff 2.2.2.2 1 2\r\n".to_vec(), "no ASCII"),
        (line("PROXY UNKNOWN \u{fc}\r\n"), "no ASCII"),
    ]);
}

#[test]
fn malformed_headers_of_version_2_are_refused_by_their_fault() {
    let summed = encoded(&ProxyHeader::v2(ip("192.0.2.7:1"), ip("10.0.0.1:2")).with_checksum());
    let flipped = |at: usize| {
        let mut wire = summed.clone();
        wire[at] ^= 1;
        wire
    };
    let twice = [&[0x03, 0, 4][..], &[0; 4], &[0x03, 0, 4], &[0; 4]].concat();
    assert_faults([
        (binary(&[0x11]), "not of version 2"),
        (binary(&[0x30]), "not of version 2"),
        (binary(&[0x22]), "neither LOCAL nor PROXY"),
        (binary(&[0x2f]), "neither LOCAL nor PROXY"),
        (binary(&[0x21, 0x41, 0, 0]), "unknown family or protocol"),
        (binary(&[0x21, 0x13, 0, 0]), "unknown family or protocol"),
        (binary(&[0x21, 0xff, 0, 0]), "unknown family or protocol"),
        (binary(&[0x21, 0x11, 0xff, 0xff]), "longer than the server takes"),
        (binary(&[0x20, 0x00, 0xff, 0xff]), "longer than the server takes"),
        (binary(&[0x21, 0x11, 0, 0]), "too short for its addresses"),
        (binary(&[&[0x21, 0x11, 0, 11][..], &[0; 11]].concat()), "too short for its addresses"),
        (binary(&[&[0x21, 0x22, 0, 35][..], &[0; 35]].concat()), "too short for its addresses"),
        (binary(&[&[0x21, 0x31, 0, 215][..], &[0; 215]].concat()), "too short for its addresses"),
        (with_tlvs(&[0x01]), "a TLV reaches beyond"),
        (with_tlvs(&[0x01, 0]), "a TLV reaches beyond"),
        (with_tlvs(&[0x01, 0, 1]), "a TLV reaches beyond"),
        (with_tlvs(&[0x04, 0, 0, 0x01, 0xff, 0xff, 1]), "a TLV reaches beyond"),
        (with_tlvs(&[&[0x05, 0, 129][..], &[0; 129]].concat()), "longer than 128 bytes"),
        (with_tlvs(&[0x03, 0, 3, 0, 0, 0]), "a checksum is not of 4 bytes"),
        (with_tlvs(&[0x03, 0, 4, 0, 0, 0, 0]), "the checksum of a PROXY header is wrong"),
        (flipped(16), "the checksum of a PROXY header is wrong"),
        (flipped(27), "the checksum of a PROXY header is wrong"),
        (flipped(summed.len() - 1), "the checksum of a PROXY header is wrong"),
        (with_tlvs(&twice), "the checksum of a PROXY header is wrong"),
    ]);
    // The first of two checksums is right, which counts the second as zeros.
    let mut wire = with_tlvs(&twice);
    let sum = crc32c::crc32c(wire.iter().copied()).to_be_bytes();
    wire[FIXED + 12 + 3..FIXED + 12 + 7].copy_from_slice(&sum);
    assert_faults([(wire, "a PROXY header has two checksums")]);
}

#[test]
fn a_header_that_cannot_become_one_is_refused_at_its_first_wrong_byte() {
    for (wire, wrong) in [
        (&b"PROXZ"[..], 5),
        (b"Q", 1),
        (b"\r\n\r\n\0\r\nQUIZ", 11),
        (b"\r\n\r\n\0\r\nQUIT\n\x31", 13),
        (b"PROXY TCP4 1.1.1.1\n", 19),
    ] {
        for len in 0..wrong {
            assert_eq!(received(&wire[..len]), Ok(None), "{len} bytes of {}", wire.escape_ascii());
        }
        assert!(received(&wire[..wrong]).is_err(), "{}", wire.escape_ascii());
    }
}

#[test]
fn a_header_is_taken_however_it_is_cut_and_what_follows_it_passes() -> Tested {
    let trusting = ProxyProtocol::trusting(["10.0.0.0/8"])?;
    let (client, proxy) = (ip("192.0.2.7:4711"), ip("10.0.0.1:5000"));
    let full =
        ProxyHeader::v2(client.clone(), proxy.clone()).with_tlv(ProxyHeader::ALPN, b"h2")?.with_checksum();
    for header in [ProxyHeader::v1(client, proxy.clone()), full, ProxyHeader::local()] {
        let wire = [&encoded(&header)[..], b"\0\0\0\x05hello"].concat();
        for cut in 0..=wire.len() {
            let mut driver = LayerDriver::new(trusting.receiver_from(proxy.clone()))?;
            let mut plain = driver.receive(&wire[..cut])?;
            plain.extend(driver.receive(&wire[cut..])?);
            assert!(driver.is_done() && plain == b"\0\0\0\x05hello", "{cut}: {plain:?}");
        }
        let mut driver = LayerDriver::new(trusting.receiver_from(proxy.clone()))?;
        let mut plain = Vec::new();
        for byte in wire.iter().take(wire.len() - 9) {
            plain.extend(driver.receive(&[*byte])?);
        }
        assert!(driver.is_done() && plain.is_empty() && driver.take_wire().is_empty());
    }
    Ok(())
}

#[test]
fn only_trusted_sources_may_say_who_they_are() -> Tested {
    let header = b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n";
    let trusting = ProxyProtocol::trusting(["10.0.0.0/8", "2001:db8::/32"])?;
    let refused = LayerDriver::new(trusting.receiver_from(ip("192.0.2.1:1"))).map(drop);
    let error = refused.expect_err("it is no proxy").to_string();
    assert!(error.starts_with("192.0.2.1:1 is no trusted proxy"), "{error}");
    let refused = LayerDriver::new(trusting.receiver_from(Addr::Unix(None))).map(drop);
    assert!(matches!(refused, Err(LayerError::Untrusted { .. })));

    let direct = trusting.clone().untrusted(Untrusted::Direct);
    assert!(LayerDriver::new(direct.receiver_from(ip("192.0.2.1:1")))?.is_done());
    let mut trusted = LayerDriver::new(direct.receiver_from(ip("[2001:db8::9]:1")))?;
    assert!(!trusted.is_done());
    trusted.receive(header)?;
    assert!(trusted.is_done());
    Ok(())
}

#[test]
fn a_proxy_that_leaves_within_its_header_is_truncated() -> Tested {
    let trusting = ProxyProtocol::trusting(["10.0.0.0/8"])?;
    let wire = with_tlvs(&[0x01, 0, 2, b'h', b'2']);
    for cut in 0..wire.len() {
        let mut driver = LayerDriver::new(trusting.receiver_from(ip("10.0.0.1:1")))?;
        driver.receive(&wire[..cut])?;
        assert!(matches!(driver.receive_end(), Err(LayerError::Truncated { .. })), "{cut}");
    }
    Ok(())
}

#[test]
fn a_longer_header_is_taken_if_the_server_says_so() -> Tested {
    let header =
        ProxyHeader::v2(ip("192.0.2.7:1"), ip("10.0.0.1:2")).with_tlv(ProxyHeader::SSL, [7; 5_000])?;
    let (wire, from) = (encoded(&header), ip("10.0.0.1:1"));
    let trusting = ProxyProtocol::trusting(["10.0.0.1"])?;
    let refused = LayerDriver::new(trusting.receiver_from(from.clone()))?.receive(&wire[..FIXED]);
    assert!(refused.is_err_and(|error| error.to_string().contains("longer than the server takes")));
    let mut driver = LayerDriver::new(trusting.max_header(wire.len()).receiver_from(from))?;
    assert_eq!(driver.receive(&wire)?, b"");
    assert!(driver.is_done());
    Ok(())
}

#[test]
fn a_header_is_sent_before_anything_else() -> Tested {
    let header = ProxyHeader::v1(ip("192.0.2.7:4711"), ip("10.0.0.1:443"));
    let mut driver = LayerDriver::new(HeaderSender(header))?;
    assert!(driver.is_done());
    assert_eq!(driver.take_wire(), b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n");
    Ok(())
}

fn socket_addr() -> impl Strategy<Value = Addr> {
    let v4 = (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port)));
    let v6 = (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port)));
    prop_oneof![v4, v6].prop_map(Addr::Ip)
}

proptest! {
    #[test]
    fn any_header_comes_back(
        source in socket_addr(),
        destination in socket_addr(),
        tlvs in proptest::collection::vec((0x06..=0xff_u8, proptest::collection::vec(any::<u8>(), 0..200)), 0..8),
        has_checksum in any::<bool>(),
    ) {
        let is_mixed = source.ip().map(|ip| ip.is_ipv4()) != destination.ip().map(|ip| ip.is_ipv4());
        let mut header = ProxyHeader::v2(source.clone(), destination.clone());
        for (kind, value) in &tlvs {
            header = header.with_tlv(*kind, value).expect("it fits");
        }
        if has_checksum {
            header = header.with_checksum();
        }
        for sent in [header, ProxyHeader::v1(source, destination)] {
            let wire = encoded(&sent);
            let (header, used) = received(&wire).expect("it is sound").expect("it is whole");
            prop_assert_eq!(used, wire.len());
            prop_assert!(is_mixed || header == sent);
            for len in 0..wire.len() {
                prop_assert_eq!(received(&wire[..len]), Ok(None));
            }
        }
    }

    #[test]
    fn no_bytes_do_harm(
        begin in prop_oneof![
            Just(Vec::new()), Just(b"PROXY ".to_vec()), Just(binary(&[])), Just(binary(&[0x21])),
            Just(binary(&[0x21, 0x11, 0, 40])), Just(b"PROXY TCP6 ".to_vec()),
        ],
        wire in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let wire = [begin, wire].concat();
        if let Ok(Some((header, used))) = received(&wire) {
            prop_assert!(used <= wire.len() && header.tlvs.len() <= used);
        }
    }
}
