//! What Unix sockets have and TCP has not: files, descriptors among the bytes, and peers with a path.

use std::{
    fs,
    io::IoSlice,
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::Barrier,
    thread,
};

use framewire::{Server, SingleReactor, ThreadPerConnection, Unframed, WorkerPool};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg},
};
use socket2::SockAddr;

use crate::common::{Client, On, Served, failure, frame, on_each_strategy};

on_each_strategy! {
    bytes_that_carry_descriptors_do_not_hold_up_what_comes_after_them
    the_path_of_a_peer_breaks_no_line_of_the_log
}

#[test]
fn a_taken_path_is_named_and_its_server_goes_on() {
    let first = Served::echo(On::UnixSocket.bind());
    let mut client = first.connect();
    let path = first.running.local_addrs()[0].to_string();
    let text = failure(Server::bind(&path));
    assert!(text.starts_with(&format!("cannot bind {path}: ")), "{text}");
    client.assert_echo("still served");
    first.connect().assert_echo("and so are new ones");
    drop(client);
    first.finish();
    assert!(!std::path::Path::new(path.trim_start_matches("unix:")).exists(), "its file is removed");
}

#[test]
fn a_path_that_a_dead_server_left_behind_is_replaced() {
    let path = std::env::temp_dir().join(format!("framewire-stale-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a free path"));
    assert!(path.exists());
    let served =
        Served::echo(Server::bind(format!("unix:{}", path.display())).expect("nobody listens there"));
    served.connect().assert_echo("served");
    served.finish();
    assert!(!path.exists());
}

#[test]
fn a_file_that_is_no_socket_is_never_removed() {
    let path = std::env::temp_dir().join(format!("framewire-file-{}", std::process::id()));
    std::fs::write(&path, "precious").expect("a free path");
    let addr = format!("unix:{}", path.display());
    let text = failure(Server::bind(&addr));
    assert!(text.starts_with(&format!("cannot bind {addr}: ")), "{text}");
    assert_eq!(std::fs::read_to_string(&path).expect("it is still there"), "precious");
    std::fs::remove_file(&path).expect("it is ours");
    std::fs::create_dir(&path).expect("a free path");
    failure(Server::bind(&addr));
    std::fs::remove_dir(&path).expect("it is still there");
}

