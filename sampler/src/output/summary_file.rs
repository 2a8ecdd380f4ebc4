//! The file that `--summary` names: tried before a recording, written after it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::directory::{OutputError, refused};
use super::place::Place;

/// Where a summary goes.
#[derive(Debug)]
pub struct SummaryFile {
    path: PathBuf,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    /// A file, which appears or is replaced at the end.
    File { place: Place, name: OsString },
    /// A pipe, a terminal or the like, which is simply written to.
    Stream(File),
}

impl SummaryFile {
    /// Tries that the summary can be written, and leaves alone what is there.
    pub fn prepare(path: &Path) -> Result<Self, OutputError> {
        let not_a_file = || OutputError::NotAFile(path.to_owned());
        let name = path.file_name().ok_or_else(not_a_file)?;
        let is_file = match fs::symlink_metadata(path) {
            Ok(there) => there.is_file(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(refused(path)(error)),
        };
        let sink = if is_file {
            Sink::File {
                place: Place::of_parent(path).map_err(refused(path))?,
                name: name.to_owned(),
            }
        } else {
            Sink::Stream(open_stream(path)?)
        };
        Ok(Self {
            path: path.to_owned(),
            sink,
        })
    }

    /// Whether permissions let this user write there.
    pub fn is_ours(&self) -> bool {
        match &self.sink {
            Sink::File { place, .. } => place.is_ours(),
            Sink::Stream(_) => true,
        }
    }

    /// Writes the summary: a file appears whole, mode 0600.
    pub fn write(self, summary: &[u8]) -> Result<(), OutputError> {
        let written = match self.sink {
            Sink::File { place, name } => place.write(&name, true, |out| out.write_all(summary)),
            Sink::Stream(mut stream) => stream.write_all(summary),
        };
        written.map_err(refused(&self.path))
    }
}

/// `/dev/stderr` and `/dev/fd/N` are links, so links are followed here; but
/// not to files, which a link must not choose.
fn open_stream(path: &Path) -> Result<File, OutputError> {
    let is_stream = |metadata: &fs::Metadata| !metadata.is_file() && !metadata.is_dir();
    let not_a_file = || OutputError::NotAFile(path.to_owned());
    if !is_stream(&fs::metadata(path).map_err(refused(path))?) {
        return Err(not_a_file());
    }
    // Does not create, and does not truncate: should it be a file by now, it is whole.
    let stream = File::options()
        .write(true)
        .open(path)
        .map_err(refused(path))?;
    if !is_stream(&stream.metadata().map_err(refused(path))?) {
        return Err(not_a_file());
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use std::io::Read as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_recording_that_does_not_begin_leaves_the_old_summary() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("s.json");
        drop(SummaryFile::prepare(&path).unwrap());
        assert!(!path.exists());
        fs::write(&path, "old").unwrap();
        drop(SummaryFile::prepare(&path).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn a_summary_is_private_and_replaces_an_older_one() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("s.json");
        fs::write(&path, "old, and longer").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let summary = SummaryFile::prepare(&path).unwrap();
        summary.write(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_chooses_no_file() {
        let root = tempfile::tempdir().unwrap();
        let (letters, link) = (root.path().join("letters"), root.path().join("s.json"));
        fs::write(&letters, "dear").unwrap();
        symlink(&letters, &link).unwrap();
        let refused = SummaryFile::prepare(&link);
        assert!(matches!(refused, Err(OutputError::NotAFile(_))));

        // One that appears later is replaced itself.
        fs::remove_file(&link).unwrap();
        let summary = SummaryFile::prepare(&link).unwrap();
        symlink(&letters, &link).unwrap();
        summary.write(b"new").unwrap();
        assert_eq!(fs::read(&letters).unwrap(), b"dear");
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
    }

    #[test]
    fn a_pipe_is_written_to_and_a_directory_refused() {
        let root = tempfile::tempdir().unwrap();
        let refused = SummaryFile::prepare(root.path());
        assert!(matches!(refused, Err(OutputError::NotAFile(_))));

        let (mut reader, writer) = io::pipe().unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
        let summary = SummaryFile::prepare(&path).unwrap();
        drop(writer);
        summary.write(b"new").unwrap();
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"new");
    }

    #[test]
    fn what_cannot_be_written_is_refused_beforehand() {
        let root = tempfile::tempdir().unwrap();
        let refused = SummaryFile::prepare(&root.path().join("missing/s.json"));
        assert!(matches!(refused, Err(OutputError::Io { .. })));
    }
}
