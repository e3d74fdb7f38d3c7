//! The last version that held, in the data folder: a first line with where it is from, and the text as it came.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::remote::version::ConfigVersion;
use crate::core::atomic_file::{self, STAGING};

const FILE: &str = "configuration.toml";

/// The begin of the first line. The whole file is TOML.
const HEAD: &str = "# kept by tidegate: ";

/// The first line: the origin of the text, and its names.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    place: String,
    tag: String,
    digest: String,
}

/// The reason that a kept version is not used.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{} is damaged: its text is not that of the digest in its first line", .0.display())]
    Damaged(PathBuf),
    #[error("{} is of {place}, and not of this place", path.display())]
    OfAnother { path: PathBuf, place: String },
}

/// The file in a data folder.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// Keeps a version in the place of the one before, for its owner alone: it may hold secrets.
///
/// # Errors
/// The disk's.
pub fn write(data_dir: &Path, place: &str, version: &ConfigVersion) -> io::Result<()> {
    let ConfigVersion { text, tag, digest } = version;
    let head = Head { place: place.into(), tag: tag.clone(), digest: digest.clone() };
    let head = serde_json::to_string(&head).map_err(io::Error::other)?;
    atomic_file::replace(&data_dir.join(STAGING), &path(data_dir), format!("{HEAD}{head}\n{text}").as_bytes())
}

/// Reads the version that was kept of a place; `None`: none ever was.
///
/// # Errors
/// It cannot be used.
pub fn read(data_dir: &Path, place: &str) -> Result<Option<ConfigVersion>, KeptError> {
    let path = path(data_dir);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(KeptError::Unreadable { path, error }),
    };
    let parts = text.strip_prefix(HEAD).and_then(|rest| rest.split_once('\n'));
    let parsed = parts.and_then(|(head, text)| Some((serde_json::from_str::<Head>(head).ok()?, text)));
    let Some((head, text)) = parsed else { return Err(KeptError::Damaged(path)) };
    let version = ConfigVersion::new(text.to_owned(), head.tag);
    if version.digest != head.digest {
        return Err(KeptError::Damaged(path));
    }
    if head.place != place {
        return Err(KeptError::OfAnother { path, place: head.place });
    }
    Ok(Some(version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_kept_comes_back_as_it_was_and_damage_and_strangers_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let place = "https://config.example/a";
        assert!(read(folder.path(), place).unwrap().is_none());
        let version = ConfigVersion::new("data_dir = \"d\"\n# é\n".into(), "\"tag\\\"1\"".into());
        write(folder.path(), place, &version).unwrap();
        assert_eq!(read(folder.path(), place).unwrap(), Some(version));
        let path = path(folder.path());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        toml::from_str::<crate::config::Config>(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let error = read(folder.path(), "https://other.example/a").unwrap_err().to_string();
        assert!(error.contains(place), "{error}");
        let whole = std::fs::read_to_string(&path).unwrap();
        for damaged in [&whole[..whole.len() - 1], "", "data_dir = \"d\"\n", &whole.replace("\"d\"", "\"e\"")]
        {
            std::fs::write(&path, damaged).unwrap();
            assert!(matches!(read(folder.path(), place), Err(KeptError::Damaged(_))), "{damaged}");
        }
    }
}
