//! Several services on one set of threads: who reaches whom, and how each and all of them end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use framewire::{
    CloseKind, Handled, LengthPrefix, Limits, PacketHandler, Reactor, RunningServer, Separator, ServeError,
    Server, ServerHandle, Session, SessionId, SingleReactor, ThreadPerConnection, WorkerPool, packet_fn,
};

use crate::common::{Client, PATIENCE, until};

/// Users speak binary, and are known by their ids.
#[derive(Clone, Default)]
struct Users(Arc<Mutex<Vec<SessionId>>>);

impl Users {
    fn lock(&self) -> MutexGuard<'_, Vec<SessionId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PacketHandler for Users {
    type State = ();

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
        self.lock().push(session.id());
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        Ok(session.send(packet)?)
    }
}

/// Administrators speak in lines: "say TEXT" reaches every user, "kick" closes them.
#[derive(Clone)]
struct Admin(Users);

impl PacketHandler for Admin {
    type State = ();

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), line: &[u8]) -> Handled {
        let users: Vec<_> = self.0.lock().clone();
        for user in &users {
            match line.strip_prefix(b"say ") {
                Some(text) => session.send_to(*user, text)?,
                None => session.close_session(*user)?,
            }
        }
        Ok(session.send(format!("told {}", users.len()))?)
    }
}

struct Both {
    running: RunningServer,
    users: ServerHandle,
    admin: ServerHandle,
    known: Users,
}

fn start(make: impl FnOnce(Server<LengthPrefix>, Server<Separator>, Users) -> Reactor) -> Both {
    let users = Server::bind("127.0.0.1:0").expect("a free port").framing(LengthPrefix::u32_be());
    let admin = Server::bind("127.0.0.1:0").expect("a free port").framing(Separator::lines());
    let (of_users, of_admin, known) = (users.handle(), admin.handle(), Users::default());
    let running = make(users, admin, known.clone()).spawn().expect("it starts");
    Both { running, users: of_users, admin: of_admin, known }
}

/// The strategies, and how many workers each has.
fn on_each(body: impl Fn(Both)) {
    let both = |reactor: Reactor| {
        start(|users, admin, known| reactor.service(users, known.clone()).service(admin, Admin(known)))
    };
    body(both(Reactor::new(SingleReactor::new())));
    body(both(Reactor::new(WorkerPool::new(2))));
    body(both(Reactor::new(WorkerPool::new(2).reuse_port())));
    body(both(Reactor::new(ThreadPerConnection::max(100))));
}

fn connect(server: &ServerHandle) -> Client {
    Client::connect(&server.local_addr().expect("TCP").into()).expect("it listens")
}

#[test]
fn each_service_has_its_framing_and_they_reach_each_other() {
    on_each(|both| {
        let mut users: Vec<Client> = (0..4).map(|_| connect(&both.users)).collect();
        users.iter_mut().for_each(|user| user.assert_echo("binary"));
        let mut admin = connect(&both.admin);
        admin.write(b"say hello\n");
        assert_eq!(admin.read(7), b"told 4\n");
        users.iter_mut().for_each(|user| assert_eq!(user.recv_text(), "hello"));
        assert_eq!((both.users.session_count(), both.admin.session_count()), (4, 1));
        assert_eq!(both.running.session_count(), 5);
        assert_eq!(both.running.sessions().map(|sessions| sessions.len()), Ok(5));
        admin.write(b"kick\n");
        assert_eq!(admin.read(7), b"told 4\n");
        users.iter_mut().for_each(Client::assert_end);
        drop(users);
        until("they have left", || both.users.session_count() == 0);
        assert_eq!(both.users.metrics().closed(CloseKind::Local), 4);
        drop(admin);
        until("it has left", || both.running.session_count() == 0);
        both.running.stop(PATIENCE).expect("it stops");
    });
}

#[test]
fn a_service_that_is_shut_down_leaves_the_other_running() {
    on_each(|both| {
        let (mut user, mut admin) = (connect(&both.users), connect(&both.admin));
        user.assert_echo("here");
        both.users.shutdown(PATIENCE);
        user.assert_end();
        drop(user);
        until("its shards have ended", || both.users.shards().is_empty());
        let refused = Client::connect(&both.users.local_addr().expect("TCP").into()).is_err();
        assert!(refused, "nobody listens there any more");
        both.known.lock().clear();
        admin.write(b"say nobody\n");
        assert_eq!(admin.read(7), b"told 0\n");
        drop(admin);
        both.running.stop(PATIENCE).expect("it stops");
    });
}

