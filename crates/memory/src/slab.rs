//! Long-lived values behind generation-checked keys.
//!
//! ```text
//! pages --> [ 64 entries ] [ 64 entries ] ...      an entry never moves while its page lives
//!            vacant(generation, next free) | occupied(generation, value)
//! ```
//!
//! # Invariants
//!
//! - A key opens an entry only while both carry the same generation; taking a value out bumps it. So a
//!   key that outlived its value finds nothing, also when the entry is in use again.
//! - Generations run from 1 and skip 0 when they wrap: a key of all zeroes never finds anything. After
//!   2³² uses of one entry, a key from long ago could match again.
//! - Vacant entries form a LIFO list. New entries are used only when the list of used ones is empty,
//!   so every index is smaller than the largest number of values that were held at once.
//! - A page that `trim` frees leaves its highest generation in `first_generation`, where its
//!   successors begin: freeing pages revives no key.
//!
//! It does not shrink by itself, and it keeps no order among its values.

use std::fmt;
use std::mem;

use crate::OutOfMemory;

/// Entries in a page.
const PAGE_LEN: usize = 64;
/// Ends the list of vacant entries; no entry has this index.
const NONE: u32 = u32::MAX;

/// Names one value of a slab, for as long as it is in there.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    /// Which entry. Smaller than the largest number of values held at once.
    pub index: u32,
    /// Which of the values that the entry has held; never 0 in a key that a slab made.
    pub generation: u32,
}

impl Key {
    /// Both numbers in one, generation above, as for the user data of a kernel operation.
    #[inline]
    #[must_use]
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The inverse of [`to_u64`](Self::to_u64). Any number is fine: the slab checks.
    #[inline]
    #[must_use]
    pub fn from_u64(bits: u64) -> Self {
        Self {
            index: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

/// Both variants begin with the generation, which costs no more than the tag's padding would.
enum Entry<T> {
    Vacant { generation: u32, next: u32 },
    Occupied { generation: u32, value: T },
}

const _: () = assert!(size_of::<Entry<u64>>() - size_of::<u64>() <= 8);

impl<T> Entry<T> {
    fn generation(&self) -> u32 {
        match *self {
            Self::Vacant { generation, .. } | Self::Occupied { generation, .. } => generation,
        }
    }
}

type Page<T> = Box<[Entry<T>; PAGE_LEN]>;

/// A store of values with stable places and checked keys. Single-threaded, like all of this crate.
///
/// Lookups, inserts and removals are a few instructions; a page of 64 entries is allocated when all
/// are taken. An entry takes at most 8 bytes more than the value (for alignments up to 8).
pub struct Slab<T> {
    pages: Vec<Page<T>>,
    free: u32,
    len: u32,
    limit: u32,
    first_generation: u32,
}

impl<T> Slab<T> {
    /// An empty slab without limit; it allocates nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            pages: Vec::new(),
            free: NONE,
            len: 0,
            limit: NONE,
            first_generation: 1,
        }
    }

    /// An empty slab that holds at most `max` values; every index is below `max`.
    #[must_use]
    pub fn with_limit(max: usize) -> Self {
        Self {
            limit: u32::try_from(max).unwrap_or(NONE),
            ..Self::new()
        }
    }

    /// Values held.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it holds no value.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The largest number of values that it may hold, if one was set.
    #[must_use]
    pub fn capacity_limit(&self) -> Option<usize> {
        (self.limit != NONE).then_some(self.limit as usize)
    }

    /// Entries for which memory is held.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.pages.len() * PAGE_LEN
    }

    /// Puts `value` in. The entry vacated last is used first, warm in the cache.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when the limit is reached or there is no memory for a page; `value` is
    /// dropped then, and the slab is as before.
    #[inline]
    pub fn insert(&mut self, value: T) -> Result<Key, OutOfMemory> {
        if self.len >= self.limit {
            return Err(OutOfMemory);
        }
        if self.free == NONE {
            self.add_page()?;
        }
        let index = self.free;
        let entry = &mut self.pages[index as usize / PAGE_LEN][index as usize % PAGE_LEN];
        let Entry::Vacant { generation, next } = *entry else {
            unreachable!("the list of vacant entries holds no occupied one");
        };
        *entry = Entry::Occupied { generation, value };
        self.free = next;
        self.len += 1;
        Ok(Key { index, generation })
    }

