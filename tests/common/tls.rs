//! Servers and clients with TLS, and certificates for them that are made when they are needed.

use std::{
    io::{self, ErrorKind, Read, Write},
    mem,
    net::{Shutdown, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::{self, JoinHandle},
};

use framewire::{
    NewConnection, Server, Tls, TlsAcceptor, TlsConnector, TlsIdentity, TlsRoots, Unframed,
    testing::{
        LayerDriver,
        layers::{Scramble, Scrambler, StackedPeer},
    },
};
use socket2::Socket;

use super::client::{SpeakLayers, Speech};

/// The name of every server.
pub(crate) const SERVER: &str = "localhost";
/// Of the layer above TLS.
const KEY: u8 = 0x3d;

/// A certificate that vouches for itself, and its key, both in PEM.
pub(crate) struct Made {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Made {
    pub(crate) fn new(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate can be made");
        Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    pub(crate) fn identity(&self) -> TlsIdentity {
        TlsIdentity::from_pem(&self.certificate, &self.key).expect("it was made for this")
    }

    pub(crate) fn roots(&self) -> TlsRoots {
        TlsRoots::from_pem(&self.certificate).expect("it was made for this")
    }
}

/// What the tests of this process have in common.
pub(crate) struct Common {
    pub(crate) made: Made,
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) connector: TlsConnector,
}

pub(crate) fn common() -> &'static Common {
    static COMMON: OnceLock<Common> = OnceLock::new();
    COMMON.get_or_init(|| {
        let made = Made::new(SERVER);
        let acceptor = TlsAcceptor::new(made.identity()).expect("it can be used");
        let connector = TlsConnector::new(made.roots()).expect("it can be used");
        Common { made, acceptor, connector }
    })
}

/// Gives a server TLS; alone, or between a proxy's header and one that scrambles.
pub(super) fn secure(speech: Speech, server: Server<Unframed>, speak: SpeakLayers) -> Server<Unframed> {
    let acceptor = &common().acceptor;
    if speech == Speech::StackedTls {
        let last = move |_: &NewConnection<'_>| {
            let _while_it_serves = &speak;
            Scramble::new(KEY)
        };
        return server.proxy_protocol(StackedPeer::proxies()).tls(acceptor).layer(last);
    }
    server.layer(move |_| {
        let _while_it_serves = &speak;
        acceptor.layer()
    })
}

/// The client's side of that. The two directions of TLS depend on each other, so that clones share them.
#[derive(Clone)]
pub(crate) struct SecurePeer {
    tls: Arc<Mutex<Progress>>,
    above: Option<Scrambler>,
}

/// What is to be sent when the handshake is complete; `None` when it is.
type Early = Arc<Mutex<Option<Vec<u8>>>>;

enum Progress {
    /// A client may connect before the server accepts, so that nobody waits for this until it is needed.
    Shaking(JoinHandle<io::Result<LayerDriver<Tls>>>, Early, Leaving),
    Open(Box<LayerDriver<Tls>>),
    Failed(ErrorKind),
}

/// Ends a handshake that nobody waits for any more.
struct Leaving(Option<Socket>);

impl Drop for Leaving {
    fn drop(&mut self) {
        // Fails if the connection has.
        let _ = self.0.take().map(|socket| socket.shutdown(Shutdown::Both));
    }
}

impl SecurePeer {
    /// Begins the handshake.
    pub(super) fn begin(speech: Speech, socket: &Socket, from: SocketAddr) -> io::Result<Self> {
        let above = (speech == Speech::StackedTls).then(|| Scrambler::new(KEY));
        let (ip, port) = (from.ip(), from.port());
        let header = format!("PROXY TCP4 {ip} {ip} {port} {port}\r\n");
        let first = if above.is_some() { header } else { String::new() };
        let (leaving, socket, greeting) =
            (Leaving(Some(socket.try_clone()?)), socket.try_clone()?, above.as_ref().map(Scrambler::greet));
        let early: Early = Arc::new(Mutex::new(Some(greeting.unwrap_or_default())));
        let own = early.clone();
        let shaking = thread::spawn(move || shake(socket, first.as_bytes(), &own));
        Ok(Self { tls: Arc::new(Mutex::new(Progress::Shaking(shaking, early, leaving))), above })
    }

