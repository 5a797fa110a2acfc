//! Two servers of one process: the ids of their sessions never collide.

use std::sync::{
    Arc, OnceLock,
    mpsc::{Sender, channel},
};

use crate::common::{Client, On, PATIENCE, Served, on_each_strategy_and_transport};
use framewire::{Handled, Limits, PacketHandler, QueryError, Session, SessionId};

on_each_strategy_and_transport! {
    the_id_of_another_server_reaches_no_session
}

/// Does to a session what each packet says, and replies.
#[derive(Clone, Default)]
struct Meddler {
    target: Arc<OnceLock<SessionId>>,
}

impl PacketHandler for Meddler {
    type State = ();

    fn on_open(&mut self, _: &mut Session<'_>) -> Handled {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        if let Some(target) = self.target.get() {
            match packet {
                b"send" => session.send_to(*target, "meant for another server")?,
                b"close" => session.close_session(*target)?,
                _ => {}
            }
        }
        Ok(session.send(packet)?)
    }
}

/// A server with two clients.
fn serve(on: On) -> (Served, Meddler, [(Client, SessionId); 2]) {
    let meddler = Meddler::default();
    let served = on.serve(Limits::default(), meddler.clone());
    let client = || {
        let (client, session) = served.connect_known();
        (client, session.id())
    };
    let clients = [client(), client()];
    (served, meddler, clients)
}

fn assert_at_peace(clients: &mut [(Client, SessionId); 2]) {
    for (client, _) in clients {
        client.send("echo");
        assert_eq!(client.recv_text(), "echo", "and nothing before");
    }
}

fn the_id_of_another_server_reaches_no_session(on: On) {
    let ((here, meddler, mut own), (there, _, mut others)) = (serve(on), serve(on));
    let places = |clients: &[(Client, SessionId); 2]| {
        let place =
            |(_, id): &(Client, SessionId)| id.to_string().split_once(':').map(|(_, at)| at.to_owned());
        clients.iter().map(place).collect::<Vec<_>>()
    };
    if on.strategy() == On::SingleReactor {
        assert_eq!(places(&own), places(&others), "they differ by the number of the server alone");
    }
    for (_, id) in &own {
        assert!(others.iter().all(|(_, other)| other != id && other.to_u128() != id.to_u128()));
        assert_eq!(SessionId::from_u128(id.to_u128()), *id);
    }
    // The id that is the most like that of the second client of this server.
    meddler.target.set(others[1].1).expect("it is set once");
    for packet in ["send", "close"] {
        own[0].0.send(packet);
        assert_eq!(own[0].0.recv_text(), packet, "the callback has not failed");
    }
    let strangers = others.each_ref().map(|(_, id)| *id);
    assert_eq!(here.running.send_to(&strangers, "meant for another server"), Ok(0));
    assert_eq!(here.running.close(strangers[1]), Err(QueryError::NotRunning));
    assert_eq!(here.running.close_with(strangers[1], "why"), Err(QueryError::NotRunning));
    let (answer, answers) = channel();
    ask(&here, own[1].1, strangers[1], answer);
    assert_eq!(answers.recv_timeout(PATIENCE), Ok((true, false)), "only its own session");
    assert_at_peace(&mut own);
    assert_at_peace(&mut others);
    drop((own, others));
    here.finish();
    there.finish();
}

/// Asks a shard which of two sessions it reaches.
fn ask(server: &Served, own: SessionId, stranger: SessionId, answer: Sender<(bool, bool)>) {
    let asked = server.running.execute(own.shard(), move |shard| {
        let mut reaches = |id| shard.with(id, |_, ()| ()).is_some();
        let _ = answer.send((reaches(own), reaches(stranger)));
    });
    assert_eq!(asked, Ok(()));
}