#[test]
fn packets_for_a_service_that_has_ended_are_refused_or_lost_and_harm_nobody() {
    on_each(|both| {
        let (mut user, mut admin) = (connect(&both.users), connect(&both.admin));
        user.assert_echo("here");
        both.users.abort();
        until("its shards have ended", || both.users.shards().is_empty());
        admin.write(b"say too late\n");
        // The one that knew its shard is told, and closes; or the packet went nowhere.
        let answer = admin.try_read(7);
        assert!(answer.as_ref().is_none_or(|answer| answer == b"told 1\n"), "{answer:?}");
        drop((user, admin));
        both.running.stop(PATIENCE).expect("it stops");
    });
}

#[test]
fn the_shutdown_of_a_reactor_is_that_of_all_its_services() {
    on_each(|both| {
        let (mut user, mut admin) = (connect(&both.users), connect(&both.admin));
        user.assert_echo("here");
        admin.write(b"say hello\n");
        assert_eq!(admin.read(7), b"told 1\n");
        assert_eq!(user.recv_text(), "hello");
        both.running.shutdown(PATIENCE);
        user.assert_end();
        admin.assert_end();
        drop((user, admin));
        both.running.wait().expect("it was asked to stop");
        assert_eq!(both.users.metrics().sessions + both.admin.metrics().sessions, 0);
    });
}

#[test]
fn limits_are_those_of_each_service() {
    let users = Server::bind("127.0.0.1:0").expect("a free port").framing(LengthPrefix::u32_be());
    let admin = Server::bind("127.0.0.1:0").expect("a free port").framing(LengthPrefix::u32_be());
    let (users_handle, admin_handle) = (users.handle(), admin.handle());
    let echo = packet_fn(|session, packet| Ok(session.send(packet)?));
    let running = Reactor::new(SingleReactor::new())
        .service(users.limits(Limits::default().connections(1)), echo)
        .service(admin.limits(Limits::default().frame(10)), echo)
        .spawn()
        .expect("it starts");
    let mut first = connect(&users_handle);
    first.assert_echo("x".repeat(100));
    let mut waits = connect(&users_handle);
    waits.send("not yet");
    let mut other = connect(&admin_handle);
    other.assert_echo("short");
    other.send("x".repeat(100));
    other.assert_end();
    assert_eq!(users_handle.session_count(), 1);
    drop(first);
    assert_eq!(waits.recv_text(), "not yet");
    drop((waits, other));
    running.stop(PATIENCE).expect("it stops");
}

#[test]
fn a_reactor_that_cannot_start_says_which_option_is_at_fault() {
    let refused = Reactor::new(SingleReactor::new()).run().map_err(|error| error.to_string());
    assert_eq!(refused, Err("reactor: 0 services; 1 to 254 are possible".to_owned()));
    let server = || Server::bind("127.0.0.1:0").expect("a free port").framing(Separator::lines());
    let echo = packet_fn(|session, packet| Ok(session.send(packet)?));
    let reactor = Reactor::new(SingleReactor::new()).service(server(), echo);
    let refused = reactor.service(server().backlog(0), echo).spawn();
    assert!(matches!(refused, Err(ServeError::Config { .. })), "{refused:?}");
}

#[test]
fn as_many_services_as_a_token_can_tell_serve_and_one_more_is_refused() {
    const MOST: usize = 254;
    let echo = packet_fn(|session, packet| Ok(session.send(packet)?));
    let reactor = |services: usize| {
        let (mut reactor, mut handles) = (Reactor::new(SingleReactor::new()), Vec::new());
        for _ in 0..services {
            let server = Server::bind("127.0.0.1:0").expect("a free port").framing(LengthPrefix::u32_be());
            handles.push(server.handle());
            reactor = reactor.service(server, echo);
        }
        (reactor, handles)
    };
    let (running, handles) = reactor(MOST);
    let running = running.spawn().expect("it starts");
    for handle in [&handles[0], &handles[MOST - 1]] {
        let mut client = connect(handle);
        client.assert_echo("told apart");
        assert_eq!(handle.session_count(), 1);
    }
    running.stop(PATIENCE).expect("it stops");
    let refused = reactor(MOST + 1).0.spawn().map(drop).map_err(|error| error.to_string());
    assert_eq!(refused, Err("reactor: 255 services; 1 to 254 are possible".to_owned()));
}

#[test]
fn a_handler_that_cannot_be_made_stops_all_services() {
    let server = || Server::bind("127.0.0.1:0").expect("a free port").framing(Separator::lines());
    let (first, second) = (server(), server());
    let handle = first.handle();
    let echo = packet_fn(|session, packet| Ok(session.send(packet)?));
    crate::common::hush();
    let broken = framewire::per_shard(|_| -> Users { panic!("{}", crate::common::ON_PURPOSE) });
    let running = Reactor::new(WorkerPool::new(2)).service(first, echo).service(second, broken).spawn();
    let outcome = running.and_then(RunningServer::wait);
    assert!(matches!(outcome, Err(ServeError::Factory { .. })), "{outcome:?}");
    assert!(handle.shards().is_empty());
}
