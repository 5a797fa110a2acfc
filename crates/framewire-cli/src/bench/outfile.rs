use std::fs;
use std::path::{Path, PathBuf};

use super::error::BenchError;

/// A file to be written in two minutes' time: that it can be is found out now, and nothing is overwritten before.
#[derive(Debug)]
pub(crate) enum OutFile {
    Stdout,
    Path { path: PathBuf, partial: PathBuf },
}

impl OutFile {
    /// `-` is standard output.
    pub(crate) fn open(path: &Path) -> Result<Self, BenchError> {
        if path.as_os_str() == "-" {
            return Ok(Self::Stdout);
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(format!(".partial-{}", std::process::id()));
        let this = Self::Path { path: path.to_owned(), partial: partial.into() };
        if path.is_dir() {
            return Err(this.error(std::io::ErrorKind::IsADirectory.into()));
        }
        if let Self::Path { partial, .. } = &this {
            // nothing stays: an interrupted benchmark leaves no file behind
            fs::write(partial, "")
                .and_then(|()| fs::remove_file(partial))
                .map_err(|error| this.error(error))?;
        }
        Ok(this)
    }

    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self, Self::Stdout)
    }

    /// Writes all of it or nothing; returns the path, if it is one.
    pub(crate) fn write(&self, text: &str) -> Result<Option<String>, BenchError> {
        match self {
            Self::Stdout => {
                let written = super::write_out(&format!("{text}\n"));
                super::unless_closed(written).map_err(|error| self.error(error))?;
                Ok(None)
            }
            Self::Path { path, partial } => {
                fs::write(partial, text)
                    .and_then(|()| fs::rename(partial, path))
                    .map_err(|error| self.error(error))?;
                Ok(Some(path.display().to_string()))
            }
        }
    }

    fn error(&self, source: std::io::Error) -> BenchError {
        let path = match self {
            Self::Stdout => "standard output".into(),
            Self::Path { path, .. } => path.display().to_string(),
        };
        BenchError::Write { path, source }
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if let Self::Path { partial, .. } = self {
            let _ = fs::remove_file(partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_is_found_out_at_once() {
        assert!(OutFile::open(Path::new("/no such directory/x.json")).is_err());
        assert!(OutFile::open(&std::env::temp_dir()).is_err());
    }

    #[test]
    fn the_old_file_stays_until_the_new_one_is_whole() {
        let path = std::env::temp_dir().join(format!("framewire-outfile-{}", std::process::id()));
        fs::write(&path, "old").unwrap();
        let file = OutFile::open(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        let OutFile::Path { partial, .. } = &file else { panic!("it is a path") };
        assert!(!partial.exists(), "an interrupted benchmark leaves nothing");
        file.write("new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        drop(file);
        fs::remove_file(&path).unwrap();
    }
}
