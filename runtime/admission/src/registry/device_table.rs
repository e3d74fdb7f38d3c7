//! The devices of a registry file in memory, small: there may be a million.
//!
//! A device is one piece of bytes: the numbers of its tenant, its site and its status with the kind of its
//! token, four bytes each; the length of its id; the id; the hash of its token if it has one; and bytes of
//! zero up to the next place that four divides. Devices stand one behind the other, in the order of the
//! file, in chunks that none crosses. A hash table has the place of each, in units of four bytes.
//!
//! A table that is built beside an earlier one shares the chunks whose bytes are the same.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::limits::DEVICE_CHUNK_BYTES;
use crate::registry::device_records::DeviceLine;
use crate::registry::interned_texts::{TextInterner, Texts};
use crate::registry::row::{RegistryRow, TokenHash};

/// Bytes of a device before its id.
const HEAD_BYTES: usize = 16;

const UNIT_BYTES: usize = 4;

const UNITS_A_CHUNK: usize = DEVICE_CHUNK_BYTES / UNIT_BYTES;

/// The kinds of a token, in the two lowest bits behind the number of the status.
const NOT_SET: u32 = 0;
const UNMATCHABLE: u32 = 1;
const SHA256: u32 = 2;
const KIND_BITS: u32 = 2;

/// The reason that devices make no table.
#[derive(Debug)]
pub enum TableError {
    /// The devices take more than places can name.
    Full {
        line: usize,
    },
    Twice {
        line: usize,
        first: usize,
        tenant: String,
        device: String,
    },
}

/// The devices of a file.
#[derive(Default)]
pub struct DeviceTable {
    chunks: Vec<Arc<[u8]>>,
    texts: Texts,
    places: HashTable<u32>,
    hasher: RandomState,
}

impl fmt::Debug for DeviceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceTable({} devices)", self.count())
    }
}

/// A device in its chunk.
struct StoredDevice<'a> {
    tenant: u32,
    site: u32,
    status: u32,
    token_kind: u32,
    id: &'a [u8],
    hash: &'a [u8],
}

impl<'a> StoredDevice<'a> {
    /// The device that stands at the begin of some bytes.
    fn at(bytes: &'a [u8]) -> Self {
        let number = |place: usize| {
            let four = bytes[place..].first_chunk().expect("a device has a head");
            u32::from_le_bytes(*four)
        };
        let (status, id_end) = (number(8), HEAD_BYTES + number(12) as usize);
        let token_kind = status & ((1 << KIND_BITS) - 1);
        let hash_bytes = if token_kind == SHA256 { size_of::<[u8; 32]>() } else { 0 };
        Self {
            tenant: number(0),
            site: number(4),
            status: status >> KIND_BITS,
            token_kind,
            id: &bytes[HEAD_BYTES..id_end],
            hash: &bytes[id_end..id_end + hash_bytes],
        }
    }

    /// The units that it takes.
    fn units(&self) -> usize {
        (HEAD_BYTES + self.id.len() + self.hash.len()).div_ceil(UNIT_BYTES)
    }

    fn token(&self) -> TokenHash {
        match (self.token_kind, self.hash.try_into()) {
            (SHA256, Ok(hash)) => TokenHash::Sha256(hash),
            (NOT_SET, _) => TokenHash::NotSet,
            _ => TokenHash::Unmatchable,
        }
    }
}

/// The device at a place.
fn stored(chunks: &[Arc<[u8]>], place: u32) -> StoredDevice<'_> {
    let (chunk, unit) = (place as usize / UNITS_A_CHUNK, place as usize % UNITS_A_CHUNK);
    StoredDevice::at(&chunks[chunk][unit * UNIT_BYTES..])
}

impl DeviceTable {
    pub fn count(&self) -> usize {
        self.places.len()
    }

    pub fn contains(&self, tenant: &str, device: &str) -> bool {
        self.find(tenant, device).is_some()
    }

    pub fn lookup(&self, tenant: &str, device: &str) -> Option<RegistryRow> {
        let found = self.find(tenant, device)?;
        Some(RegistryRow {
            site_id: self.texts.get(found.site).to_owned(),
            status: self.texts.get(found.status).to_owned(),
            token: found.token(),
        })
    }

    fn find(&self, tenant: &str, device: &str) -> Option<StoredDevice<'_>> {
        let is_it = |place: &u32| {
            let found = stored(&self.chunks, *place);
            found.id == device.as_bytes() && self.texts.get(found.tenant) == tenant
        };
        let hash = hash_of(&self.hasher, tenant, device.as_bytes());
        self.places.find(hash, is_it).map(|place| stored(&self.chunks, *place))
    }
}

