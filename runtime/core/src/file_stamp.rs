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
        Ok(Self::of(&std::fs::metadata(path)?))
    }

    /// One stamp for all files and folders in a folder, at most `entries_max` of them and so many levels deep; links are
    /// taken as they are. `None`: it is no folder.
    pub fn read_folder(path: &Path, entries_max: usize, depth_max: usize) -> Option<Self> {
        let mut entries = entries_max;
        Self::of_folder(path, &mut entries, depth_max)
    }

    fn of_folder(path: &Path, entries: &mut usize, depth: usize) -> Option<Self> {
        let metadata = std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_dir)?;
        let mut all = Self::of(&metadata);
        for entry in std::fs::read_dir(path).ok()?.flatten() {
            if *entries == 0 {
                break;
            }
            *entries -= 1;
            let Ok(metadata) = std::fs::symlink_metadata(entry.path()) else { continue };
            let one = match metadata.is_dir() {
                true if depth > 0 => Self::of_folder(&entry.path(), entries, depth - 1),
                true => None,
                false => Some(Self::of(&metadata)),
            };
            if let Some(one) = one {
                all.inode = all.inode.wrapping_add(one.inode.rotate_left(17));
                all.bytes = all.bytes.saturating_add(one.bytes);
                all.modified = all.modified.max(one.modified);
                all.changed = all.changed.max(one.changed);
            }
        }
        Some(all)
    }

    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
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

    #[test]
    fn a_change_of_any_file_in_a_folder_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let read = || FileStamp::read_folder(folder.path(), 100, 3).unwrap();
        fs::create_dir(folder.path().join("lib")).unwrap();
        for file in ["index.js", "lib/a.js"] {
            fs::write(folder.path().join(file), "a").unwrap();
        }
        let first = read();
        assert_eq!(read(), first);
        for change in [
            (|path| fs::write(path.join("lib/a.js"), "bc")) as fn(&Path) -> io::Result<()>,
            |path| fs::write(path.join("lib/b.js"), ""),
            |path| fs::rename(path.join("lib/b.js"), path.join("lib/c.js")),
            |path| fs::remove_file(path.join("lib/c.js")),
        ] {
            // A tick of the file system's clock.
            std::thread::sleep(std::time::Duration::from_millis(20));
            let before = read();
            change(folder.path()).unwrap();
            assert_ne!(read(), before);
        }
        assert_eq!(FileStamp::read_folder(&folder.path().join("index.js"), 100, 3), None);
        assert_eq!(FileStamp::read_folder(&folder.path().join("none"), 100, 3), None);
    }
}
