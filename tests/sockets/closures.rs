//! Handlers that are made of closures.

use framewire::{CloseKind, Failure, LengthPrefix, session_fn};

use crate::common::{Client, On, Served, on_each_strategy_and_transport, until};

on_each_strategy_and_transport! {
    closures_with_a_state_see_that_of_their_session_alone
    a_session_that_the_first_closure_refuses_gets_what_was_sent_and_no_more
}

fn closures_with_a_state_see_that_of_their_session_alone(on: On) {
    let collect = session_fn(
        |session| Ok(vec![session.id().to_string()]),
        |session, seen, packet| {
            seen.push(std::str::from_utf8(packet)?.to_owned());
            Ok(session.send(seen.join(" "))?)
        },
    );
    let served = Served::start(on.bind().framing(LengthPrefix::u32_be()), collect);
    let mut clients: Vec<_> = (0..3).map(|_| served.connect_known()).collect();
    for (client, session) in &mut clients {
        client.assert_reply("one", &format!("{} one", session.id()));
    }
    for (client, session) in &mut clients {
        client.assert_reply("two", &format!("{} one two", session.id()));
    }
    let (mut client, session) = clients.swap_remove(1);
    client.send(b"\xff");
    client.assert_end();
    drop(client);
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Handler);
    for (client, session) in &mut clients {
        client.assert_reply("three", &format!("{} one two three", session.id()));
    }
    drop(clients);
    served.finish();
}

fn a_session_that_the_first_closure_refuses_gets_what_was_sent_and_no_more(on: On) {
    let refuse = session_fn(
        |session| {
            session.send("not today")?;
            Err::<(), _>(Failure::because("closed on Sundays"))
        },
        |session, (), packet| Ok(session.send(packet)?),
    );
    let served = Served::start(on.bind().framing(LengthPrefix::u32_be()), refuse);
    let mut client: Client = served.connect();
    assert_eq!(client.recv_text(), "not today");
    client.assert_end();
    drop(client);
    until("it is counted", || served.metrics().refused_total() == 1);
    served.finish();
}
