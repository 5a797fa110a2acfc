//! Servers behind real proxies, HAProxy and nginx, and connections that are made through them.

use std::{
    fmt::Write as _,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::channel,
    },
    time::{Duration, Instant},
};

use framewire::{
    CloseKind, Dial, Failure, Handled, LengthPrefix, Limits, PacketHandler, ProxyHeader, ProxyProtocol,
    Separator, Server, Session, session_fn,
};

use crate::common::{
    Client, On, PATIENCE, Served, frame, on_each_strategy_without_layers, own_address, until,
};

on_each_strategy_without_layers! {
    clients_of_haproxy_are_known_by_their_addresses
    clients_of_nginx_are_known_by_their_addresses
    a_client_of_a_proxy_has_no_more_connections_than_it_may
    haproxy_and_nginx_believe_what_a_dial_says
    a_header_and_the_first_packet_may_come_together_or_byte_by_byte
}

/// Answers with what it knows of its client.
#[derive(Clone, Default)]
struct Witness {
    health_checks: Arc<AtomicUsize>,
}

impl PacketHandler for Witness {
    type State = ();

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
        let is_local = session.proxied().is_some_and(ProxyHeader::is_local);
        self.health_checks.fetch_add(is_local.into(), Ordering::Relaxed);
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        Ok(session.send(known(session, packet)?)?)
    }
}

fn known(session: &Session<'_>, packet: &[u8]) -> Handled<String> {
    let header = session.proxied().ok_or_else(|| Failure::because("no proxy said anything"))?;
    let mut text = format!("{} is {}", String::from_utf8_lossy(packet), session.peer_addr());
    if let Some(destination) = header.destination() {
        write!(text, " to {destination}")?;
    }
    write!(text, " by version {}", header.version())?;
    if let Some(id) = header.unique_id() {
        write!(text, " with id {}", String::from_utf8_lossy(id))?;
    }
    Ok(text)
}

fn serve(on: On, limits: Limits, witness: &Witness) -> Served {
    let trusting = ProxyProtocol::trusting(["127.0.0.0/8"]).expect("it is a network");
    let server = on.bind().framing(LengthPrefix::u32_be()).limits(limits).proxy_protocol(trusting);
    Served::start(server, witness.clone())
}

/// A program that runs until this is dropped, with a directory of its own.
struct Proxy {
    child: Child,
    dir: PathBuf,
}

