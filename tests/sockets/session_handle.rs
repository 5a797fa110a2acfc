//! Sessions reached from outside their own callbacks: by handle, from other sessions and from other threads.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use framewire::{CloseKind, Handled, Limits, SendError, Session, SessionHandle};

use crate::common::{Client, On, PATIENCE, echo, frame, on_each_strategy_and_transport, until};
use crate::handlers::Scripted;

on_each_strategy_and_transport! {
    a_callback_can_close_its_own_session
    a_callback_can_close_another_session
    a_send_to_a_closed_session_is_refused_and_harms_nobody
    a_packet_can_be_sent_to_another_session_from_on_close
    a_handle_of_an_ended_session_never_reaches_the_next_one
    a_storm_of_sends_from_eight_threads_loses_nothing_and_keeps_the_order_of_each
    a_session_is_closed_by_handle_after_what_was_sent
}

/// The sessions that gave themselves a name.
#[derive(Clone, Default)]
struct Lobby(Arc<Mutex<Vec<(String, SessionHandle)>>>);

impl Lobby {
    fn add(&self, name: &str, session: SessionHandle) {
        self.0.lock().expect("nobody panics").push((name.to_owned(), session));
    }

    fn find(&self, name: &str) -> Option<SessionHandle> {
        let names = self.0.lock().expect("nobody panics");
        names.iter().find(|(known, _)| known == name).map(|(_, handle)| handle.clone())
    }

