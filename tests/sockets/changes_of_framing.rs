//! Sessions that change their framing: which bytes the old one gets, and which the new one.

use std::time::Duration;

use framewire::{LengthPrefix, Separator, Session, TimerId, packet_fn};

use crate::common::{On, Served, on_each_strategy, on_each_strategy_and_transport};
use crate::handlers::Scripted;

on_each_strategy_and_transport! {
    bytes_behind_a_change_of_framing_go_to_the_new_one
}

on_each_strategy! {
    a_framing_set_by_a_timer_gets_what_waits_already
}

/// Echoes lines, and changes its framing by a timer once four bytes have come.
fn switching() -> Scripted<()> {
    let soon = |session: &mut Session<'_>, (): &mut ()| {
        session.set_timer(TimerId(0), Duration::from_millis(50))?;
        Ok(())
    };
    Scripted::echo().on_open(soon).on_timer(|session, (), _| {
        if session.stats().bytes_in < 4 {
            return Ok(session.set_timer(TimerId(0), Duration::from_millis(5))?);
        }
        session.set_framing(LengthPrefix::u8());
        Ok(())
    })
}

fn a_framing_set_by_a_timer_gets_what_waits_already(on: On) {
    let served = Served::start(on.bind().framing(Separator::lines()), switching());
    let mut client = served.connect();
    client.write(b"\x03abc");
    assert_eq!(client.read(4), b"\x03abc", "no further byte has come");
    drop(client);
    served.finish();
}

fn bytes_behind_a_change_of_framing_go_to_the_new_one(on: On) {
    let handler = packet_fn(|session, packet| {
        session.send(packet)?;
        match packet {
            b"binary" => session.set_framing(LengthPrefix::u16_le()),
            b"text" => session.set_framing(Separator::lines()),
            _ => {}
        }
        Ok(())
    });
    let served = Served::start(on.bind().framing(Separator::lines()), handler);
    let mut bystander = served.connect();
    let wire = b"hello\nbinary\n\x03\x00a\nb\x04\x00text\x00\n\nline\n";
    // What is sent behind the word is framed anew; the word itself goes out as it came in.
    let replies = b"hello\nbinary\n\x03\x00a\nb\x04\x00text\x00\n\nline\n";
    let mut at_once = served.connect();
    at_once.write(wire);
    assert_eq!(at_once.read(replies.len()), replies);
    let mut by_the_byte = served.connect();
    for byte in wire {
        by_the_byte.write(&[*byte]);
    }
    assert_eq!(by_the_byte.read(replies.len()), replies);
    bystander.write(b"still served\n");
    assert_eq!(bystander.read(13), b"still served\n");
    drop((at_once, by_the_byte, bystander));
    served.finish();
}
