//! Packets that are values: encoded into the outbox, or not at all.

use std::{
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
};

use framewire::{
    CloseKind, Decode, Decoded, Encode, EncodeError, FrameError, Framing, LengthPrefix, Limits, SendError,
    Session, SessionId,
    bytes::{Bytes, BytesMut},
    encode_fn, packet_fn,
    wire::WireWrite,
};

use crate::common::{ON_PURPOSE, On, Served, hush, on_each_strategy_and_transport, patient};

on_each_strategy_and_transport! {
    every_kind_of_packet_arrives_in_order
    a_value_that_cannot_be_encoded_leaves_nothing_in_the_outbox
    a_value_that_panics_leaves_nothing_in_the_outbox
    a_panic_that_nobody_catches_ends_that_session_and_keeps_what_was_sent
    a_value_without_room_is_refused_and_leaves_nothing_in_the_outbox
    a_value_is_encoded_once
    a_value_is_encoded_where_it_is_sent_from
    a_packet_that_cannot_be_decoded_ends_its_session_with_the_reason
}

/// The frames of [`LengthPrefix::u32_be`], by a framing that does not know `encode_with`.
#[derive(Clone)]
struct Plain(LengthPrefix);

impl Framing for Plain {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        self.0.decode(buf)
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        self.0.encode(payload, out)
    }
}

/// Checks a server with a framing that fills in its header, and with one that needs the payload first.
fn with_each_framing(
    on: On,
    limits: &Limits,
    handler: fn(&mut Session<'_>, &[u8]) -> framewire::Handled,
    check: impl Fn(&Served),
) {
    for fills_in in [true, false] {
        let (server, limits) = (on.bind().limits(limits.clone()), LengthPrefix::u32_be());
        let served = if fills_in {
            Served::start(server.framing(limits), packet_fn(handler))
        } else {
            Served::start(server.framing(Plain(limits)), packet_fn(handler))
        };
        check(&served);
        served.finish();
    }
}

fn every_kind_of_packet_arrives_in_order(on: On) {
    let handler = |session: &mut Session<'_>, packet: &[u8]| {
        let text = String::from_utf8_lossy(packet);
        session.send(packet)?;
        session.send(&text)?;
        session.send(format_args!("{text} {}", 1))?;
        session.send(Cow::Borrowed("two"))?;
        session.send(Bytes::from_static(b"three"))?;
        session.send(encode_fn(|out| Ok(out.try_put_string(&text, 100)?)))?;
        session.send(encode_fn(|_| Ok(())))?;
        session.send(encode_fn(|out| {
            *out = BytesMut::from("four");
            Ok(())
        }))?;
        // More than the outbox has spare, and more than one chunk of it.
        session.send(encode_fn(|out| (0..20_000).try_for_each(|number| Ok(out.try_put_varint(-number)?))))?;
        Ok(session.send("end")?)
    };
    with_each_framing(on, &patient(), handler, |served| {
        let mut client = served.connect();
        for _ in 0..3 {
            client.send("hello");
            for expected in ["hello", "hello", "hello 1", "two", "three", "\u{5}hello", "", "four"] {
                assert_eq!(client.recv_text(), expected);
            }
            let numbers = client.recv();
            assert_eq!((numbers.len(), numbers[1]), (1 + 5 * 19_999, 0xff));
            assert_eq!(client.recv_text(), "end");
        }
    });
}

fn a_value_that_cannot_be_encoded_leaves_nothing_in_the_outbox(on: On) {
    let handler = |session: &mut Session<'_>, packet: &[u8]| {
        let long = packet.len() * 20_000;
        for len in [0, 1, long] {
            session.send("before")?;
            let refused = session.send(encode_fn(|out| {
                out.extend_from_slice(&vec![9; len]);
                Err(EncodeError::because("out of ink"))
            }));
            assert_eq!(refused, Err(SendError::Encode(EncodeError::because("out of ink"))));
        }
        let refused = session.send(encode_fn(|out| {
            out.extend_from_slice(&[9; 2_000_000]);
            Ok(())
        }));
        assert!(matches!(refused, Err(SendError::Encode(EncodeError::TooLong { .. }))), "{refused:?}");
        Ok(session.send("after")?)
    };
    with_each_framing(on, &patient().frame(1_000_000), handler, |served| {
        let mut client = served.connect();
        for _ in 0..3 {
            client.send("hello");
            for expected in ["before", "before", "before", "after"] {
                assert_eq!(client.recv_text(), expected);
            }
        }
    });
}

