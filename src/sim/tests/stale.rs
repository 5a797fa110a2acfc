//! Slots and descriptors are used again; no event, handle or byte reaches the wrong session.

use std::sync::{Arc, Mutex};

use crate::{
    SendError, SessionHandle,
    contained::Contained,
    error::CloseKind,
    session::SessionCommand,
    shard::Command,
    sim::{Callback, Conn, Setup, World, frame},
};

/// What happens to one of the clients before a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connect,
    Say(usize),
    /// Says "close", upon which the handler closes another session.
    CloseOther(usize),
    Reset(usize),
    Leave(usize),
}

/// Every order of these.
fn permutations(steps: &[Step]) -> Vec<Vec<Step>> {
    if steps.is_empty() {
        return vec![Vec::new()];
    }
    let with_first = |at: usize| {
        let mut rest = steps.to_vec();
        let first = rest.remove(at);
        permutations(&rest).into_iter().map(move |mut order| {
            order.insert(0, first);
            order
        })
    };
    (0..steps.len()).flat_map(with_first).collect()
}

/// A client, and what it is owed.
struct Client {
    conn: Conn,
    owed: Vec<u8>,
}

/// Each client talks under its own name; a client that reads another's name has been confused with it.
struct Stage {
    world: World,
    clients: Vec<Client>,
}

impl Stage {
    fn new(batch: usize) -> Self {
        let handles = Arc::new(Mutex::new(Vec::<SessionHandle>::new()));
        let mut setup = Setup { first_generation: u32::MAX - 3, ..Setup::default() };
        setup.sizes.batch = batch;
        let world = World::new(setup, |probe| {
            let (joined, handles) = (handles.clone(), handles.clone());
            probe.open = Box::new(move |session, ()| {
                joined.lock().expect("one thread").push(session.handle());
                Ok(())
            });
            probe.packet = Box::new(move |session, packet| {
                if packet.starts_with(b"close") {
                    for handle in handles.lock().expect("one thread").iter() {
                        if handle.id() != session.id() {
                            let _ = handle.abort();
                            let _ = handle.send(b"to a stranger");
                        }
                    }
                    return Ok(());
                }
                Ok(session.send(packet)?)
            });
        });
        let mut stage = Self { world, clients: Vec::new() };
        (0..2).for_each(|_| stage.step(Step::Connect));
        stage.world.run_for(1);
        stage
    }

    fn step(&mut self, step: Step) {
        let mut net = self.world.net();
        match step {
            Step::Connect => {
                drop(net);
                let conn = self.world.connect();
                self.clients.push(Client { conn, owed: Vec::new() });
            }
            Step::Say(who) => {
                let bytes = frame(format!("I am {who}").as_bytes());
                if net.say(self.clients[who].conn, &bytes) > 0 {
                    self.clients[who].owed.extend(bytes);
                }
            }
            Step::CloseOther(who) => {
                net.say(self.clients[who].conn, &frame(b"close"));
            }
            Step::Reset(who) => net.reset(self.clients[who].conn),
            Step::Leave(who) => net.leave(self.clients[who].conn),
        }
    }

    fn check(&mut self) {
        for client in &mut self.clients {
            let heard = self.world.net().hear_all(client.conn);
            assert!(client.owed.starts_with(&heard), "heard {}", String::from_utf8_lossy(&heard));
            client.owed.drain(..heard.len());
        }
        self.world.log.assert_balanced(false);
    }
}

#[test]
fn every_order_of_close_accept_and_read_reaches_the_right_session() {
    let steps = [Step::Reset(0), Step::Connect, Step::Say(0), Step::Say(1), Step::CloseOther(1)];
    let more = [Step::Leave(1), Step::Connect, Step::CloseOther(0), Step::Say(1), Step::Connect];
    let mut orders = permutations(&steps);
    orders.extend(permutations(&more));
    assert_eq!(orders.len(), 240);
    for batch in [1, 2, 1024] {
        for order in &orders {
            for turn_after in 0..=order.len() {
                let mut stage = Stage::new(batch);
                for (at, step) in order.iter().enumerate() {
                    if at == turn_after {
                        stage.world.turn();
                        stage.check();
                    }
                    stage.step(*step);
                }
                stage.world.run_for(1);
                stage.check();
                // A client that came meanwhile, perhaps into the slot and descriptor of another, is served as itself.
                for who in 2..stage.clients.len() {
                    stage.step(Step::Say(who));
                }
                stage.world.run_for(1);
                stage.check();
                (0..stage.clients.len()).for_each(|who| stage.step(Step::Leave(who)));
                stage.world.run_to_rest();
                stage.world.assert_empty();
            }
        }
    }
}

#[test]
fn a_handle_outlives_its_session_and_never_reaches_the_next_one_in_its_slot() {
    let handles = Arc::new(Mutex::new(Vec::<SessionHandle>::new()));
    let mut world = World::new(Setup::default(), |probe| {
        let joined = handles.clone();
        probe.open = Box::new(move |session, ()| {
            joined.lock().expect("one thread").push(session.handle());
            Ok(())
        });
    });
    let first = world.connect();
    world.run_for(1);
    let old = handles.lock().expect("one thread")[0].clone();
    world.net().leave(first);
    world.run_for(1);
    let second = world.connect();
    world.run_for(1);
    let new = handles.lock().expect("one thread")[1].clone();
    assert_ne!(old.id(), new.id());
    assert_eq!(
        (old.send("x"), old.close(), old.is_open()),
        (Err(SendError::Closed), Err(SendError::Closed), false)
    );
    // Even past the check at the handle, as when the session ends while a command is on its way.
    for command in [SessionCommand::Abort, SessionCommand::Close(None)] {
        world.post(0, Command::Session(old.id().key, Contained::new(command)));
    }
    world.run_for(1);
    assert_eq!(world.log.count(&Callback::Close(CloseKind::Local)), 0);
    assert_eq!(new.send("y"), Ok(()));
    assert_eq!(world.expect(second, 5), frame(b"y"));
}

#[test]
fn generations_wrap_without_confusion() {
    let mut world = World::new(Setup { first_generation: u32::MAX - 20, ..Setup::default() }, |_| {});
    for round in 0..100_u8 {
        let conns = [(); 3].map(|()| world.connect());
        for (conn, number) in conns.into_iter().zip(0..) {
            world.net().say(conn, &frame(&[round, number]));
        }
        world.run_for(1);
        for (conn, number) in conns.into_iter().zip(0..) {
            assert_eq!(world.net().hear_all(conn), frame(&[round, number]));
            world.net().leave(conn);
        }
        world.run_for(1);
        assert_eq!(world.metrics().sessions, 0);
    }
    world.run_to_rest();
    world.assert_empty();
    assert!(world.metrics().opened == 300);
}
