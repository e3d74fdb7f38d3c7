//! One tenant's folder in the guests folder, held open. A name in it is looked up from there, and nothing
//! that a tenant can plant in it leads out.
//!
//! - A link is followed if it ends inside the same tenant's folder. It is resolved first, and then each
//!   part of the result is opened without following links: a link that is exchanged meanwhile is refused.
//! - A tenant's folder is no link itself: it could be another tenant's.
//! - A file is staged in a folder of the gateway alone, and renamed into place. Where that lies on another file
//!   system, it is staged beside its place under a name that nobody has, which is opened only if it is new.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::error::RolloutError;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Neither a pipe is waited for, nor a link followed.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

const NEW_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A tenant's folder, open.
#[derive(Debug)]
pub struct TenantFolder {
    path: PathBuf,
    folder: OwnedFd,
}

impl TenantFolder {
    /// # Errors
    /// It is not there, or is a link.
    pub fn open(guests: &Path, tenant: &str) -> Result<Self, RolloutError> {
        let path = guests.join(tenant);
        let root = File::open(guests).map_err(RolloutError::Unreadable)?;
        match openat(&root, tenant, FOLDER, Mode::empty()) {
            Ok(folder) => Ok(Self { path, folder }),
            Err(_) if fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()) => {
                Err(RolloutError::OtherTenant)
            }
            Err(error) => Err(RolloutError::Unreadable(error.into())),
        }
    }

    /// Opens it, and makes it where it is not there.
    ///
    /// # Errors
    /// It cannot be made, or is a link.
    pub fn make(guests: &Path, tenant: &str) -> Result<Self, RolloutError> {
        let made = || -> io::Result<()> {
            fs::create_dir_all(guests)?;
            match mkdirat(File::open(guests)?, tenant, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(error) => Err(error.into()),
            }
        };
        made().map_err(not_writable)?;
        Self::open(guests, tenant)
    }

    /// The content of a file.
    ///
    /// # Errors
    /// It is not there, is no file, has more than `most` bytes, or is a link that leads out of this folder.
    pub fn read(&self, name: &str, most: u64) -> Result<Vec<u8>, RolloutError> {
        content(self.open_file(name)?, most)
    }

    /// The content of a file in a folder of this one, by a path with slashes, through no link. None: there is none.
    ///
    /// # Errors
    /// A part of the path is a link, or the errors of `read`.
    pub fn read_below(&self, path: &str, most: u64) -> Result<Option<Vec<u8>>, RolloutError> {
        let unreadable = |error: Errno| RolloutError::Unreadable(error.into());
        let mut at = self.folder.try_clone().map_err(RolloutError::Unreadable)?;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            if matches!(part, "" | "." | "..") {
                return Err(RolloutError::OtherTenant);
            }
            let flags = if parts.peek().is_some() { FOLDER } else { FILE };
            at = match openat(&at, part, flags, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::LOOP) => return Err(RolloutError::OtherTenant),
                Err(Errno::NOTDIR) => {
                    // A link to a folder is none either.
                    let found = statat(&at, part, AtFlags::SYMLINK_NOFOLLOW).map_err(unreadable)?;
                    return match FileType::from_raw_mode(found.st_mode) {
                        FileType::Symlink => Err(RolloutError::OtherTenant),
                        _ => Ok(None),
                    };
                }
                Err(error) => return Err(unreadable(error)),
            };
        }
        content(at.into(), most).map(Some)
    }

    fn open_file(&self, name: &str) -> Result<File, RolloutError> {
        match openat(&self.folder, name, FILE, Mode::empty()) {
            Ok(file) => Ok(file.into()),
            Err(Errno::LOOP) => self.open_link(name),
            Err(error) => Err(RolloutError::Unreadable(error.into())),
        }
    }

    /// Opens the end of a link, if it lies in this folder.
    fn open_link(&self, name: &str) -> Result<File, RolloutError> {
        let unreadable = RolloutError::Unreadable;
        let end = fs::canonicalize(self.path.join(name)).map_err(unreadable)?;
        let own = fs::canonicalize(&self.path).map_err(unreadable)?;
        let inside = end.strip_prefix(&own).map_err(|_| {
            let is_of_another = own.parent().is_some_and(|guests| end.starts_with(guests));
            if is_of_another { RolloutError::OtherTenant } else { RolloutError::Outside }
        })?;
        let mut at = self.folder.try_clone().map_err(unreadable)?;
        let mut parts = inside.components().peekable();
        while let Some(part) = parts.next() {
            let Component::Normal(part) = part else { return Err(RolloutError::Outside) };
            let flags = if parts.peek().is_some() { FOLDER } else { FILE };
            at = openat(&at, part, flags, Mode::empty()).map_err(|error| unreadable(error.into()))?;
        }
        Ok(at.into())
    }

    /// Puts a file in place, whole and synced, whatever lies there. `staging` is a folder of the gateway alone.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn replace(&self, name: &str, bytes: &[u8], staging: Option<&Path>) -> Result<(), RolloutError> {
        let staged = match staging {
            Some(staging) => match self.rename_from(staging, name, bytes) {
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => self.stage_here(name, bytes),
                done => done,
            },
            None => self.stage_here(name, bytes),
        };
        staged.and_then(|()| self.sync()).map_err(not_writable)
    }

    fn rename_from(&self, staging: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(staging)?;
        let mut staged = tempfile::NamedTempFile::with_prefix_in(".put-", staging)?;
        staged.write_all(bytes)?;
        staged.as_file().sync_all()?;
        renameat(CWD, staged.path(), &self.folder, name)?;
        Ok(())
    }

    fn stage_here(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let staged = unused_name();
        let file = openat(&self.folder, &staged, NEW_FILE, Mode::from_raw_mode(0o600))?;
        let mut file = File::from(file);
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        let placed = written.and_then(|()| Ok(renameat(&self.folder, &staged, &self.folder, name)?));
        if placed.is_err() {
            let _ = unlinkat(&self.folder, &staged, AtFlags::empty());
        }
        placed
    }

    /// Removes a file, or a link.
    ///
    /// # Errors
    /// It is not there, or the folder cannot be written to.
    pub fn remove(&self, name: &str) -> Result<(), RolloutError> {
        match unlinkat(&self.folder, name, AtFlags::empty()) {
            Ok(()) => self.sync().map_err(not_writable),
            Err(Errno::NOENT) => Err(RolloutError::NotThere),
            Err(error) => Err(not_writable(error.into())),
        }
    }

    /// The bytes of a file or link, itself; None where there is none.
    pub fn bytes_of(&self, name: &str) -> Option<u64> {
        let file =
            openat(&self.folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        let found = fstat(file.ok()?).ok()?;
        u64::try_from(found.st_size).ok()
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.folder)?)
    }
}