#[cfg(feature = "json")]
#[test]
fn json_that_fails_half_way_leaves_nothing_in_the_outbox() {
    use std::collections::BTreeMap;

    use framewire::Json;

    let handler = |session: &mut Session<'_>, packet: &[u8]| {
        let Json(numbers) = Json::<Vec<u32>>::decode(packet)?;
        session.send(Json(&numbers))?;
        // No key of an object can be a pair, which shows when the list is written already.
        let keyed: BTreeMap<(u32, u32), u32> = BTreeMap::from([((1, 2), 3)]);
        let refused = session.send(Json(&(numbers, keyed)));
        assert!(matches!(refused, Err(SendError::Encode(EncodeError::Value { .. }))), "{refused:?}");
        Ok(session.send(Json(&"after"))?)
    };
    with_each_framing(On::WorkerPool, &patient(), handler, |served| {
        let (mut client, session) = served.connect_known();
        client.assert_reply("[1, 2, 3]", "[1,2,3]");
        assert_eq!(client.recv_text(), "\"after\"");
        client.send("[1, 2");
        client.assert_end();
        drop(client);
        let (kind, reason) = served.journal.await_ending(session.id());
        assert_eq!(kind, CloseKind::Handler);
        let told = "handler: packet is no alloc::vec::Vec<u32> in JSON: EOF while parsing a list at line 1 ";
        assert!(reason.starts_with(told), "{reason}");
    });
}

fn panicking(len: usize) -> impl Encode {
    encode_fn(move |out| {
        out.extend_from_slice(&vec![9; len]);
        panic!("{ON_PURPOSE}: out of ink")
    })
}

fn a_value_that_panics_leaves_nothing_in_the_outbox(on: On) {
    hush();
    let handler = |session: &mut Session<'_>, packet: &[u8]| {
        for len in [0, 1, 100_000] {
            session.send(packet)?;
            catch_unwind(AssertUnwindSafe(|| session.send(panicking(len)))).unwrap_err();
        }
        Ok(session.send("after")?)
    };
    with_each_framing(on, &patient(), handler, |served| {
        let mut client = served.connect();
        for _ in 0..3 {
            client.send("hello");
            for expected in ["hello", "hello", "hello", "after"] {
                assert_eq!(client.recv_text(), expected);
            }
        }
    });
}

fn a_panic_that_nobody_catches_ends_that_session_and_keeps_what_was_sent(on: On) {
    hush();
    let handler = |session: &mut Session<'_>, packet: &[u8]| {
        session.send(packet)?;
        if packet == b"trap" {
            session.send(panicking(1000))?;
        }
        Ok(())
    };
    with_each_framing(on, &patient(), handler, |served| {
        let mut bystander = served.connect();
        let (mut client, session) = served.connect_known();
        client.assert_echo("trap");
        client.assert_end();
        drop(client);
        let (kind, reason) = served.journal.await_ending(session.id());
        assert_eq!(
            (kind, reason.as_str()),
            (CloseKind::Panicked, "panic in on_packet: on purpose: out of ink")
        );
        bystander.assert_echo("still served");
    });
}

/// As long as it says, or says nothing of that.
struct Long {
    hint: usize,
}

impl Encode for Long {
    fn size_hint(&self) -> usize {
        self.hint
    }

    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        assert_eq!(self.hint, 0, "encoded, though there is no room for it");
        out.extend_from_slice(&[9; 200_000]);
        Ok(())
    }
}

