//! Route files without a component beside them. One that names a built-in decoder is a route; another waits for
//! its component. The folder is scanned every second, so each is read once, and again when it changes.

use std::collections::HashMap;
use std::path::Path;

use parking_lot::Mutex;

use crate::folder::route_file_name;
use crate::limits::ROUTE_FILE_BYTES_MAX;
use crate::route_file;
use crate::tenant_folder::TenantFolder;
use tidegate_core::file_stamp::FileStamp;
use tidegate_core::route_key::RouteKey;

/// The lone route files of the last scan.
#[derive(Debug, Default)]
pub struct LoneRouteFiles(Mutex<HashMap<RouteKey, (FileStamp, bool)>>);

impl LoneRouteFiles {
    /// The routes among these that their files make. A file that cannot be read or is not TOML counts: its
    /// evaluation says what is wrong with it.
    pub fn routes(&self, guests: &Path, lone: Vec<RouteKey>) -> Vec<RouteKey> {
        let mut known = self.0.lock();
        let mut now = HashMap::with_capacity(lone.len());
        let mut routes = Vec::new();
        for route_key in lone {
            let path = guests.join(&route_key.0).join(route_file_name(&route_key.1));
            let Ok(stamp) = FileStamp::read(&path) else { continue };
            let is_route = match known.get(&route_key) {
                Some((seen, is_route)) if *seen == stamp => *is_route,
                _ => is_route(guests, &route_key),
            };
            now.insert(route_key.clone(), (stamp, is_route));
            if is_route {
                routes.push(route_key);
            }
        }
        *known = now;
        routes
    }
}

fn is_route(guests: &Path, (tenant, stem): &RouteKey) -> bool {
    let read = TenantFolder::open(guests, tenant)
        .and_then(|folder| folder.read(&route_file_name(stem), ROUTE_FILE_BYTES_MAX));
    let Ok(Ok(text)) = read.map(String::from_utf8) else { return true };
    !matches!(route_file::decoder(&text), Ok(None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_route_file_is_a_route_while_it_names_a_decoder_or_is_broken() {
        let guests = tempfile::TempDir::new().unwrap();
        fs::create_dir(guests.path().join("acme")).unwrap();
        let lone = LoneRouteFiles::default();
        let key = ("acme".to_owned(), "meter".to_owned());
        let is_route = |text: &str| {
            // Another file each time: a stamp of the same inode may not change within a tick.
            let staged = guests.path().join("acme/.new");
            fs::write(&staged, text).unwrap();
            fs::rename(staged, guests.path().join("acme/meter.toml")).unwrap();
            let routes = [(); 2].map(|()| lone.routes(guests.path(), vec![key.clone()]));
            assert_eq!(routes[0], routes[1], "the second look reads nothing");
            !routes[0].is_empty()
        };
        assert!(is_route("decoder = \"json\""));
        assert!(!is_route("deadline_ms = 1"));
        assert!(is_route("decoder = "));
        assert!(is_route("decoder = \"no-such\""));
        fs::remove_file(guests.path().join("acme/meter.toml")).unwrap();
        assert!(lone.routes(guests.path(), vec![key.clone()]).is_empty());
    }
}