fn hash_of(hasher: &RandomState, tenant: &str, device: &[u8]) -> u64 {
    hasher.hash_one((tenant, device))
}

/// Builds a table from the lines of a file, in their order.
#[derive(Debug)]
pub struct DeviceTableBuilder<'a> {
    before: &'a DeviceTable,
    chunks: Vec<Arc<[u8]>>,
    /// The chunk that is not full.
    open: Vec<u8>,
    texts: TextInterner,
    /// The line of each device.
    lines: Vec<u32>,
}

impl<'a> DeviceTableBuilder<'a> {
    /// A builder that shares chunks of `before`.
    pub fn beside(before: &'a DeviceTable) -> Self {
        let (chunks, open, texts, lines) = (Vec::new(), Vec::new(), TextInterner::default(), Vec::new());
        Self { before, chunks, open, texts, lines }
    }

    /// Adds a device.
    ///
    /// # Errors
    /// There is no room.
    pub fn push(&mut self, line: usize, device: &DeviceLine<'_>) -> Result<(), TableError> {
        let full = || TableError::Full { line };
        let token = TokenHash::parse(device.provision_token_hash.as_deref());
        let (kind, hash) = match &token {
            TokenHash::NotSet => (NOT_SET, &[][..]),
            TokenHash::Unmatchable => (UNMATCHABLE, &[][..]),
            TokenHash::Sha256(hash) => (SHA256, &hash[..]),
        };
        let tenant = self.texts.intern(&device.tenant_id).ok_or_else(full)?;
        let site = self.texts.intern(&device.site_id).ok_or_else(full)?;
        let status = self.texts.intern(&device.status).ok_or_else(full)?;
        let status = status.checked_mul(1 << KIND_BITS).ok_or_else(full)? | kind;
        let id = device.device_id.as_bytes();
        let id_bytes = u32::try_from(id.len()).map_err(|_| full())?;
        let bytes = (HEAD_BYTES + id.len() + hash.len()).next_multiple_of(UNIT_BYTES);
        if self.open.len() + bytes > DEVICE_CHUNK_BYTES {
            self.close_chunk();
        }
        // A place has 32 bits.
        let end = (self.chunks.len() + 1) * UNITS_A_CHUNK;
        if bytes > DEVICE_CHUNK_BYTES || end > u32::MAX as usize {
            return Err(full());
        }
        let padded = self.open.len() + bytes;
        for number in [tenant, site, status, id_bytes] {
            self.open.extend_from_slice(&number.to_le_bytes());
        }
        self.open.extend_from_slice(id);
        self.open.extend_from_slice(hash);
        self.open.resize(padded, 0);
        self.lines.push(u32::try_from(line).unwrap_or(u32::MAX));
        Ok(())
    }

    fn close_chunk(&mut self) {
        let same = self.before.chunks.get(self.chunks.len()).filter(|before| ***before == *self.open);
        self.chunks.push(same.cloned().unwrap_or_else(|| Arc::from(self.open.as_slice())));
        self.open.clear();
    }

    /// The table of all devices.
    ///
    /// # Errors
    /// A device is there twice.
    pub fn finish(mut self) -> Result<DeviceTable, TableError> {
        self.close_chunk();
        let (chunks, texts, hasher) = (self.chunks, self.texts.finish(), RandomState::default());
        let hash = |device: &StoredDevice<'_>| hash_of(&hasher, texts.get(device.tenant), device.id);
        let mut places = HashTable::with_capacity(self.lines.len());
        for (place, line) in places_in_order(&chunks).zip(&self.lines) {
            let device = stored(&chunks, place);
            let same = |other: &u32| {
                let other = stored(&chunks, *other);
                other.id == device.id && other.tenant == device.tenant
            };
            match places.entry(hash(&device), same, |other| hash(&stored(&chunks, *other))) {
                Entry::Vacant(free) => free.insert(place),
                Entry::Occupied(first) => {
                    let nth = places_in_order(&chunks).position(|other| other == *first.get());
                    return Err(TableError::Twice {
                        line: *line as usize,
                        first: nth.map_or(0, |nth| self.lines[nth] as usize),
                        tenant: texts.get(device.tenant).to_owned(),
                        device: String::from_utf8_lossy(device.id).into_owned(),
                    });
                }
            };
        }
        Ok(DeviceTable { chunks, texts, places, hasher })
    }
}

