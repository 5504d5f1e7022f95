//! Response fields of an exchange, in the exchange's arena.
//!
//! They go with the arena; nothing is freed one by one (the fault of seed `001`). They lie one behind
//! the other, each as the lengths of name and value (4 bytes each), the name and the value.

use theframework_memory::{Allocate, ArenaSlice, OutOfMemory};

/// Enough for the fields of most responses.
const TEXT_MIN: usize = 248;
const LENGTHS: usize = 8;

#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Fields {
    text: ArenaSlice<u8>,
    used: u32,
}

/// The first field of `text`, which holds whole fields, and what follows it.
fn split_first(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (lengths, rest) = text.split_first_chunk::<LENGTHS>()?;
    let [a, b, c, d, e, f, g, h] = *lengths;
    let name_len = u32::from_ne_bytes([a, b, c, d]) as usize;
    let value_len = u32::from_ne_bytes([e, f, g, h]) as usize;
    let (name, rest) = rest.split_at(name_len);
    let (value, rest) = rest.split_at(value_len);
    Some((name, value, rest))
}

impl Fields {
    /// Adds a field behind the others.
    pub(crate) fn push(
        &mut self,
        arena: &mut impl Allocate,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), OutOfMemory> {
        let used = self.used as usize;
        let end = used + LENGTHS + name.len() + value.len();
        if end > self.text.len() {
            let len = end.max(self.text.len() * 2).max(TEXT_MIN);
            self.text = arena.grow_stale(self.text, len)?;
        }
        let place = &mut arena.get_mut(self.text)[used..end];
        let (name_len, place) = place.split_at_mut(4);
        let (value_len, place) = place.split_at_mut(4);
        let (name_place, value_place) = place.split_at_mut(name.len());
        name_len.copy_from_slice(&(name.len() as u32).to_ne_bytes());
        value_len.copy_from_slice(&(value.len() as u32).to_ne_bytes());
        name_place.copy_from_slice(name);
        value_place.copy_from_slice(value);
        self.used = end as u32;
        Ok(())
    }

    /// Removes every field of this name (case-insensitive); says whether there was one.
    pub(crate) fn remove(&mut self, arena: &mut impl Allocate, name: &[u8]) -> bool {
        let mut at = 0;
        let before = self.used;
        while at < self.used as usize {
            let text = &mut arena.get_mut(self.text)[..self.used as usize];
            let Some((known, _, rest)) = split_first(&text[at..]) else {
                break;
            };
            let next = text.len() - rest.len();
            if known.eq_ignore_ascii_case(name) {
                text.copy_within(next.., at);
                self.used -= (next - at) as u32;
            } else {
                at = next;
            }
        }
        self.used < before
    }

    /// The fields in the order in which they were added.
    pub(crate) fn iter<'a>(&self, arena: &'a impl Allocate) -> Iter<'a> {
        Iter(&arena.get(self.text)[..self.used as usize])
    }
}

/// Name and value of each field.
#[derive(Clone, Debug)]
pub(crate) struct Iter<'a>(&'a [u8]);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (name, value, rest) = split_first(self.0)?;
        self.0 = rest;
        Some((name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use theframework_memory::{Arena, BlockRecycler, ChunkRecycler};

    #[test]
    fn many_fields_keep_their_order_and_can_be_replaced() {
        let mut arena = Arena::new(ChunkRecycler::new(), BlockRecycler::new());
        let mut fields = Fields::default();
        for index in 0..100 {
            fields
                .push(&mut arena, b"X-Field", format!("value {index}").as_bytes())
                .unwrap();
            fields
                .push(&mut arena, format!("N{index}").as_bytes(), b"")
                .unwrap();
        }
        assert_eq!(fields.iter(&arena).count(), 200);
        assert!(fields.remove(&mut arena, b"x-fIELD"));
        assert!(!fields.remove(&mut arena, b"x-field"));
        let names: Vec<_> = fields.iter(&arena).map(|(name, _)| name.to_vec()).collect();
        assert_eq!(names.len(), 100);
        assert_eq!((&names[0][..], &names[99][..]), (&b"N0"[..], &b"N99"[..]));
    }
}