impl Proxy {
    /// `None` if the program is not installed, which is said.
    fn start(name: &str, package: &str, config: &str, args: impl Fn(&Path) -> Vec<String>) -> Option<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("framewire-{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("the directory is ours");
        let file = dir.join("config");
        fs::write(&file, config.replace("DIR", &dir.display().to_string())).expect("the directory is ours");
        let log = fs::File::create(dir.join("log")).expect("the directory is ours");
        let child = Command::new(name)
            .args(args(&dir))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        match child {
            Ok(child) => Some(Self { child, dir }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let _ = fs::remove_dir_all(&dir);
                skip(&format!("{name} is not installed (package {package})"));
                None
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }

    /// Connects as soon as the program listens.
    fn connect(&mut self, to: SocketAddr) -> Client {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Client::connect(&to.into()) {
                Ok(client) => return client,
                Err(error) if Instant::now() < deadline => {
                    let ended = self.child.try_wait().expect("the process is ours");
                    let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                    assert!(ended.is_none(), "{ended:?}, {error}: {log}");
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => panic!("{to}: {error}"),
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn skip(why: &str) {
    use io::Write as _;
    let _ = writeln!(io::stderr(), "SKIPPED: {why}");
}

/// An address for a proxy that no other test has: each takes ports of its own of an address that no other process has.
fn free_addr() -> SocketAddr {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let port = 7100 + NEXT.fetch_add(1, Ordering::Relaxed);
    (own_address().0, u16::try_from(port).expect("there are few")).into()
}

fn port_of(served: &Served) -> u16 {
    served.addr().as_socket().expect("it is TCP").port()
}

/// A HAProxy with these sections, each a place to listen, and what its server line says.
fn haproxy(served: &Served, sections: &[(SocketAddr, &str, &str)]) -> Option<Proxy> {
    let mut config =
        "defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n"
            .to_owned();
    for (number, (addr, bind, server)) in sections.iter().enumerate() {
        let port = port_of(served);
        let _ = write!(
            config,
            "listen s{number}\n  bind {addr} {bind}\n  unique-id-format client-%cp\n  server s 127.0.0.1:{port} {server}\n"
        );
    }
    Proxy::start("haproxy", "haproxy", &config, |dir| {
        vec!["-db".into(), "-f".into(), dir.join("config").display().to_string()]
    })
}

/// An nginx with these places to listen, each with an option.
fn nginx(served: &Served, listens: &[(SocketAddr, &str)]) -> Option<Proxy> {
    const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let said = Command::new("nginx").arg("-V").output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).unwrap_or_default();
    let is_dynamic = said.contains("--with-stream=dynamic");
    if is_dynamic && !Path::new(MODULE).exists() {
        skip("nginx has no stream module (package libnginx-mod-stream)");
        return None;
    }
    let mut config = if is_dynamic { format!("load_module {MODULE};\n") } else { String::new() };
    config
        .push_str("daemon off;\nmaster_process off;\npid DIR/pid;\nerror_log stderr;\nevents {}\nstream {\n");
    for (addr, option) in listens {
        let port = port_of(served);
        let _ = writeln!(
            config,
            "server {{ listen {addr} {option}; set_real_ip_from 127.0.0.0/8; proxy_pass 127.0.0.1:{port}; proxy_protocol on; }}"
        );
    }
    config.push_str("}\n");
    Proxy::start("nginx", "nginx and libnginx-mod-stream", &config, |dir| {
        let dir = dir.display();
        vec!["-p".into(), dir.to_string(), "-c".into(), format!("{dir}/config"), "-e".into(), "stderr".into()]
    })
}

fn local_addr(client: &Client) -> SocketAddr {
    client.socket.local_addr().ok().and_then(|addr| addr.as_socket()).expect("it is TCP")
}

fn clients_of_haproxy_are_known_by_their_addresses(on: On) {
    let witness = Witness::default();
    let served = serve(on, Limits::default(), &witness);
    let addrs = [(); 4].map(|()| free_addr());
    let check = "send-proxy-v2 check inter 50ms\n  option tcp-check\n  tcp-check send-binary 00000003686579\n  \
                 tcp-check expect rstring version";
    let sections = [
        (addrs[0], "", "send-proxy"),
        (addrs[1], "", "send-proxy-v2"),
        (addrs[2], "", "send-proxy-v2 proxy-v2-options unique-id,crc32c"),
        (addrs[3], "", check),
    ];
    let Some(mut proxy) = haproxy(&served, &sections) else { return };
    let mut clients = Vec::new();
    for (addr, version) in addrs.iter().zip([1, 2, 2, 2]) {
        let mut client = proxy.connect(*addr);
        let from = local_addr(&client);
        let id = if *addr == addrs[2] { format!(" with id client-{}", from.port()) } else { String::new() };
        client.assert_reply("who", &format!("who is {from} to {addr} by version {version}{id}"));
        clients.push(client);
    }
    until("HAProxy has checked that the server lives", || witness.health_checks.load(Ordering::Relaxed) > 1);
    drop((clients, proxy));
    served.finish();
}

fn clients_of_nginx_are_known_by_their_addresses(on: On) {
    let served = serve(on, Limits::default(), &Witness::default());
    let addr = free_addr();
    let Some(mut proxy) = nginx(&served, &[(addr, "")]) else { return };
    let mut client = proxy.connect(addr);
    let from = local_addr(&client);
    client.assert_reply("who", &format!("who is {from} to {addr} by version 1"));
    drop((client, proxy));
    served.finish();
}

fn a_client_of_a_proxy_has_no_more_connections_than_it_may(on: On) {
    let served = serve(on, Limits::default().connections_per_peer(2), &Witness::default());
    let header = |client: u8| format!("PROXY TCP4 192.0.2.{client} 10.0.0.1 4711 443\r\n").into_bytes();
    let connect = |client| {
        let mut peer = served.connect();
        let is_written = peer.try_write(&[header(client), frame(b"who")].concat());
        (peer, is_written)
    };
    let mut peers = Vec::new();
    for client in [1, 2, 1, 2, 3] {
        let (mut peer, _) = connect(client);
        assert_eq!(peer.recv_text(), format!("who is 192.0.2.{client}:4711 to 10.0.0.1:443 by version 1"));
        peers.push(peer);
    }
    let (mut third, _) = connect(1);
    assert_eq!(third.read_to_any_end(), (Vec::new(), true));
    drop(peers.swap_remove(0));
    until("it has left", || served.running.session_count() == 4);
    let (mut next, _) = connect(1);
    assert!(next.recv_text().starts_with("who is 192.0.2.1:4711 "));
    drop((peers, next));
    served.finish();
}

fn haproxy_and_nginx_believe_what_a_dial_says(on: On) {
    let served = serve(on, Limits::default(), &Witness::default());
    let (first, second) = (free_addr(), free_addr());
    let (client, here) = (SocketAddr::from(([192, 0, 2, 7], 4711)), SocketAddr::from(([10, 0, 0, 1], 443)));
    let headers = [ProxyHeader::v1(client, here), ProxyHeader::v2(client, here).with_checksum()];
    let mut proxies = Vec::new();
    if let Some(mut proxy) = haproxy(&served, &[(first, "accept-proxy", "send-proxy-v2")]) {
        drop(proxy.connect(first));
        proxies.push((proxy, first, "who is 192.0.2.7:4711 to 10.0.0.1:443 by version 2".to_owned()));
    }
    if let Some(mut proxy) = nginx(&served, &[(second, "proxy_protocol")]) {
        drop(proxy.connect(second));
        proxies.push((proxy, second, format!("who is 192.0.2.7:4711 to {second} by version 1")));
    }
    for (_, addr, due) in &proxies {
        for header in &headers {
            let (heard, replies) = channel();
            let asking = session_fn(
                |session| Ok(session.send("who")?),
                move |_, (), reply| Ok(heard.send(String::from_utf8_lossy(reply).into_owned())?),
            );
            let dialler = Server::unbound().framing(LengthPrefix::u32_be()).spawn(asking).expect("it starts");
            let dial = Dial::to(*addr).proxy_header(header.clone());
            let upstream = dialler.connect(dial).expect("it runs");
            assert_eq!(replies.recv_timeout(PATIENCE).as_ref(), Ok(due), "version {}", header.version());
            drop(upstream);
            dialler.stop(PATIENCE).expect("it stops in peace");
        }
    }
    drop(proxies);
    served.finish();
}

fn a_header_and_the_first_packet_may_come_together_or_byte_by_byte(on: On) {
    let served = serve(on, Limits::default(), &Witness::default());
    let wire = [&b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n"[..], &frame(b"who")].concat();
    let due = "who is [2001:db8::7]:4711 to [2001:db8::1]:443 by version 1";
    let mut together = served.connect();
    together.write(&wire);
    assert_eq!(together.recv_text(), due);
    let mut slow = served.connect();
    wire.iter().for_each(|byte| slow.write(&[*byte]));
    assert_eq!(slow.recv_text(), due);
    drop((together, slow));
    served.finish();
}

#[test]
fn a_connection_from_elsewhere_is_refused_with_a_reason() {
    let trusting = ProxyProtocol::trusting(["192.0.2.0/24"]).expect("it is a network");
    let server = On::WorkerPool.bind().framing(Separator::lines()).proxy_protocol(trusting);
    let served = Served::start(server, Witness::default());
    let events = served.running.events(10);
    let mut client = served.connect();
    assert_eq!(client.read_to_any_end().0, b"");
    let told = events.recv_timeout(PATIENCE).map(|event| event.to_string()).unwrap_or_default();
    assert!(
        told.ends_with(" is no trusted proxy; trust its network, or let it connect without one"),
        "{told}"
    );
    assert_eq!(served.journal.ended_by(CloseKind::Layer), 0, "it was never open");
    drop(client);
    served.finish();
}
