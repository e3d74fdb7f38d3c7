//! A configuration in a git checkout, which something else updates (`git pull`, git-sync). Git changes files one after
//! the other and holds `index.lock` meanwhile: a version is read between two updates.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::config::DEFAULT_FILE;
use crate::config::remote::version::ConfigVersion;
use crate::limits::CONFIG_BYTES_MAX;

/// The reason that no version can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckoutError {
    #[error("git changes the checkout, or was ended while it did: {} is there", .0.display())]
    Busy(PathBuf),
    #[error("git has changed the checkout while it was read")]
    Changed,
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("{} is larger than {CONFIG_BYTES_MAX} bytes", .0.display())]
    Large(PathBuf),
    #[error("{} is empty", .0.display())]
    Empty(PathBuf),
}

/// Reads the configuration in `folder`, with the commit that is checked out.
///
/// # Errors
/// It cannot be read, or an update is under way.
pub(super) fn read(folder: &Path) -> Result<ConfigVersion, CheckoutError> {
    let git = git_folder(folder)?;
    let lock = git.join("index.lock");
    if lock.exists() {
        return Err(CheckoutError::Busy(lock));
    }
    let commit = commit(&git)?;
    let path = folder.join(DEFAULT_FILE);
    let unreadable = |error| CheckoutError::Unreadable { path: path.clone(), error };
    // A named pipe would never end.
    if !fs::metadata(&path).map_err(unreadable)?.is_file() {
        return Err(unreadable(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "it is no regular file",
        )));
    }
    let mut text = String::new();
    let file = fs::File::open(&path).map_err(unreadable)?;
    let read = file.take(CONFIG_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    if read > CONFIG_BYTES_MAX {
        return Err(CheckoutError::Large(path));
    }
    if text.trim().is_empty() {
        return Err(CheckoutError::Empty(path));
    }
    if lock.exists() || self::commit(&git)? != commit {
        return Err(CheckoutError::Changed);
    }
    Ok(ConfigVersion::new(text, commit))
}

fn text(path: PathBuf) -> Result<String, CheckoutError> {
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(CheckoutError::Unreadable { path, error }),
    }
}

/// The folder of git's own files: `.git`, or the one that the file `.git` of a linked worktree names.
fn git_folder(folder: &Path) -> Result<PathBuf, CheckoutError> {
    let git = folder.join(".git");
    if git.is_dir() {
        return Ok(git);
    }
    let named = text(git)?;
    Ok(folder.join(named.strip_prefix("gitdir:").unwrap_or(&named).trim()))
}

/// The commit of HEAD: itself, or that of its branch in a file of its own or among the packed ones
/// (gitrepository-layout(5)). A branch without a commit has the empty one.
fn commit(git: &Path) -> Result<String, CheckoutError> {
    let head = text(git.join("HEAD"))?;
    let Some(branch) = head.strip_prefix("ref:").map(str::trim) else { return Ok(head) };
    let common = match text(git.join("commondir")) {
        Ok(common) => git.join(common),
        Err(_) => git.to_owned(),
    };
    if let Ok(commit) = text(common.join(branch)) {
        return Ok(commit);
    }
    let packed = text(common.join("packed-refs")).unwrap_or_default();
    let mut commits = packed.lines().filter_map(|line| line.split_once(' '));
    Ok(commits.find(|(_, name)| *name == branch).map(|(commit, _)| commit.to_owned()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_found_wherever_git_keeps_it_and_an_update_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::write(path(name), text).unwrap();
        };
        write("a/.git/HEAD", "ref: refs/heads/main\n");
        write(
            "a/.git/packed-refs",
            "# pack-refs with: peeled\n11aa refs/heads/other\n22bb refs/heads/main\n",
        );
        write("a/tidegate.toml", "data_dir = \"d\"\n");
        let tag =
            |folder: &str| read(&path(folder)).map(|version| version.tag).map_err(|error| error.to_string());
        assert_eq!(tag("a"), Ok("22bb".into()));
        write("a/.git/refs/heads/main", "33cc\n");
        assert_eq!(tag("a"), Ok("33cc".into()));
        write("a/.git/index.lock", "");
        assert!(tag("a").unwrap_err().contains("index.lock"));
        fs::remove_file(path("a/.git/index.lock")).unwrap();
        // A linked worktree, as git-sync makes it.
        write("b/.git", "gitdir: ../a/.git/worktrees/b\n");
        write("b/tidegate.toml", "data_dir = \"d\"\n");
        write("a/.git/worktrees/b/HEAD", "44dd\n");
        assert_eq!(tag("b"), Ok("44dd".into()));
        write("a/.git/worktrees/b/HEAD", "ref: refs/heads/main\n");
        write("a/.git/worktrees/b/commondir", "../..\n");
        assert_eq!(tag("b"), Ok("33cc".into()));
        write("b/tidegate.toml", &"#".repeat(CONFIG_BYTES_MAX + 1));
        assert!(tag("b").unwrap_err().contains("larger"));
        write("b/tidegate.toml", "\n");
        assert!(tag("b").unwrap_err().contains("empty"));
        fs::remove_file(path("b/tidegate.toml")).unwrap();
        assert!(tag("b").unwrap_err().contains("tidegate.toml"));
    }
}
