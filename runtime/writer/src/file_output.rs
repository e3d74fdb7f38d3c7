//! The file output: `{path}/{database}/{YYYY-MM-DDTHH}.lp`, complete lines, the hour of writing
//! in UTC. Lines count as written when they are synced.
//!
//! A file holds complete lines only: the rest of a failed append is cut off before the next try,
//! and that of a crash when the file is opened again (its messages were never acknowledged). A file
//! that was moved or removed meanwhile is noticed and made anew.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tracing::warn;

use crate::limits;
use tidegate_core::ids::DatabaseName;

const FILE_NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {error}", path.display())]
pub struct FileError {
    pub doing: &'static str,
    pub path: PathBuf,
    #[source]
    pub error: io::Error,
}

/// The folder of line files.
pub struct FileOutput {
    root: PathBuf,
    open: Mutex<HashMap<DatabaseName, Arc<Mutex<Option<LineFile>>>>>,
}

struct LineFile {
    path: PathBuf,
    file: File,
    /// The length up to which the file holds complete, synced lines.
    length: u64,
}

impl FileOutput {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), open: Mutex::default() }
    }

    /// Appends `lines`, each ended by a newline, and syncs. Blocks.
    ///
    /// # Errors
    /// The lines are not durable. The file's complete lines are as they were.
    pub fn append(
        &self,
        database: &DatabaseName,
        now: jiff::Timestamp,
        lines: &[u8],
    ) -> Result<(), FileError> {
        let path = self.path_of(database, now);
        let handle = self.handle(database);
        let mut open = handle.lock();
        if open.as_ref().is_some_and(|file| file.path != path || !file.is_in_place()) {
            *open = None;
        }
        let mut file = match open.take() {
            Some(file) => file,
            None => LineFile::open(&path)?,
        };
        // A file that failed is opened anew, so that nothing is presumed about it.
        file.append(lines)?;
        *open = Some(file);
        Ok(())
    }

    /// The file that lines of `database` go to at `now`.
    pub fn path_of(&self, database: &DatabaseName, now: jiff::Timestamp) -> PathBuf {
        let mut name = utf8_percent_encode(database.as_str(), FILE_NAME).to_string();
        if name.starts_with('.') {
            name.replace_range(..1, "%2E");
        }
        self.root.join(name).join(now.strftime("%Y-%m-%dT%H.lp").to_string())
    }

    fn handle(&self, database: &DatabaseName) -> Arc<Mutex<Option<LineFile>>> {
        let mut open = self.open.lock();
        if let Some(handle) = open.get(database) {
            return handle.clone();
        }
        if open.len() >= limits::LINE_FILES_OPEN_MAX {
            // Any that is not being written: opening again costs microseconds beside a sync.
            let idle = open.iter().find(|(_, handle)| Arc::strong_count(handle) == 1);
            if let Some(idle) = idle.map(|(database, _)| database.clone()) {
                open.remove(&idle);
            }
        }
        open.entry(database.clone()).or_default().clone()
    }
}

impl LineFile {
    fn open(path: &Path) -> Result<Self, FileError> {
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |error| FileError { doing, path, error }
        };
        let dir = path.parent().expect("a line file lies in its database's folder");
        let root = dir.parent().expect("a database's folder lies in the output's");
        let is_new = !path.exists();
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create", dir))?;
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
        let mut file = file.map_err(failed("open", path))?;
        let length = complete_length(&mut file).map_err(failed("read", path))?;
        let mut opened = Self { path: path.to_owned(), file, length };
        opened.cut().map_err(failed("cut", path))?;
        if is_new {
            for dir in [dir, root] {
                File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))?;
            }
        }
        Ok(opened)
    }

    /// Cuts off the bytes behind the last complete line.
    fn cut(&mut self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        if length != self.length {
            warn!(path = %self.path.display(), at = self.length, bytes = length - self.length,
                  "cut an incomplete line off a line file; its message comes again");
            self.file.set_len(self.length)?;
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), FileError> {
        let written = self.file.write_all(lines).map_err(|error| ("write to", error));
        let written = written.and_then(|()| self.file.sync_data().map_err(|error| ("sync", error)));
        if let Err((doing, error)) = written {
            // A sync that failed says nothing about what is on the disk: cut it in both cases.
            let _ = self.file.set_len(self.length);
            return Err(FileError { doing, path: self.path.clone(), error });
        }
        self.length += lines.len() as u64;
        Ok(())
    }

    /// True if the path still leads to this file.
    fn is_in_place(&self) -> bool {
        let same = |there: std::fs::Metadata| {
            self.file.metadata().is_ok_and(|own| own.dev() == there.dev() && own.ino() == there.ino())
        };
        std::fs::metadata(&self.path).is_ok_and(same)
    }
}

