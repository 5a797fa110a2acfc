//! The file of a Unix socket: made, replaced where a dead server left it behind, and removed in the end.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
};
use socket2::{Domain, SockAddr, Socket, Type};

/// How long a server that starts waits for another server that starts or ends at the same path, which takes that one
/// only a few system calls.
const START_PATIENCE: Duration = Duration::from_secs(1);
/// The same for a server that ends, while its sessions wait. A file that it leaves behind is replaced by the next
/// server.
const END_PATIENCE: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_millis(1);

/// The file of a socket of ours. Dropping it removes the file, unless another server has put its own there; so it must
/// be dropped before the socket is closed, which frees the inode for other files.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    id: FileId,
}

/// Device and inode. No other file has them while the socket that is bound to this one is open.
type FileId = (u64, u64);

impl SocketFile {
    /// Binds `socket` to `path` and listens. A file that an earlier server left behind is replaced; one that
    /// another server listens on is not.
    ///
    /// The lock is held from before the file is there until the socket listens: before that it looks like one that a
    /// dead server left behind.
    pub(super) fn bind(socket: &Socket, path: &Path, backlog: i32) -> io::Result<Self> {
        let addr = SockAddr::unix(path)?;
        let Some(_lock) = PathLock::acquire(path, START_PATIENCE)? else {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("another server holds {}", lock_path(path).display()),
            ));
        };
        if let Err(error) = socket.bind(&addr) {
            if error.kind() != io::ErrorKind::AddrInUse || !is_stale(path) {
                return Err(error);
            }
            fs::remove_file(path)?;
            socket.bind(&addr)?;
        }
        let file = Self { path: path.to_owned(), id: id_of(&fs::symlink_metadata(path)?) };
        socket.listen(backlog)?;
        Ok(file)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Where no lock file can be made, no other server can make a socket file either.
        let lock = PathLock::acquire(&self.path, END_PATIENCE);
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|file| id_of(&file) == self.id);
        if is_ours && !matches!(lock, Ok(None)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn id_of(file: &Metadata) -> FileId {
    (file.dev(), file.ino())
}

/// Returns `true` if it is the file of a Unix socket that no process listens on. Any other file is not ours to remove.
fn is_stale(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    // Without waiting: a server whose queue is full is alive.
    let knock = || -> io::Result<()> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    is_socket && knock().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The right to make, replace or remove a socket file: an advisory lock on a file beside it.
///
/// The system gives it back when a process dies, whatever that has left behind. The lock file goes with the lock, while
/// it is still held; a process that had opened it before gets a lock on a file that no longer exists, and opens the
/// next.
#[derive(Debug)]
struct PathLock {
    path: PathBuf,
    #[expect(dead_code, reason = "unlocks when it is dropped")]
    file: File,
}

impl PathLock {
    /// Returns `None` if another process holds the lock for longer than `patience`.
    fn acquire(socket: &Path, patience: Duration) -> io::Result<Option<Self>> {
        let path = lock_path(socket);
        let deadline = Instant::now() + patience;
        loop {
            if let Some(file) = try_lock(&path)? {
                return Ok(Some(Self { path, file }));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(RETRY);
        }
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn lock_path(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    // Through a link at this path, we would make a file elsewhere.
    let no_links = OFlags::NOFOLLOW.bits() as i32;
    options.read(true).write(true).create(true).truncate(false).custom_flags(no_links);
    let file = options.open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let locked = id_of(&file.metadata()?);
    let is_current = fs::symlink_metadata(path).is_ok_and(|file| id_of(&file) == locked);
    Ok(is_current.then_some(file))
}
