//! Framings without a socket: each against the law, against a simple model, and against random damage.

mod separators;

use bytes::BytesMut;
use framewire::framing::LengthFieldBuilder;
use framewire::testing::{Collector, law};
use framewire::{
    ByteOrder, Decoded, Encode, EncodeError, FixedLength, FrameError, Framing, LengthField, LengthPrefix,
    Netstring, Oversize, Raw, Separator, UntilEof, VarintPrefix,
};
use proptest::collection::vec;
use proptest::prelude::*;

const MAX: usize = 40;

/// A framing that can be cloned behind a pointer, so that tests can walk over all of them.
trait AnyFraming: Framing {
    fn again(&self) -> Box<dyn AnyFraming>;
}

impl<F: Framing + Clone + 'static> AnyFraming for F {
    fn again(&self) -> Box<dyn AnyFraming> {
        Box::new(self.clone())
    }
}

struct Boxed(Box<dyn AnyFraming>);

impl Clone for Boxed {
    fn clone(&self) -> Self {
        Self(self.0.as_ref().again())
    }
}

impl Framing for Boxed {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        self.0.decode(buf)
    }
    fn decode_eof(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        self.0.decode_eof(buf)
    }
    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        self.0.encode(payload, out)
    }
    fn encode_with(
        &self,
        packet: &dyn Encode,
        scratch: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        self.0.encode_with(packet, scratch, out)
    }
    fn max_frame(&self) -> Option<usize> {
        self.0.max_frame()
    }
}

fn boxed(framing: impl Framing + Clone + 'static) -> Boxed {
    Boxed(Box::new(framing))
}

fn built(builder: LengthFieldBuilder) -> LengthField {
    builder.build().expect("these settings work").max(MAX + 8)
}

/// Those that carry any payload of up to [`MAX`] bytes and keep its boundaries.
fn transparent(oversize: Oversize) -> Vec<(&'static str, Boxed)> {
    use LengthPrefix as L;
    let prefixes = [
        L::u8(),
        L::u16_be(),
        L::u16_le(),
        L::u24_be(),
        L::u24_le(),
        L::u32_be(),
        L::u32_le(),
        L::u64_be(),
        L::u64_le(),
    ];
    let f = LengthField::builder;
    let fields = [
        f(2).strip(2),
        f(4).byte_order(ByteOrder::Little)
            .offset(2)
            .length_includes_header()
            .strip(6)
            .header([0xca, 0xfe, 0, 0, 0, 0]),
        f(3).offset(1).adjustment(2).strip(6),
        f(1).offset(3).adjustment(-4).strip(4),
    ];
    let mut all: Vec<_> = prefixes.map(|p| ("prefix", boxed(p.max(MAX).oversize(oversize)))).into();
    all.extend(fields.map(|builder| ("field", boxed(built(builder).oversize(oversize)))));
    all.push(("varint32", boxed(VarintPrefix::u32().max(MAX).oversize(oversize))));
    all.push(("varint64", boxed(VarintPrefix::u64().max(MAX).oversize(oversize))));
    all.push(("netstring", boxed(Netstring::new().max(MAX).oversize(oversize))));
    all
}

fn separators(oversize: Oversize) -> Vec<(&'static str, Boxed)> {
    let bytes = |separator: &str| Separator::bytes(separator).expect("not empty");
    [
        ("lines", Separator::lines()),
        ("crlf", Separator::crlf()),
        ("nul", Separator::nul()),
        ("aab", bytes("aab")),
        ("abab", bytes("abab")),
        ("any", Separator::any_of(["\r\n", "\r", "--", "--end"]).expect("none is empty")),
    ]
    .map(|(name, separator)| (name, boxed(separator.max(MAX).oversize(oversize))))
    .into()
}

fn everything() -> Vec<(&'static str, Boxed)> {
    let mut all = Vec::new();
    for oversize in [Oversize::Close, Oversize::Discard] {
        all.extend(transparent(oversize));
        all.extend(separators(oversize));
    }
    all.push(("fixed", boxed(FixedLength::new(5).expect("not 0"))));
    all.push(("tail", boxed(Separator::lines().max(MAX).deliver_tail())));
    all.push(("eof", boxed(UntilEof::new().max(MAX))));
    all.push(("raw", boxed(Raw::new().max(MAX))));
    all
}

