//! Response fields of an exchange: a table and its text, both in the exchange's arena.
//!
//! They go with the arena; nothing is freed one by one (the fault of seed `001`).

use theframework_memory::{Arena, ArenaSlice, OutOfMemory, Span};

const TABLE_MIN: usize = 8;
const TEXT_MIN: usize = 248;

#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Fields {
    table: ArenaSlice<[Span; 2]>,
    text: ArenaSlice<u8>,
    count: u32,
    used: u32,
}

impl Fields {
    /// Adds a field behind the others.
    pub(crate) fn push(
        &mut self,
        arena: &mut Arena,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), OutOfMemory> {
        let used = self.used as usize;
        let needed = used + name.len() + value.len();
        if needed > self.text.len() {
            let len = needed.max(self.text.len() * 2).max(TEXT_MIN);
            self.text = arena.grow(self.text, len)?;
        }
        let count = self.count as usize;
        if count == self.table.len() {
            self.table = arena.grow(self.table, (count * 2).max(TABLE_MIN))?;
        }
        let middle = used + name.len();
        let text = arena.get_mut(self.text);
        text[used..middle].copy_from_slice(name);
        text[middle..needed].copy_from_slice(value);
        arena.get_mut(self.table)[count] = [Span::new(used, middle), Span::new(middle, needed)];
        self.count += 1;
        self.used = needed as u32;
        Ok(())
    }

    /// Removes every field of this name (case-insensitive); says whether there was one.
    pub(crate) fn remove(&mut self, arena: &mut Arena, name: &[u8]) -> bool {
        let mut kept = 0;
        for index in 0..self.count as usize {
            let entry = arena.get(self.table)[index];
            if !entry[0].of(arena.get(self.text)).eq_ignore_ascii_case(name) {
                arena.get_mut(self.table)[kept] = entry;
                kept += 1;
            }
        }
        let removed = kept < self.count as usize;
        self.count = kept as u32;
        removed
    }

    /// The fields in the order in which they were added.
    pub(crate) fn iter<'a>(
        &self,
        arena: &'a Arena,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a> {
        let text = arena.get(self.text);
        arena.get(self.table)[..self.count as usize]
            .iter()
            .map(move |[name, value]| (name.of(text), value.of(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use theframework_memory::{BlockRecycler, ChunkRecycler};

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