/// The length up to and with the last newline.
fn complete_length(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = vec![0; 64 << 10];
    while end > 0 {
        let begin = end.saturating_sub(block.len() as u64);
        let block = &mut block[..(end - begin) as usize];
        file.read_exact_at(block, begin)?;
        if let Some(newline) = memchr::memrchr(b'\n', block) {
            return Ok(begin + newline as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use tidegate_core::ids::DatabaseName;

    fn at(text: &str) -> jiff::Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn lines_lie_in_the_file_of_their_database_and_hour() {
        let dir = tempfile::tempdir().unwrap();
        let output = FileOutput::new(&dir.path().join("lines"));
        let database = DatabaseName::new("telemetry_acme");
        output.append(&database, at("2024-05-01T10:59:59Z"), b"a f=1 1\n").unwrap();
        output.append(&database, at("2024-05-01T10:59:59Z"), b"b f=1 1\n").unwrap();
        output.append(&database, at("2024-05-01T11:00:00Z"), b"c f=1 1\n").unwrap();
        let folder = dir.path().join("lines/telemetry_acme");
        assert_eq!(std::fs::read(folder.join("2024-05-01T10.lp")).unwrap(), b"a f=1 1\nb f=1 1\n");
        assert_eq!(std::fs::read(folder.join("2024-05-01T11.lp")).unwrap(), b"c f=1 1\n");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("2024-05-01T10.lp"))), (0o700, 0o600));
    }

    #[test]
    fn half_a_line_that_a_crash_left_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let database = DatabaseName::new("db");
        let now = at("2024-05-01T10:00:00Z");
        let path = FileOutput::new(dir.path()).path_of(&database, now);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let torn = [b"a f=1 1\n".to_vec(), vec![b'x'; 100_000]].concat();
        std::fs::write(&path, torn).unwrap();
        FileOutput::new(dir.path()).append(&database, now, b"b f=1 1\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"a f=1 1\nb f=1 1\n");
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let output = FileOutput::new(dir.path());
        let (database, now) = (DatabaseName::new("db"), at("2024-05-01T10:00:00Z"));
        let path = output.path_of(&database, now);
        output.append(&database, now, b"a f=1 1\n").unwrap();
        std::fs::rename(&path, dir.path().join("taken")).unwrap();
        output.append(&database, now, b"b f=1 1\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"b f=1 1\n");
    }

    #[test]
    fn an_error_names_the_path_and_what_was_done() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("lines");
        std::fs::write(&blocked, b"").unwrap();
        let output = FileOutput::new(&blocked);
        let error =
            output.append(&DatabaseName::new("db"), at("2024-05-01T10:00:00Z"), b"a f=1 1\n").unwrap_err();
        assert!(
            error.to_string().starts_with("cannot create ") && error.to_string().contains("lines/db"),
            "{error}"
        );
    }

    #[test]
    fn no_database_name_leads_out_of_the_folder() {
        let output = FileOutput::new(Path::new("/out"));
        for name in ["..", ".", "a/../../b", "/etc"] {
            let path = output.path_of(&DatabaseName::new(name), at("2024-05-01T10:00:00Z"));
            assert_eq!(path.components().count(), 4, "{path:?}");
            assert!(!path.components().any(|part| part == std::path::Component::ParentDir), "{path:?}");
        }
    }

    #[test]
    fn open_files_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let output = FileOutput::new(dir.path());
        for n in 0..limits::LINE_FILES_OPEN_MAX + 20 {
            output
                .append(&DatabaseName::new(&n.to_string()), at("2024-05-01T10:00:00Z"), b"a f=1 1\n")
                .unwrap();
        }
        assert_eq!(output.open.lock().len(), limits::LINE_FILES_OPEN_MAX);
    }
}