fn a_value_without_room_is_refused_and_leaves_nothing_in_the_outbox(on: On) {
    let handler = |session: &mut Session<'_>, packet: &[u8]| {
        session.send(packet)?;
        for hint in [0, 200_000, usize::MAX] {
            let refused = session.send(Long { hint });
            assert!(matches!(refused, Err(SendError::Full { limit: 100_000, .. })), "{refused:?}");
        }
        Ok(session.send(format_args!("{} and on", packet.len()))?)
    };
    let limits = patient().outbox_high(50_000).outbox_low(1000).outbox_hard(100_000);
    with_each_framing(on, &limits, handler, |served| {
        let mut client = served.connect();
        for _ in 0..3 {
            client.send("hello");
            assert_eq!((client.recv_text(), client.recv_text()), ("hello".into(), "5 and on".into()));
        }
        served.until_counted("each was refused", |metrics| metrics.sends_refused == 9);
    });
}

fn a_value_is_encoded_once(on: On) {
    let handler = |session: &mut Session<'_>, _: &[u8]| {
        let times = AtomicU32::new(0);
        let counted = encode_fn(|out| {
            out.extend_from_slice(b"counted");
            times.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        session.send(counted)?;
        session.send(counted)?;
        Ok(session.send(format_args!("{} times", times.load(Ordering::Relaxed)))?)
    };
    with_each_framing(on, &patient(), handler, |served| {
        let mut client = served.connect();
        client.send("hello");
        for expected in ["counted", "counted", "2 times"] {
            assert_eq!(client.recv_text(), expected);
        }
    });
}

fn a_packet_that_cannot_be_decoded_ends_its_session_with_the_reason(on: On) {
    let handler = |session: &mut Session<'_>, packet: &[u8]| {
        let text = <&str>::decode(packet)?;
        Ok(session.send(text)?)
    };
    with_each_framing(on, &patient(), handler, |served| {
        let mut bystander = served.connect();
        let (mut client, session) = served.connect_known();
        client.assert_echo("well so far");
        client.send(b"no\xfftext");
        client.assert_end();
        drop(client);
        let ending = served.journal.await_ending(session.id());
        let reason = "handler: packet of 7 bytes is not UTF-8 at byte 2";
        assert_eq!(ending, (CloseKind::Handler, reason.to_owned()));
        bystander.assert_echo("still served");
    });
}

/// A handle encodes on its own thread, where the error is its caller's; a session that sends to another does so in its
/// callback.
fn a_value_is_encoded_where_it_is_sent_from(on: On) {
    let (to_test, told) = mpsc::channel();
    let others = Arc::new(Mutex::new(Vec::<SessionId>::new()));
    let handler = packet_fn(move |session: &mut Session<'_>, packet: &[u8]| {
        let mut others = others.lock().unwrap();
        for other in others.iter() {
            session.send_to(*other, format_args!("{} bytes", packet.len()))?;
            let failing = encode_fn(|_| Err(EncodeError::because("out of ink")));
            to_test.send(session.send_to(*other, failing)).unwrap();
        }
        others.push(session.id());
        Ok(session.send("done")?)
    });
    let served = on.serve(patient(), handler);
    let (mut client, session) = served.connect_known();
    let mut sender = served.connect();
    client.assert_reply("hello", "done");
    sender.assert_reply("hello", "done");
    assert_eq!(client.recv_text(), "5 bytes");
    let refused = Err(SendError::Encode(EncodeError::because("out of ink")));
    assert_eq!(told.recv().unwrap(), refused);
    let failing = || encode_fn(|_| Err(EncodeError::because("out of ink")));
    assert_eq!(session.send(failing()), refused);
    assert_eq!(session.send_tracked(failing()).map(|_| ()), refused);
    let here = std::thread::current().id();
    let by_handle = encode_fn(|out| {
        assert_eq!(std::thread::current().id(), here);
        Ok(out.try_put_string("from a handle", 100)?)
    });
    assert_eq!(session.send(by_handle), Ok(()));
    assert_eq!(client.recv_text(), "\u{d}from a handle");
    drop((client, sender));
    served.finish();
}
