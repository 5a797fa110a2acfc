use proptest::prelude::*;

use super::*;
use crate::testing::LayerDriver;

const WINDOWS: [DeflateWindow; 2] = [DeflateWindow::Kept, DeflateWindow::PerBatch];

type Tested = Result<(), LayerError>;

fn driver(deflate: &Deflate) -> LayerDriver<impl Layer + use<>> {
    LayerDriver::new(deflate.layer()).expect("there is no handshake")
}

/// The wire of one side that sends these batches, and ends.
fn sent(deflate: &Deflate, batches: &[Vec<u8>]) -> Vec<u8> {
    let mut driver = driver(deflate);
    batches.iter().for_each(|batch| driver.send(batch).expect("it can be sent"));
    driver.end().expect("it can end");
    driver.take_wire()
}

/// A stream that stands for `mib` MiB of zeros.
fn bomb(window: DeflateWindow, mib: usize) -> Vec<u8> {
    let deflate = Deflate::new().level(9).window(window);
    let mut driver = driver(&deflate);
    let zeros = vec![0; 1024 * 1024];
    match window {
        // One batch, of one block or more.
        DeflateWindow::PerBatch => driver.send(&zeros.repeat(mib)).expect("it can be sent"),
        DeflateWindow::Kept => (0..mib).for_each(|_| driver.send(&zeros).expect("it can be sent")),
    }
    driver.take_wire()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn batches_come_back_however_they_are_cut(
        batches in proptest::collection::vec(proptest::collection::vec(0..20_u8, 0..2_000), 0..8),
        level in 0..=10_u32,
        cuts in proptest::collection::vec(1..600_usize, 1..20),
    ) {
        for window in WINDOWS {
            let deflate = Deflate::new().level(level).window(window);
            let wire = sent(&deflate, &batches);
            let (mut receiver, mut plain, mut rest) = (driver(&deflate), Vec::new(), &wire[..]);
            for cut in cuts.iter().cycle() {
                let (part, behind) = rest.split_at((*cut).min(rest.len()));
                plain.extend(receiver.receive(part).expect("the peer's stream is sound"));
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(plain, batches.concat());
            prop_assert_eq!(receiver.has_ended(), window == DeflateWindow::Kept);
            prop_assert!(receiver.receive_end().is_ok());
        }
    }

    #[test]
    fn garbage_ends_in_an_error_or_in_few_bytes(wire in proptest::collection::vec(any::<u8>(), 0..3_000)) {
        for window in WINDOWS {
            let deflate = Deflate::new().window(window).max_ratio(10).allowance(1_000);
            if let Ok(plain) = driver(&deflate).receive(&wire) {
                prop_assert!(plain.len() <= 1_000 + 10 * wire.len());
            }
        }
    }
}

#[test]
fn a_batch_is_whole_when_it_was_flushed() -> Tested {
    for window in WINDOWS {
        let deflate = Deflate::new().window(window);
        let (mut sender, mut receiver) = (driver(&deflate), driver(&deflate));
        for batch in [&b"one"[..], b"two", &[7; 200_000], b"three"] {
            sender.send(batch)?;
            assert_eq!(receiver.receive(&sender.take_wire())?, batch);
        }
    }
    Ok(())
}

#[test]
fn a_flush_without_a_send_writes_nothing() -> Tested {
    for window in WINDOWS {
        let mut layer = Deflate::new().window(window).layer();
        let mut wire = BytesMut::new();
        layer.flush(&mut wire)?;
        layer.send(b"", &mut wire)?;
        layer.flush(&mut wire)?;
        assert_eq!((&wire[..], layer.buffered()), (&b""[..], 0));
    }
    Ok(())
}

#[test]
fn what_repeats_across_batches_is_short_only_with_a_window() {
    let batches = vec![br#"{"kind":"position","player":"17","x":104,"y":88}"#.to_vec(); 50];
    let plain = batches.concat().len();
    let [kept, per_batch] = WINDOWS.map(|window| sent(&Deflate::new().window(window), &batches).len());
    assert!(kept * 2 < plain, "{kept} of {plain}");
    assert!(per_batch < plain * 12 / 10, "{per_batch} of {plain}");
}

#[test]
fn a_session_at_rest_holds_what_its_window_needs() -> Tested {
    for (window, at_rest) in [(DeflateWindow::Kept, DEFLATER + INFLATER), (DeflateWindow::PerBatch, 0)] {
        let deflate = Deflate::new().window(window);
        let (mut layer, mut wire) = (deflate.layer(), BytesMut::new());
        assert_eq!(layer.buffered(), 0, "nothing was sent or received");
        layer.send(b"hello", &mut wire)?;
        assert_eq!(layer.buffered(), DEFLATER);
        layer.flush(&mut wire)?;
        let (mut plain, mut requests) = (Vec::new(), Default::default());
        let mut answer = BytesMut::new();
        let mut io = LayerIo::new(&mut plain, &mut answer, &mut requests, 1024);
        assert_eq!(layer.received(&wire, &mut io)?, wire.len());
        assert_eq!((&plain[..], layer.buffered()), (&b"hello"[..], at_rest));
        if window == DeflateWindow::PerBatch {
            let mut spare = deflate.spare();
            assert_eq!((spare.deflaters.len(), spare.inflaters.len()), (1, 1));
            spare.deflaters.clear();
        }
    }
    Ok(())
}

#[test]
fn what_is_kept_for_later_batches_is_bounded() -> Tested {
    let deflate = Deflate::new().window(DeflateWindow::PerBatch);
    let mut layers: Vec<_> = (0..3 * SPARE).map(|_| deflate.layer()).collect();
    let mut wire = BytesMut::new();
    layers.iter_mut().try_for_each(|layer| layer.send(b"hello", &mut wire))?;
    layers.iter_mut().try_for_each(|layer| layer.flush(&mut wire))?;
    assert_eq!(deflate.spare().deflaters.len(), SPARE);
    Ok(())
}

#[test]
fn a_bomb_is_stopped_by_the_ratio_long_before_its_end() {
    for window in WINDOWS {
        let wire = bomb(window, 16);
        assert!(wire.len() < 20_000, "{}", wire.len());
        let mut receiver = driver(&Deflate::new().window(window));
        let mut plain = 0;
        let error = wire.chunks(1_000).find_map(|chunk| match receiver.receive(chunk) {
            Ok(part) => {
                plain += part.len();
                None
            }
            Err(error) => Some(error),
        });
        let Some(error @ LayerError::Expansion { .. }) = error else { panic!("{error:?}") };
        assert!(error.to_string().contains("100 times"), "{error}");
        assert!((4_000_000..6_000_000).contains(&plain), "{plain}");
    }
}

#[test]
fn a_stream_within_the_ratio_goes_on_for_ever() -> Tested {
    for window in WINDOWS {
        let deflate = Deflate::new().window(window).max_ratio(20).allowance(10_000);
        let (mut sender, mut receiver) = (driver(&deflate), driver(&deflate));
        for at in 0..2_000 {
            let text = format!("{at} is the number of this line, {}\n", at * 7_919).repeat(8);
            sender.send(text.as_bytes())?;
            assert_eq!(receiver.receive(&sender.take_wire())?, text.as_bytes());
        }
    }
    Ok(())
}

#[test]
fn a_quiet_stream_buys_no_burst() -> Tested {
    let deflate = Deflate::new().max_ratio(20).allowance(10_000);
    let (mut sender, mut receiver) = (driver(&deflate), driver(&deflate));
    // Bytes that do not compress earn a credit of nearly 20 times their number.
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(100_000)
    .collect();
    sender.send(&noise)?;
    receiver.receive(&sender.take_wire())?;
    sender.send(&[0; 100_000])?;
    let outcome = receiver.receive(&sender.take_wire());
    assert!(matches!(outcome, Err(LayerError::Expansion { .. })), "{outcome:?}");
    Ok(())
}

#[test]
fn empty_batches_are_taken_a_few_at_a_time() -> Tested {
    let deflate = Deflate::new().window(DeflateWindow::PerBatch);
    let wire = LAST_BLOCK.repeat(100);
    let mut layer = deflate.layer();
    let (mut plain, mut answer, mut requests) = (Vec::new(), BytesMut::new(), Default::default());
    let mut io = LayerIo::new(&mut plain, &mut answer, &mut requests, 1024);
    assert_eq!(layer.received(&wire, &mut io)?, LAST_BLOCK.len() * BATCHES_PER_CALL as usize);
    let mut driver = driver(&deflate);
    assert_eq!(driver.receive(&wire)?, b"");
    driver.receive_end()
}

#[test]
fn a_stream_that_ends_within_a_batch_is_truncated() {
    for window in WINDOWS {
        let deflate = Deflate::new().window(window);
        let mut sender = driver(&deflate);
        sender.send(b"hello, hello, hello").expect("it can be sent");
        let wire = sender.take_wire();
        for cut in 0..=wire.len() {
            let mut receiver = driver(&deflate);
            receiver.receive(&wire[..cut]).expect("the stream is sound");
            let ended = receiver.receive_end();
            if cut == 0 || cut == wire.len() {
                assert!(ended.is_ok(), "{window:?} {cut}: {ended:?}");
            } else {
                assert!(matches!(ended, Err(LayerError::Truncated { .. })), "{window:?} {cut}: {ended:?}");
            }
        }
    }
}

#[test]
fn another_protocol_is_told_from_deflate() {
    for window in WINDOWS {
        for said in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00", b"\xff\xff\xff\xff"] {
            let outcome = driver(&Deflate::new().window(window)).receive(said);
            let Err(error) = outcome else { panic!("{said:?} was taken for {outcome:?}") };
            assert!(error.to_string().starts_with("not DEFLATE; it begins with "), "{error}");
        }
    }
}

#[test]
fn what_follows_the_last_block_of_the_peer_is_discarded() -> Tested {
    let deflate = Deflate::new();
    let wire = [sent(&deflate, &[b"last".to_vec()]), b"behind it".to_vec()].concat();
    let mut receiver = driver(&deflate);
    assert_eq!(receiver.receive(&wire)?, b"last");
    assert!(receiver.has_ended());
    Ok(())
}

#[test]
fn one_stream_that_was_inflated_leaves_nothing_to_the_next() -> Tested {
    let deflate = Deflate::new().window(DeflateWindow::PerBatch);
    let secret = b"the secret of another session".repeat(20);
    let kept = Deflate::new();
    let mut sender = driver(&kept);
    sender.send(&secret)?;
    sender.take_wire();
    sender.send(&secret)?; // refers to the batch before
    let refers = sender.take_wire();

    driver(&deflate).receive(&sent(&deflate, &[secret]))?;
    assert_eq!(deflate.spare().inflaters.len(), 1, "it serves the next session");
    let leaked = driver(&deflate).receive(&refers).unwrap_or_default();
    assert!(!leaked.windows(6).any(|part| part == b"secret"), "{}", leaked.escape_ascii());
    Ok(())
}