    /// The value of `key`, unless it was removed.
    #[inline]
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&T> {
        let page = self.pages.get(key.index as usize / PAGE_LEN)?;
        match &page[key.index as usize % PAGE_LEN] {
            Entry::Occupied { generation, value } if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// The value of `key`, unless it was removed.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let page = self.pages.get_mut(key.index as usize / PAGE_LEN)?;
        match &mut page[key.index as usize % PAGE_LEN] {
            Entry::Occupied { generation, value } if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// Takes the value of `key` out, unless that was done before.
    #[inline]
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let page = self.pages.get_mut(key.index as usize / PAGE_LEN)?;
        let entry = &mut page[key.index as usize % PAGE_LEN];
        match entry {
            Entry::Occupied { generation, .. } if *generation == key.generation => {}
            _ => return None,
        }
        let vacant = Entry::Vacant {
            generation: following(key.generation),
            next: self.free,
        };
        self.free = key.index;
        self.len -= 1;
        match mem::replace(entry, vacant) {
            Entry::Occupied { value, .. } => Some(value),
            Entry::Vacant { .. } => None,
        }
    }

    /// All values with their keys, by index. Costs a look at every entry of every page.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        let entries = self.pages.iter().flat_map(|page| page.iter());
        entries.zip(0..).filter_map(|(entry, index)| match entry {
            Entry::Occupied { generation, value } => Some((
                Key {
                    index,
                    generation: *generation,
                },
                value,
            )),
            Entry::Vacant { .. } => None,
        })
    }

    /// All keys, by index. Costs a look at every entry of every page.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.iter().map(|(key, _)| key)
    }

    /// Frees the pages at the end that hold no value. Costs a look at every vacant entry.
    pub fn trim(&mut self) {
        let is_vacant = |entry: &Entry<T>| matches!(entry, Entry::Vacant { .. });
        let last_used = self
            .pages
            .iter()
            .rposition(|page| !page.iter().all(is_vacant));
        let pages_kept = last_used.map_or(0, |last| last + 1);
        self.unlink_from(pages_kept * PAGE_LEN);
        let freed = self.pages[pages_kept..].iter().flat_map(|page| page.iter());
        let highest = freed.map(Entry::generation).max();
        self.first_generation = self.first_generation.max(highest.unwrap_or(1));
        self.pages.truncate(pages_kept);
        self.pages.shrink_to_fit();
    }

    /// Takes the entries from index `end` on out of the vacant list, keeping its order.
    fn unlink_from(&mut self, end: usize) {
        let mut last_kept = NONE;
        let mut index = mem::replace(&mut self.free, NONE);
        while index != NONE {
            let next = match *self.entry_mut(index) {
                Entry::Vacant { next, .. } => next,
                Entry::Occupied { .. } => NONE,
            };
            if (index as usize) < end {
                self.link(last_kept, index);
                last_kept = index;
            }
            index = next;
        }
        self.link(last_kept, NONE);
    }

    /// Makes `to` the successor of `from` in the vacant list, or its head if `from` is `NONE`.
    fn link(&mut self, from: u32, to: u32) {
        if from == NONE {
            self.free = to;
        } else if let Entry::Vacant { next, .. } = self.entry_mut(from) {
            *next = to;
        }
    }

    fn entry_mut(&mut self, index: u32) -> &mut Entry<T> {
        &mut self.pages[index as usize / PAGE_LEN][index as usize % PAGE_LEN]
    }