#[test]
fn all_framings_keep_the_law() {
    let exact = "x".repeat(MAX);
    for oversize in [Oversize::Close, Oversize::Discard] {
        for (_, framing) in transparent(oversize) {
            law::check(framing.clone(), ["", "hello", "\0\n\r,:", ""]);
            law::check(framing, [&exact, "next", &exact]);
        }
        for (_, framing) in separators(oversize) {
            law::check(framing.clone(), ["", "hello", "", "ab-"]);
            law::check(framing, [&exact, "next", &exact]);
        }
    }
    law::check(Separator::lines().max(MAX), ["a\r", "\r", "b"]);
    law::check(Separator::lines().max(MAX).deliver_tail(), ["a\r", "b"]);
    law::check(FixedLength::new(5).expect("not 0"), ["hello", "there"]);
    law::check_stream(Raw::new().max(MAX), ["", "hello", "there"]);
    law::check_stream(UntilEof::new().max(MAX), ["", "hello", "there"]);
}

#[test]
fn the_default_maximum_is_exact_for_every_framing() {
    let exact = vec![b'x'; 1 << 20];
    let over = vec![b'x'; (1 << 20) + 1];
    for framing in [
        boxed(LengthPrefix::u32_be()),
        boxed(VarintPrefix::u32()),
        boxed(Netstring::new()),
        boxed(Separator::lines()),
    ] {
        let mut wire = BytesMut::new();
        assert!(framing.encode(&over, &mut wire).is_err());
        wire.clear();
        framing.encode(&exact, &mut wire).expect("exactly the maximum");
        let mut collector = Collector::new(framing.clone());
        for chunk in wire.chunks(10_000) {
            collector.feed(chunk).expect("exactly the maximum");
        }
        assert!(collector.packets() == [exact.as_slice()]);
    }
}

#[test]
fn a_discarded_netstring_without_its_comma_is_reported_the_same_however_it_is_cut() {
    let wire = format!("41:{};2:ok,", "x".repeat(41));
    for piece in 1..=wire.len() {
        let mut collector = Collector::new(boxed(Netstring::new().max(MAX).oversize(Oversize::Discard)));
        let end = feed(&mut collector, wire.as_bytes(), &[piece]);
        assert!(matches!(end, Err(FrameError::Malformed { .. })), "{piece}: {end:?}");
        assert_eq!((collector.rejected().len(), collector.packets().len()), (1, 0), "{piece}");
    }
}

/// Feeds `wire` in pieces; `cuts` are their sizes, over and over.
fn feed(collector: &mut Collector<Boxed>, wire: &[u8], cuts: &[usize]) -> Result<(), FrameError> {
    let mut rest = wire;
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, next) = rest.split_at((*cut).min(rest.len()));
        collector.feed(piece)?;
        let held = collector.held().len();
        assert!(held <= MAX + 20, "{held} bytes are held");
        rest = next;
    }
    Ok(())
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    vec(1..30_usize, 1..6)
}

/// Some packets too long, a third of them.
fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(prop_oneof![2 => vec(b'c'..=b'z', 0..=MAX), 1 => vec(b'c'..=b'z', MAX + 9..4 * MAX)], 0..8)
}

/// A framing of the same kind without the limit, to write what a peer should not.
fn unlimited() -> Vec<Boxed> {
    use LengthPrefix as L;
    let bytes = |separator: &str| Separator::bytes(separator).expect("not empty");
    vec![
        boxed(L::u8()),
        boxed(L::u32_be()),
        boxed(L::u64_le()),
        boxed(LengthField::builder(2).offset(1).strip(3).build().expect("works")),
        boxed(VarintPrefix::u32()),
        boxed(Netstring::new()),
        boxed(Separator::lines()),
        boxed(bytes("aab")),
        boxed(Separator::any_of(["\r\n", "\r", "--", "--end"]).expect("none is empty")),
    ]
}

fn limited(oversize: Oversize) -> Vec<Boxed> {
    use LengthPrefix as L;
    let bytes = |separator: &str| Separator::bytes(separator).expect("not empty");
    let field = LengthField::builder(2).offset(1).strip(3).build().expect("works");
    vec![
        boxed(L::u8().max(MAX).oversize(oversize)),
        boxed(L::u32_be().max(MAX).oversize(oversize)),
        boxed(L::u64_le().max(MAX).oversize(oversize)),
        boxed(field.max(MAX + 3).oversize(oversize)),
        boxed(VarintPrefix::u32().max(MAX).oversize(oversize)),
        boxed(Netstring::new().max(MAX).oversize(oversize)),
        boxed(Separator::lines().max(MAX).oversize(oversize)),
        boxed(bytes("aab").max(MAX).oversize(oversize)),
        boxed(
            Separator::any_of(["\r\n", "\r", "--", "--end"])
                .expect("none is empty")
                .max(MAX)
                .oversize(oversize),
        ),
    ]
}

