//! The stamp of a file, by which a change is seen without reading it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A mark that tells one state of a file from another: each write, each replacement and each change of
/// owner or mode gives another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    /// The stamp of the file at `path`; links are followed.
    ///
    /// # Errors
    /// The file is not there, or cannot be reached.
    pub fn read(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// The length of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_write_of_the_same_length_and_time_is_seen_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(FileStamp::read(&path).is_err());
        fs::write(&path, "a").unwrap();
        let stamp = FileStamp::read(&path).unwrap();
        assert_eq!(FileStamp::read(&path).unwrap(), stamp);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let other = folder.path().join("other");
        fs::write(&other, "b").unwrap();
        fs::File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(FileStamp::read(&path).unwrap(), stamp);
    }
}