    /// Waits until the handshake is over.
    pub(super) fn ready(&self) -> io::Result<()> {
        self.with(|_| ())
    }

    pub(super) fn is_shaking(&self) -> bool {
        matches!(&*lock(&self.tls), Progress::Shaking(shaking, ..) if !shaking.is_finished())
    }

    fn with<R>(&self, use_it: impl FnOnce(&mut LayerDriver<Tls>) -> R) -> io::Result<R> {
        let mut progress = lock(&self.tls);
        if let Progress::Shaking(..) = *progress {
            let shaking = mem::replace(&mut *progress, Progress::Failed(ErrorKind::Other));
            let Progress::Shaking(shaking, _, mut leaving) = shaking else { unreachable!("it was") };
            let shaken = shaking.join().expect("a handshake does not panic");
            leaving.0 = None;
            *progress = match shaken {
                Ok(tls) => Progress::Open(Box::new(tls)),
                Err(error) => Progress::Failed(error.kind()),
            };
        }
        match &mut *progress {
            Progress::Open(tls) => Ok(use_it(tls)),
            Progress::Failed(kind) => Err((*kind).into()),
            Progress::Shaking(..) => unreachable!("it was waited for"),
        }
    }

    pub(super) fn encode(&mut self, plain: &[u8]) -> io::Result<Vec<u8>> {
        let above = self.above.as_mut().map(|above| above.encode(plain));
        let plain = above.as_deref().unwrap_or(plain);
        if let Progress::Shaking(_, early, _) = &*lock(&self.tls) {
            if let Some(early) = &mut *lock(early) {
                early.extend(plain);
                return Ok(Vec::new());
            }
        }
        self.with(|tls| {
            tls.send(plain).expect("it is open");
            tls.take_wire()
        })
    }

    pub(super) fn decode(&mut self, wire: &[u8]) -> io::Result<Vec<u8>> {
        let plain = self.with(|tls| tls.receive(wire).expect("the server knows TLS"))?;
        Ok(match &mut self.above {
            Some(above) => above.decode(&plain),
            None => plain,
        })
    }

    pub(super) fn end(&mut self) -> io::Result<Vec<u8>> {
        let last = self.above.as_mut().map(Scrambler::end);
        self.with(|tls| {
            last.iter().for_each(|last| tls.send(last).expect("it is open"));
            tls.end().expect("it is open");
            tls.take_wire()
        })
    }

    pub(super) fn was_ended(&self) -> bool {
        self.with(|tls| tls.has_ended()).is_ok_and(|ended| ended)
            && self.above.as_ref().is_none_or(Scrambler::was_ended)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does the handshake of a client, behind `first` and before what was sent meanwhile.
fn shake(mut socket: Socket, first: &[u8], early: &Mutex<Option<Vec<u8>>>) -> io::Result<LayerDriver<Tls>> {
    // A server that refuses the connection may have done so by now, and no later read would show it.
    let reset = |_| io::Error::from(ErrorKind::ConnectionReset);
    socket.write_all(first).map_err(reset)?;
    let mut tls = LayerDriver::new(common().connector.layer(SERVER)).expect("it begins");
    while !tls.is_open() {
        socket.write_all(&tls.take_wire()).map_err(reset)?;
        let mut wire = [0; 4096];
        match socket.read(&mut wire)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => assert_eq!(tls.receive(&wire[..n]).expect("the server knows TLS"), b""),
        }
    }
    // Locked until it was sent, so that what is sent from now on comes later.
    let mut early = lock(early);
    tls.send(&early.take().unwrap_or_default()).expect("it is open");
    socket.write_all(&tls.take_wire()).map_err(reset)?;
    Ok(tls)
}