/// A directory of one test, with no trace of an earlier run.
fn directory(test: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("framewire-{test}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).expect("the directory is ours");
    path
}

fn bind(path: &Path) -> Result<Server<Unframed>, framewire::ServeError> {
    Server::bind(format!("unix:{}", path.display()))
}

fn bind_on(on: On, path: &Path) -> Server<Unframed> {
    let server = bind(path).expect("a free path");
    match on.strategy() {
        On::WorkerPool => server.strategy(WorkerPool::new(2)),
        On::ThreadPerConnection => server.strategy(ThreadPerConnection::max(8)),
        _ => server.strategy(SingleReactor::new()),
    }
}

fn client(path: &Path) -> Client {
    Client::connect(&SockAddr::unix(path).expect("a path")).expect("the server listens")
}

/// What a server leaves behind that was killed.
fn leave_stale(path: &Path) {
    drop(UnixListener::bind(path).expect("a free path"));
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("the directory is there");
    entries.map(|entry| entry.expect("it is read").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_server_that_ends_leaves_the_file_of_its_successor_alone() {
    let directory = directory("successor");
    let path = directory.join("socket");
    let first = Served::echo(bind(&path).expect("a free path"));
    let unserved = directory.join("unserved");
    let never_served = bind(&unserved).expect("a free path");
    // A rolling restart: the new servers take the paths while the old ones still drain.
    for path in [&path, &unserved] {
        fs::remove_file(path).expect("it is bound");
    }
    let second = Served::echo(bind(&path).expect("the path is free again"));
    let other = Served::echo(bind(&unserved).expect("the path is free again"));
    first.finish();
    drop(never_served);
    for (served, path) in [(second, &path), (other, &unserved)] {
        client(path).assert_echo("served by the successor");
        served.finish();
        assert!(!path.exists(), "its own file is removed");
    }
    assert_eq!(names(&directory), [""; 0], "nothing else is left behind");
    fs::remove_dir(&directory).expect("it is empty");
}

#[test]
fn a_file_that_has_replaced_ours_is_never_removed() {
    let directory = directory("replaced");
    let path = directory.join("socket");
    let served = Served::echo(bind(&path).expect("a free path"));
    fs::remove_file(&path).expect("it is bound");
    fs::write(&path, "precious").expect("a free path");
    served.finish();
    assert_eq!(fs::read_to_string(&path).expect("it is still there"), "precious");
    fs::remove_dir_all(&directory).expect("it is ours");
}

#[test]
fn of_servers_that_start_at_once_on_a_stale_path_one_is_bound_and_reached() {
    const SERVERS: usize = 3;
    let directory = directory("at-once");
    let path = directory.join("socket");
    for round in 0..500 {
        leave_stale(&path);
        let start = Barrier::new(SERVERS);
        let bound: Vec<_> = thread::scope(|scope| {
            let bind = || {
                start.wait();
                bind(&path)
            };
            let threads: Vec<_> = (0..SERVERS).map(|_| scope.spawn(bind)).collect();
            threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
        });
        assert_eq!(bound.iter().filter(|server| server.is_ok()).count(), 1, "in round {round}");
        let reached = SockAddr::unix(&path).and_then(|addr| Client::connect(&addr));
        assert!(reached.is_ok(), "the file is not that of the server in round {round}");
        drop(bound);
        assert_eq!(names(&directory), [""; 0], "left behind in round {round}");
    }
    fs::remove_dir(&directory).expect("it is empty");
}

#[test]
fn a_lock_file_that_a_dead_server_left_behind_is_in_nobodys_way() {
    let directory = directory("lock-file");
    let path = directory.join("socket");
    leave_stale(&path);
    fs::write(directory.join("socket.lock"), "").expect("a free path");
    let served = Served::echo(bind(&path).expect("nobody holds the lock"));
    client(&path).assert_echo("served");
    served.finish();
    assert_eq!(names(&directory), [""; 0]);
    fs::remove_dir(&directory).expect("it is empty");
}

#[test]
fn a_path_whose_lock_is_held_is_refused_and_named() {
    let directory = directory("held");
    let path = directory.join("socket");
    leave_stale(&path);
    let lock = fs::File::create(directory.join("socket.lock")).expect("a free path");
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).expect("nobody holds it");
    let error = bind(&path).expect_err("it is held").to_string();
    assert!(error.contains("another server holds") && error.contains("socket.lock"), "{error}");
    assert!(path.exists(), "what another server is about to replace is its affair");
    drop(lock);
    Served::echo(bind(&path).expect("nobody holds it any more")).finish();
    fs::remove_dir(&directory).expect("it is empty");
}

#[test]
fn a_lock_file_is_not_made_through_a_link() {
    let directory = directory("link");
    let (path, elsewhere) = (directory.join("socket"), directory.join("elsewhere"));
    std::os::unix::fs::symlink(&elsewhere, directory.join("socket.lock")).expect("a free path");
    bind(&path).expect_err("there is no lock");
    assert!(!elsewhere.exists() && !path.exists());
    fs::remove_dir_all(&directory).expect("it is ours");
}

#[cfg(target_os = "linux")]
#[test]
fn an_abstract_address_needs_no_file() {
    let name = format!("\0framewire-{}", std::process::id());
    let served = Served::echo(Server::bind(format!("unix:{name}")).expect("a free name"));
    client(Path::new(&name)).assert_echo("served");
    let shown = served.running.local_addrs()[0].to_string();
    assert_eq!(shown, format!("unix:\\0{}", name.trim_start_matches('\0')));
    served.finish();
}

fn bytes_that_carry_descriptors_do_not_hold_up_what_comes_after_them(on: On) {
    let directory = directory(&format!("descriptors-{on:?}"));
    let path = directory.join("socket");
    let server = bind_on(on, &path);
    // All is sent before anything is read, so that it is one event; and nothing is to be answered before the last part is
    // read, or the client's reading would be the next event.
    let mut client = client(&path);
    let carried = [client.socket.as_fd().as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&carried)];
    let bytes = frame(b"with a descriptor");
    for part in [&bytes[..3], &bytes[3..7]] {
        let part = [IoSlice::new(part)];
        let fd = client.socket.as_raw_fd();
        sendmsg(fd, &part, &rights, MsgFlags::empty(), None::<&UnixAddr>).expect("it is taken");
    }
    client.write(&bytes[7..]);
    let served = Served::echo(server);
    assert_eq!(client.recv(), b"with a descriptor");
    drop(client);
    served.finish();
    fs::remove_dir(&directory).expect("it is empty");
}

fn the_path_of_a_peer_breaks_no_line_of_the_log(on: On) {
    let directory = directory(&format!("peer-{on:?}"));
    let path = directory.join("socket");
    let served = Served::echo(bind_on(on, &path));
    let own = directory.join("x\n2026-01-01 ERROR all is lost\u{1b}[31m");
    let addr = SockAddr::unix(&path).expect("a path");
    let mut client = Client::connect_with(&addr, |socket| socket.bind(&SockAddr::unix(&own)?));
    let client = client.as_mut().expect("the server listens");
    client.assert_echo("served");
    let sessions = served.running.sessions().expect("the shards answer");
    let shown = sessions[0].peer.to_string();
    assert!(shown.ends_with(r"/x\n2026-01-01 ERROR all is lost\u{1b}[31m"), "{shown}");
    assert!(!format!("{:?}", sessions[0]).contains(char::is_control), "{sessions:?}");
    client.end();
    served.finish();
    fs::remove_dir_all(&directory).expect("it is ours");
}