    /// Does to sessions what they are told: "name NAME", "close", "close NAME", "tell NAME", "heir NAME" (is told when this session
    /// closes); anything else is echoed.
    fn obey(&self, session: &mut Session<'_>, heir: &mut Option<SessionHandle>, packet: &[u8]) -> Handled {
        let text = String::from_utf8_lossy(packet).into_owned();
        let (verb, name) = text.split_once(' ').unwrap_or((&text, ""));
        let reply = match (verb, name) {
            ("name", name) => {
                self.add(name, session.handle());
                "named".to_owned()
            }
            ("close", "") => {
                session.send("closing")?;
                session.close();
                format!("{:?}", session.send("too late")).replace("Err(Closed)", "")
            }
            ("close", name) => format!("{:?}", self.find(name).map(|other| other.close())),
            ("tell", name) => format!("{:?}", self.find(name).map(|other| other.send("told"))),
            ("heir", name) => {
                *heir = self.find(name);
                "noted".to_owned()
            }
            _ => text,
        };
        match session.send(reply) {
            Ok(()) | Err(SendError::Closed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn lobby() -> Scripted<Option<SessionHandle>> {
    let lobby = Lobby::default();
    Scripted::answering(move |session, heir, packet| lobby.obey(session, heir, packet)).on_close(
        |_, heir: Option<SessionHandle>| {
            if let Some(heir) = heir {
                let _ = heir.send("inherited");
            }
        },
    )
}

fn ask(client: &mut Client, question: &str) -> String {
    client.send(question);
    client.recv_text()
}

fn a_callback_can_close_its_own_session(on: On) {
    let served = on.serve(Limits::default(), lobby());
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    client.write(&[frame(b"close"), frame(b"never handed out")].concat());
    assert_eq!(client.recv_text(), "closing");
    client.assert_end();
    drop(client);
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Local);
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}

fn a_callback_can_close_another_session(on: On) {
    let served = on.serve(Limits::default(), lobby());
    let mut bystander = served.connect();
    let (mut victim, session) = served.connect_known();
    let mut closer = served.connect();
    assert_eq!(ask(&mut victim, "name victim"), "named");
    assert_eq!(ask(&mut closer, "close victim"), "Some(Ok(()))");
    victim.assert_end();
    drop(victim);
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Local);
    for client in [&mut closer, &mut bystander] {
        client.assert_echo("still served");
    }
    drop((closer, bystander));
    served.finish();
}

fn a_send_to_a_closed_session_is_refused_and_harms_nobody(on: On) {
    let served = on.serve(Limits::default(), lobby());
    let mut sender = served.connect();
    let (mut gone, session) = served.connect_known();
    assert_eq!(ask(&mut gone, "name gone"), "named");
    assert_eq!(ask(&mut sender, "tell gone"), "Some(Ok(()))");
    assert_eq!(gone.recv_text(), "told");
    drop(gone);
    served.journal.await_ending(session.id());
    assert_eq!(ask(&mut sender, "tell gone"), "Some(Err(Closed))");
    assert_eq!(ask(&mut sender, "close gone"), "Some(Err(Closed))");
    assert_eq!(session.pause(), Err(SendError::Closed));
    assert_eq!(session.send_tracked("x").map(drop), Err(SendError::Closed));
    sender.assert_echo("still served");
    drop(sender);
    served.finish();
}

fn a_packet_can_be_sent_to_another_session_from_on_close(on: On) {
    let served = on.serve(Limits::default(), lobby());
    let (mut heir, mut owner) = (served.connect(), served.connect());
    assert_eq!(ask(&mut heir, "name heir"), "named");
    assert_eq!(ask(&mut owner, "heir heir"), "noted");
    drop(owner);
    assert_eq!(heir.recv_text(), "inherited");
    // And to itself: it is gone, and that is all.
    let mut own = served.connect();
    assert_eq!(ask(&mut own, "name self"), "named");
    assert_eq!(ask(&mut own, "heir self"), "noted");
    drop(own);
    until("two have ended", || served.journal.closed() == 2);
    heir.assert_echo("still served");
    drop(heir);
    served.finish();
}

fn a_handle_of_an_ended_session_never_reaches_the_next_one(on: On) {
    let served = on.echo(Limits::default());
    let mut bystander = served.connect();
    let mut stale: Vec<SessionHandle> = Vec::new();
    let mut reused = 0;
    for _ in 0..20 {
        let (mut client, session) = served.connect_known();
        let slot = |handle: &SessionHandle| handle.id().to_string().split('#').next().map(str::to_owned);
        reused += usize::from(stale.iter().any(|old| slot(old) == slot(&session)));
        for old in &stale {
            assert!(!old.is_open());
            assert_eq!(old.send("for somebody else"), Err(SendError::Closed));
            assert_eq!(old.close(), Err(SendError::Closed));
            // This one goes to the shard in any case, and finds nobody there; or the shard has ended.
            let _ = old.abort();
            let _ = served.running.close(old.id());
        }
        client.assert_echo("mine alone");
        client.end();
        client.assert_end();
        served.journal.await_ending(session.id());
        stale.push(session);
    }
    assert!(on.strategy() == On::ThreadPerConnection || reused > 0, "no slot was used again");
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}

fn a_storm_of_sends_from_eight_threads_loses_nothing_and_keeps_the_order_of_each(on: On) {
    const THREADS: u32 = 8;
    const SENDS: u32 = 20_000;
    let served = on.serve(Limits::default().outbox_hard(512 * 1024).mailbox_commands(4096), echo());
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    let senders: Vec<_> = (0..THREADS)
        .map(|thread| {
            let session = session.clone();
            thread::spawn(move || {
                for number in 0..SENDS {
                    send_stubbornly(&session, &[thread.to_be_bytes(), number.to_be_bytes()].concat());
                }
            })
        })
        .collect();
    let mut next = [0; THREADS as usize];
    for _ in 0..THREADS * SENDS {
        let packet = client.recv();
        let (thread, number) = packet.split_at(4);
        let thread = u32::from_be_bytes(thread.try_into().expect("four bytes")) as usize;
        let number = u32::from_be_bytes(number.try_into().expect("four bytes"));
        assert_eq!(number, next[thread], "of thread {thread}");
        next[thread] += 1;
    }
    for sender in senders {
        sender.join().expect("every send was taken at last");
    }
    bystander.assert_echo("still served");
    drop((client, bystander));
    served.finish();
}

/// Tries again for as long as the session or its shard has too much to do.
fn send_stubbornly(session: &SessionHandle, packet: &[u8]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match session.send(packet) {
            Ok(()) => return,
            Err(SendError::Full { .. } | SendError::MailboxFull { .. }) => {
                assert!(Instant::now() < deadline, "never room again");
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn a_session_is_closed_by_handle_after_what_was_sent(on: On) {
    let served = on.echo(Limits::default());
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    for number in 0..100u8 {
        assert_eq!(session.send([number; 1000]), Ok(()));
    }
    assert_eq!(session.close(), Ok(()));
    for number in 0..100u8 {
        assert_eq!(client.recv(), [number; 1000]);
    }
    client.assert_end();
    drop(client);
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Local);
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}