/// The content of a file of at most so many bytes.
fn content(file: File, most: u64) -> Result<Vec<u8>, RolloutError> {
    let metadata = file.metadata().map_err(RolloutError::Unreadable)?;
    if !metadata.is_file() {
        return Err(RolloutError::Unreadable(io::Error::other("it is not a file")));
    }
    if metadata.len() > most {
        return Err(RolloutError::TooLarge { bytes: metadata.len(), most });
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // It may grow while it is read; then it is another file at the next scan.
    file.take(most).read_to_end(&mut bytes).map_err(RolloutError::Unreadable)?;
    Ok(bytes)
}

fn not_writable(error: io::Error) -> RolloutError {
    RolloutError::Host(format!("the guests folder cannot be written to: {error}"))
}

/// A name that no file has. If somebody foresees it, the file is not opened, and the next try has another.
fn unused_name() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!(".put-{}-{}-{since}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A guests folder with acme and globex, whose options are a secret.
    fn guests() -> tempfile::TempDir {
        let guests = tempfile::TempDir::new().unwrap();
        for tenant in ["acme", "globex"] {
            fs::create_dir(guests.path().join(tenant)).unwrap();
        }
        fs::write(guests.path().join("globex/meter.toml"), "[options]\nkey = \"hunter2\"").unwrap();
        guests
    }

    #[test]
    fn a_link_may_lead_to_its_own_tenants_files_and_to_no_others() {
        let guests = guests();
        let acme = guests.path().join("acme");
        fs::create_dir(acme.join("v2")).unwrap();
        fs::write(acme.join("v2/meter.toml"), "own").unwrap();
        symlink("v2", acme.join("now")).unwrap();
        symlink("now/meter.toml", acme.join("relative.toml")).unwrap();
        symlink(acme.join("v2/meter.toml"), acme.join("absolute.toml")).unwrap();
        symlink("../globex/meter.toml", acme.join("other.toml")).unwrap();
        symlink("/etc/passwd", acme.join("system.toml")).unwrap();
        symlink("../globex", acme.join("folder")).unwrap();
        symlink("folder/meter.toml", acme.join("through.toml")).unwrap();
        let folder = TenantFolder::open(guests.path(), "acme").unwrap();
        for own in ["relative.toml", "absolute.toml"] {
            assert_eq!(folder.read(own, 100).unwrap(), b"own", "{own}");
        }
        for foreign in ["other.toml", "system.toml", "through.toml"] {
            let error = folder.read(foreign, 1 << 20).unwrap_err();
            assert!(matches!(error, RolloutError::Outside | RolloutError::OtherTenant), "{foreign}: {error}");
        }
    }

    #[test]
    fn a_tenants_folder_that_is_a_link_is_neither_read_nor_written() {
        let guests = guests();
        symlink("globex", guests.path().join("hooli")).unwrap();
        for opened in [TenantFolder::open(guests.path(), "hooli"), TenantFolder::make(guests.path(), "hooli")]
        {
            assert!(matches!(opened, Err(RolloutError::OtherTenant)));
        }
    }

    #[test]
    fn a_put_follows_no_link_and_leaves_nothing_staged() {
        let guests = guests();
        let (acme, gateway) = (guests.path().join("acme"), tempfile::TempDir::new().unwrap());
        let victim = gateway.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        for planted in ["meter.wasm", ".meter.wasm.new"] {
            symlink(&victim, acme.join(planted)).unwrap();
        }
        let folder = TenantFolder::open(guests.path(), "acme").unwrap();
        for (content, staging) in [("one", Some(gateway.path())), ("two", None)] {
            folder.replace("meter.wasm", content.as_bytes(), staging).unwrap();
            assert_eq!(fs::read_to_string(acme.join("meter.wasm")).unwrap(), content);
            assert!(!fs::symlink_metadata(acme.join("meter.wasm")).unwrap().is_symlink());
        }
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_dir(gateway.path()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(&acme).unwrap().count(), 2, "the component and the planted link");
        folder.remove("meter.wasm").unwrap();
        assert!(matches!(folder.remove("meter.wasm"), Err(RolloutError::NotThere)));
    }

    #[test]
    fn a_path_below_leads_through_no_link() {
        let guests = guests();
        let acme = guests.path().join("acme");
        fs::create_dir_all(acme.join("up/lib")).unwrap();
        fs::write(acme.join("up/lib/a.js"), "own").unwrap();
        symlink("../../globex", acme.join("up/out")).unwrap();
        symlink("../../globex/meter.toml", acme.join("up/b.js")).unwrap();
        symlink("up", acme.join("linked")).unwrap();
        let folder = TenantFolder::open(guests.path(), "acme").unwrap();
        let read = |path: &str| folder.read_below(path, 100);
        assert_eq!(read("up/lib/a.js").unwrap().unwrap(), b"own");
        for none in ["up/lib/b.js", "up/none/a.js", "up/lib/a.js/b.js", "none/index.js"] {
            assert_eq!(read(none).unwrap(), None, "{none}");
        }
        for foreign in
            ["up/out/meter.toml", "up/b.js", "up/../../globex/meter.toml", "linked/lib/a.js", "up/./lib/a.js"]
        {
            assert!(read(foreign).is_err(), "{foreign}");
        }
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        let guests = guests();
        fs::create_dir(guests.path().join("acme/meter.wasm")).unwrap();
        let folder = TenantFolder::open(guests.path(), "acme").unwrap();
        assert!(matches!(folder.read("meter.wasm", 100), Err(RolloutError::Unreadable(_))));
        assert!(matches!(folder.read("no-such.wasm", 100), Err(RolloutError::Unreadable(_))));
    }
}