/// The places of all devices, in the order of the file.
fn places_in_order(chunks: &[Arc<[u8]>]) -> impl Iterator<Item = u32> {
    chunks.iter().enumerate().flat_map(|(chunk, bytes)| {
        let mut unit = 0;
        std::iter::from_fn(move || {
            let bytes = bytes.get(unit * UNIT_BYTES..).filter(|bytes| !bytes.is_empty())?;
            let place = chunk * UNITS_A_CHUNK + unit;
            unit += StoredDevice::at(bytes).units();
            Some(place as u32)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::row::token_hash;
    use std::borrow::Cow;

    /// A device of tenant-(n % 7), with a token of each kind.
    fn line(n: usize, status: &'static str) -> [Option<Cow<'static, str>>; 5] {
        let token = match n % 3 {
            0 => None,
            1 => Some(String::new().into()),
            _ => Some(token_hash(&format!("tok-{n}")).into()),
        };
        let site = format!("site-{}{}", n % 50, "x".repeat(n % 5));
        [
            Some(format!("tenant-{}", n % 7).into()),
            Some(format!("dev-{n}").into()),
            Some(site.into()),
            Some(status.into()),
            token,
        ]
    }

    fn push(table: &mut DeviceTableBuilder<'_>, nth: usize, n: usize, status: &'static str) {
        let [tenant, device, site, status, hash] = line(n, status);
        let device = DeviceLine {
            tenant_id: tenant.unwrap(),
            device_id: device.unwrap(),
            site_id: site.unwrap(),
            status: status.unwrap(),
            provision_token_hash: hash,
        };
        table.push(nth + 2, &device).unwrap();
    }

    /// More than two chunks of devices, where those of `revoked` are so.
    fn table(before: &DeviceTable, devices: usize, revoked: Option<usize>) -> DeviceTable {
        let mut table = DeviceTableBuilder::beside(before);
        for n in 0..devices {
            push(&mut table, n, n, if Some(n) == revoked { "REVOKED" } else { "ACTIVE" });
        }
        table.finish().unwrap()
    }

    const DEVICES: usize = 60_000;

    fn shared(one: &DeviceTable, other: &DeviceTable) -> Vec<bool> {
        one.chunks.iter().zip(&other.chunks).map(|(one, other)| Arc::ptr_eq(one, other)).collect()
    }

    #[test]
    fn every_device_is_found_as_it_came_and_no_other() {
        let table = table(&DeviceTable::default(), DEVICES, Some(9));
        assert_eq!(table.count(), DEVICES);
        assert!(table.chunks.len() > 2, "{}", table.chunks.len());
        for n in 0..DEVICES {
            let [tenant, device, site, _, hash] = line(n, "");
            let found = table.lookup(&tenant.unwrap(), &device.unwrap()).unwrap();
            assert_eq!(found.site_id, site.unwrap());
            assert_eq!(found.status, if n == 9 { "REVOKED" } else { "ACTIVE" });
            assert_eq!(found.token, TokenHash::parse(hash.as_deref()));
        }
        for (tenant, device) in [("tenant-0", "dev-1"), ("tenant-1", "dev-"), ("ACTIVE", "dev-1"), ("", "")] {
            assert!(!table.contains(tenant, device), "{tenant}/{device}");
        }
    }

    #[test]
    fn a_change_copies_the_chunk_that_it_is_in_and_shares_the_others() {
        let before = table(&DeviceTable::default(), DEVICES, None);
        assert!(shared(&before, &table(&before, DEVICES, None)).iter().all(|shared| *shared));
        let longer = table(&before, DEVICES + 1, None);
        let (last, rest) = shared(&before, &longer).split_last().map(|(l, r)| (*l, r.to_vec())).unwrap();
        assert!(!last && rest.iter().all(|shared| *shared));
        let revoked = table(&before, DEVICES, Some(DEVICES - 1));
        assert_eq!(shared(&before, &revoked), shared(&before, &longer));
        assert_eq!(before.lookup("tenant-2", "dev-59999").unwrap().status, "ACTIVE");
        assert_eq!(revoked.lookup("tenant-2", "dev-59999").unwrap().status, "REVOKED");
    }

    #[test]
    fn a_device_that_comes_again_is_named_with_both_its_lines() {
        let nothing = DeviceTable::default();
        let mut table = DeviceTableBuilder::beside(&nothing);
        for n in 0..DEVICES {
            push(&mut table, n, n, "ACTIVE");
        }
        push(&mut table, DEVICES + 5, 40_000, "REVOKED");
        match table.finish().unwrap_err() {
            TableError::Twice { line, first, tenant, device } => {
                assert_eq!((line, first), (DEVICES + 7, 40_002));
                assert_eq!((tenant.as_str(), device.as_str()), ("tenant-2", "dev-40000"));
            }
            TableError::Full { line } => panic!("full at {line}"),
        }
    }
}