/// So many cases, or as many as PROPTEST_CASES asks for.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(usual), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn any_payloads_come_back_under_any_cuts(payloads in vec(vec(any::<u8>(), 0..=MAX), 0..6), cuts in cuts()) {
        for (name, framing) in transparent(Oversize::Close) {
            let mut wire = BytesMut::new();
            for payload in &payloads {
                framing.encode(payload, &mut wire).expect("within the maximum");
            }
            let mut collector = Collector::new(framing);
            prop_assert_eq!(feed(&mut collector, &wire, &cuts), Ok(()), "{}", name);
            prop_assert_eq!(collector.packets(), &payloads, "{}", name);
            prop_assert_eq!(collector.end(), Ok(()), "{}", name);
        }
    }

    #[test]
    fn what_is_too_long_is_discarded_and_reported_once_and_the_rest_comes(payloads in payloads(), cuts in cuts()) {
        for (writer, reader) in unlimited().into_iter().zip(limited(Oversize::Discard)) {
            let mut wire = BytesMut::new();
            for payload in &payloads {
                writer.encode(payload, &mut wire).expect("within the default maximum");
            }
            let mut collector = Collector::new(reader);
            prop_assert_eq!(feed(&mut collector, &wire, &cuts), Ok(()));
            let (short, long): (Vec<_>, Vec<_>) = payloads.iter().cloned().partition(|payload| payload.len() <= MAX);
            prop_assert_eq!(collector.packets(), &short);
            prop_assert_eq!(collector.rejected().len(), long.len());
            prop_assert_eq!(collector.end(), Ok(()));
        }
    }

    #[test]
    fn what_is_too_long_ends_the_session_behind_the_packets_before_it(payloads in payloads(), cuts in cuts()) {
        for (writer, reader) in unlimited().into_iter().zip(limited(Oversize::Close)) {
            let mut wire = BytesMut::new();
            for payload in &payloads {
                writer.encode(payload, &mut wire).expect("within the default maximum");
            }
            let mut collector = Collector::new(reader);
            let end = feed(&mut collector, &wire, &cuts);
            let before: Vec<_> = payloads.iter().take_while(|payload| payload.len() <= MAX).cloned().collect();
            prop_assert_eq!(collector.packets(), &before);
            prop_assert_eq!(matches!(end, Err(FrameError::TooLong { .. })), before.len() < payloads.len());
        }
    }

    #[test]
    fn random_bytes_never_break_a_framing_and_mean_the_same_however_cut(
        wire in vec(prop_oneof![any::<u8>(), 0..4_u8, prop::sample::select(b"0123:,\r\n-ab".to_vec())], 0..300),
        cuts in cuts(),
    ) {
        for (name, framing) in everything() {
            let mut whole = Collector::new(framing.clone());
            let mut cut = Collector::new(framing);
            let ends = (whole.feed(&wire), feed(&mut cut, &wire, &cuts));
            let faulty = [&ends.0, &ends.1].into_iter().any(|end| matches!(end, Err(FrameError::InvalidDecode { .. })));
            prop_assert!(!faulty, "{}: {:?}", name, ends);
            prop_assert_eq!(ends.0.is_ok(), ends.1.is_ok(), "{}: {:?}", name, ends);
            if name == "raw" {
                prop_assert_eq!(whole.packets().concat(), cut.packets().concat());
                continue;
            }
            prop_assert_eq!(whole.packets(), cut.packets(), "{}", name);
            prop_assert_eq!(whole.rejected().len(), cut.rejected().len(), "{}", name);
            if ends.0.is_ok() {
                prop_assert_eq!(whole.end().is_ok(), cut.end().is_ok(), "{}", name);
                prop_assert_eq!(whole.packets(), cut.packets(), "{}", name);
            }
        }
    }

    #[test]
    fn hostile_lengths_are_refused_or_waited_for(len in prop_oneof![any::<u64>(), Just(1 << 31), Just(u64::MAX)], adjustment in any::<i32>()) {
        let builder = LengthField::builder(8).adjustment(adjustment.max(-i32::MAX).into());
        let mut framing = builder.build().expect("within range").max(MAX);
        let total = i128::from(len) + i128::from(adjustment.max(-i32::MAX)) + 8;
        let decoded = framing.decode(&mut len.to_be_bytes());
        let (malformed, too_long) = match &decoded {
            Err(FrameError::Malformed { .. }) => (true, false),
            Err(FrameError::TooLong { .. }) => (false, true),
            _ => (false, false),
        };
        prop_assert_eq!(malformed, total < 8);
        prop_assert_eq!(too_long, total > 40);
        if total == 8 {
            prop_assert_eq!(decoded, Ok(Some(Decoded::Packet { payload: 0..8, consumed: 8 })));
        } else if (9..=40).contains(&total) {
            prop_assert_eq!(decoded, Ok(None));
        }
    }
}