    /// Appends a page, whose entries become the vacant list, lowest index first.
    #[cold]
    #[inline(never)]
    fn add_page(&mut self) -> Result<(), OutOfMemory> {
        debug_assert_eq!(self.free, NONE);
        let first = u32::try_from(self.capacity()).map_err(|_| OutOfMemory)?;
        let end = first.checked_add(PAGE_LEN as u32).ok_or(OutOfMemory)?;
        self.pages.try_reserve(1).map_err(|_| OutOfMemory)?;
        let mut entries = Vec::new();
        entries
            .try_reserve_exact(PAGE_LEN)
            .map_err(|_| OutOfMemory)?;
        entries.extend((first + 1..=end).map(|next| Entry::Vacant {
            generation: self.first_generation,
            next: if next == end { NONE } else { next },
        }));
        let page = Page::try_from(entries.into_boxed_slice()).map_err(|_| OutOfMemory)?;
        self.pages.push(page);
        self.free = first;
        Ok(())
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Slab<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab")
            .field("len", &self.len)
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

/// The generation after this one, skipping 0.
#[inline]
fn following(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_its_value_until_removed() {
        let mut slab = Slab::new();
        let (a, b) = (slab.insert("a").unwrap(), slab.insert("b").unwrap());
        assert_eq!(
            (slab.get(a), slab.get(b), slab.len()),
            (Some(&"a"), Some(&"b"), 2)
        );
        *slab.get_mut(a).unwrap() = "A";
        assert_eq!(slab.remove(a), Some("A"));
        assert_eq!((slab.get(a), slab.len()), (None, 1));
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.get(b), Some(&"b"));
    }

    #[test]
    fn a_stale_key_does_not_open_the_next_value() {
        let mut slab = Slab::new();
        let old = slab.insert(1).unwrap();
        slab.remove(old);
        let new = slab.insert(2).unwrap();
        assert_eq!((new.index, new.generation), (old.index, old.generation + 1));
        assert_eq!((slab.get(old), slab.get(new)), (None, Some(&2)));
        assert_eq!(slab.get_mut(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn no_slab_makes_the_key_of_zeroes() {
        let mut slab = Slab::new();
        let nothing = Key::from_u64(0);
        assert_eq!(slab.get(nothing), None);
        let first = slab.insert(1).unwrap();
        assert_eq!(
            first,
            Key {
                index: 0,
                generation: 1
            }
        );
        assert_eq!(slab.get(nothing), None);
        slab.remove(first);
        assert_eq!(slab.get(nothing), None);
        assert_eq!(slab.remove(nothing), None);
    }

    #[test]
    fn generations_skip_zero_when_they_wrap() {
        let mut slab = Slab::new();
        slab.first_generation = u32::MAX;
        let last = slab.insert(()).unwrap();
        slab.remove(last);
        assert_eq!(
            (last.generation, slab.insert(()).unwrap().generation),
            (u32::MAX, 1)
        );
    }

    #[test]
    fn the_entry_vacated_last_is_used_first() {
        let mut slab = Slab::new();
        let keys: Vec<_> = (0..4).map(|i| slab.insert(i).unwrap()).collect();
        slab.remove(keys[1]);
        slab.remove(keys[3]);
        let indices = [(); 3].map(|()| slab.insert(9).unwrap().index);
        assert_eq!(indices, [3, 1, 4]);
    }

    #[test]
    fn keys_survive_the_way_through_user_data() {
        let key = Key {
            index: 7,
            generation: u32::MAX,
        };
        assert_eq!(key.to_u64(), 0xffff_ffff_0000_0007);
        assert_eq!(Key::from_u64(key.to_u64()), key);
        let slab = Slab::<u8>::new();
        assert_eq!(slab.get(Key::from_u64(u64::MAX)), None);
    }

    #[test]
    fn values_do_not_move_when_it_grows() {
        let mut slab = Slab::new();
        let key = slab.insert(5).unwrap();
        let address = std::ptr::from_ref(slab.get(key).unwrap());
        for i in 0..1000 {
            slab.insert(i).unwrap();
        }
        assert_eq!(std::ptr::from_ref(slab.get(key).unwrap()), address);
        assert_eq!((slab.len(), slab.capacity()), (1001, 1024));
    }

    #[test]
    fn pages_are_allocated_when_needed() {
        let mut slab = Slab::new();
        assert_eq!(slab.capacity(), 0);
        for i in 0..64 {
            slab.insert(i).unwrap();
        }
        assert_eq!(slab.capacity(), 64);
        slab.insert(64).unwrap();
        assert_eq!(slab.capacity(), 128);
    }

    #[test]
    fn a_limit_refuses_and_keeps_indices_below_it() {
        let mut slab = Slab::with_limit(3);
        let keys: Vec<_> = (0..3).map(|i| slab.insert(i).unwrap()).collect();
        assert_eq!(
            (slab.insert(9), slab.len(), slab.capacity_limit()),
            (Err(OutOfMemory), 3, Some(3))
        );
        slab.remove(keys[0]);
        assert_eq!(slab.insert(9).unwrap().index, 0);
        assert_eq!(Slab::<u8>::with_limit(0).insert(1), Err(OutOfMemory));
        assert_eq!(Slab::<u8>::new().capacity_limit(), None);
    }

    #[test]
    fn a_key_opens_its_value_on_every_page() {
        let mut slab = Slab::new();
        assert!(slab.is_empty());
        let keys: Vec<_> = (0..200).map(|i| slab.insert(i).unwrap()).collect();
        for &key in &keys {
            *slab.get_mut(key).unwrap() += 1000;
        }
        assert!(!slab.is_empty());
        let values: Vec<_> = keys.iter().map(|&key| slab.get(key).copied()).collect();
        assert_eq!(values, (1000..1200).map(Some).collect::<Vec<_>>());
        let removed: Vec<_> = keys.iter().map(|&key| slab.remove(key)).collect();
        assert_eq!((removed, slab.is_empty()), (values, true));
    }

    #[test]
    fn iterates_in_order_over_what_is_there() {
        let mut slab = Slab::new();
        let keys: Vec<_> = (0..130).map(|i| slab.insert(i).unwrap()).collect();
        for key in keys.iter().filter(|key| key.index % 50 != 0) {
            slab.remove(*key);
        }
        assert_eq!(
            slab.iter().map(|(_, &value)| value).collect::<Vec<_>>(),
            [0, 50, 100]
        );
        assert_eq!(
            slab.keys().collect::<Vec<_>>(),
            [keys[0], keys[50], keys[100]]
        );
    }

    #[test]
    fn trim_frees_empty_pages_at_the_end() {
        let mut slab = Slab::new();
        let keys: Vec<_> = (0..200).map(|i| slab.insert(i).unwrap()).collect();
        for key in &keys[65..] {
            slab.remove(*key);
        }
        slab.remove(keys[3]);
        slab.trim();
        assert_eq!((slab.capacity(), slab.len()), (128, 64));
        assert_eq!(slab.get(keys[64]), Some(&64));
        // The list of vacant entries kept its order and lost what is gone.
        assert_eq!(slab.insert(0).unwrap().index, 3);
        let indices: Vec<_> = (0..64).map(|_| slab.insert(0).unwrap().index).collect();
        assert!(
            indices[..63]
                .iter()
                .all(|&index| (65..128).contains(&index))
        );
        assert_eq!(indices[63], 128);
    }

    #[test]
    fn trim_revives_no_key() {
        let mut slab = Slab::new();
        let mut stale = Vec::new();
        for _ in 0..3 {
            let key = slab.insert(1).unwrap();
            slab.remove(key);
            stale.push(key);
        }
        slab.trim();
        assert_eq!(slab.capacity(), 0);
        let new = slab.insert(2).unwrap();
        assert!(stale.iter().all(|&key| slab.get(key).is_none()));
        assert_eq!((new.index, slab.get(new)), (0, Some(&2)));
        slab.remove(new);
        slab.trim();
        slab.trim();
    }

    #[test]
    fn drops_its_values() {
        let value = std::rc::Rc::new(());
        let mut slab = Slab::new();
        let key = slab.insert(value.clone()).unwrap();
        slab.insert(value.clone()).unwrap();
        slab.remove(key);
        assert_eq!(std::rc::Rc::strong_count(&value), 2);
        drop(slab);
        assert_eq!(std::rc::Rc::strong_count(&value), 1);
    }

    #[test]
    fn an_entry_takes_eight_bytes_more_than_its_value() {
        assert_eq!(size_of::<Entry<u64>>(), 16);
        assert_eq!(size_of::<Entry<[u64; 5]>>(), 48);
        assert_eq!(size_of::<Entry<u32>>(), 12);
    }
}
