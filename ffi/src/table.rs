//! Handles: numbers that stand for tunnels, so that a stale or invented one is an error and not a crash.
//!
//! A handle is a place in a table with the number of times that the place was given out. The table's lock is held to look
//! up, add or remove and never while a tunnel does something. A tunnel that was removed lives on until the last call that
//! had found it before has returned.

use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use slotmap::{DefaultKey, Key, KeyData, SlotMap};

use crate::result::{ADIT_ERROR_INVALID_HANDLE, ADIT_ERROR_TOO_MANY, Failure, Outcome};
use crate::tunnel::{ADIT_MAX_TUNNELS, AditTunnel, Tunnel};

/// All tunnels of the process.
pub(crate) static TUNNELS: Table<Tunnel> = Table::new();

/// Things by handle; see the module's documentation.
pub(crate) struct Table<T>(LazyLock<RwLock<SlotMap<DefaultKey, Arc<T>>>>);

impl<T> Table<T> {
    const fn new() -> Self {
        Self(LazyLock::new(RwLock::default))
    }

    /// Gives out a handle.
    pub(crate) fn insert(&self, entry: Arc<T>) -> Outcome<AditTunnel> {
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= ADIT_MAX_TUNNELS {
            return Err(Failure::new(ADIT_ERROR_TOO_MANY));
        }
        Ok(entries.insert(entry).data().as_ffi())
    }

    /// Whether there is no room for another one.
    pub(crate) fn is_full(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len() >= ADIT_MAX_TUNNELS
    }

    /// What a handle stands for.
    pub(crate) fn get(&self, handle: AditTunnel) -> Outcome<Arc<T>> {
        let key = key(handle)?;
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).cloned().ok_or(Failure::new(ADIT_ERROR_INVALID_HANDLE))
    }

    /// Makes a handle stale, and gives what it stood for.
    pub(crate) fn remove(&self, handle: AditTunnel) -> Outcome<Arc<T>> {
        let key = key(handle)?;
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        entries.remove(key).ok_or(Failure::new(ADIT_ERROR_INVALID_HANDLE))
    }
}

/// The key that a number is. One that is not written exactly as it was given out is none: `KeyData` would repair it.
fn key(handle: AditTunnel) -> Outcome<DefaultKey> {
    let data = KeyData::from_ffi(handle);
    if handle != 0 && data.as_ffi() == handle { Ok(data.into()) } else { Err(Failure::new(ADIT_ERROR_INVALID_HANDLE)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_live_handle_leads_anywhere() {
        let invalid = Some(Failure::new(ADIT_ERROR_INVALID_HANDLE));
        let table = Table::new();
        assert_eq!(table.get(0).err(), invalid, "zero is never a handle");
        let first = table.insert(Arc::new(1)).unwrap();
        assert_ne!(first, 0);
        assert_eq!(*table.get(first).unwrap(), 1);
        for foreign in [first ^ 1, first ^ (1 << 32), first ^ (1 << 33), first ^ (1 << 63), u64::MAX, 1, 1 << 32] {
            assert_eq!(table.get(foreign).err(), invalid, "{foreign:#x}");
        }
        assert_eq!(*table.remove(first).unwrap(), 1);
        assert_eq!(table.get(first).err(), invalid);
        assert_eq!(table.remove(first).err(), invalid);
        let second = table.insert(Arc::new(2)).unwrap();
        assert_ne!(second, first, "the place is given out again, the handle is not");
        assert_eq!(table.get(first).err(), invalid);
    }

    #[test]
    fn the_table_is_bounded_and_places_come_back() {
        let table = Table::new();
        let handles: Vec<_> = (0..ADIT_MAX_TUNNELS).map(|number| table.insert(Arc::new(number)).unwrap()).collect();
        assert!(table.is_full());
        assert_eq!(table.insert(Arc::new(0)).err(), Some(Failure::new(ADIT_ERROR_TOO_MANY)));
        table.remove(handles[7]).unwrap();
        assert!(!table.is_full());
        table.insert(Arc::new(0)).unwrap();
    }

    #[test]
    fn a_removed_entry_lives_while_a_call_uses_it() {
        let table = Table::new();
        let handle = table.insert(Arc::new(5)).unwrap();
        let used = table.get(handle).unwrap();
        drop(table.remove(handle).unwrap());
        assert_eq!(*used, 5);
    }
}
