//! Unit tests of the arena. Models over random operations are in `tests/models.rs` of the crate.

use super::*;
use crate::Span;

struct Worker {
    chunks: ChunkRecycler,
    blocks: BlockRecycler,
}

impl Worker {
    fn new() -> Self {
        Self {
            chunks: ChunkRecycler::new(),
            blocks: BlockRecycler::new(),
        }
    }

    fn arena(&self) -> Arena {
        Arena::new(self.chunks.clone(), self.blocks.clone())
    }

    fn chunks_live(&self) -> usize {
        self.chunks.total_allocated() - self.chunks.cached()
    }
}

/// A slice of `len` bytes that shows which one it is.
fn numbered(arena: &mut Arena, number: usize, len: usize) -> ArenaSlice<u8> {
    arena.alloc_copy(&vec![number as u8; len]).unwrap()
}

#[test]
fn a_new_arena_holds_no_memory() {
    let worker = Worker::new();
    let arena = worker.arena();
    assert!(!arena.holds_memory());
    assert_eq!((arena.used(), worker.chunks.total_allocated()), (0, 0));
}

#[test]
fn small_allocations_share_one_chunk() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    let slices: Vec<_> = (0..4).map(|i| numbered(&mut arena, i, 1000)).collect();
    assert_eq!(
        (worker.chunks_live(), worker.blocks.live(), arena.used()),
        (1, 0, 4000)
    );
    for (i, &slice) in slices.iter().enumerate() {
        assert_eq!(arena.get(slice), vec![i as u8; 1000]);
    }
}

#[test]
fn a_chunk_is_used_to_its_last_byte() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    for _ in 0..8 {
        arena.alloc::<u8>(511).unwrap();
    }
    assert_eq!((arena.used(), worker.chunks_live()), (USABLE, 1));
    let next = numbered(&mut arena, 9, 1);
    assert_eq!((worker.chunks_live(), arena.get(next)), (2, &[9][..]));
}

#[test]
fn slices_stay_valid_over_many_chunks() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    let slices: Vec<_> = (0..200)
        .map(|i| numbered(&mut arena, i, 1 + i * 5))
        .collect();
    assert!(worker.chunks_live() > 20);
    for (i, &slice) in slices.iter().enumerate() {
        assert_eq!(arena.get(slice), vec![i as u8; 1 + i * 5]);
    }
}

#[test]
fn large_allocations_go_direct() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    assert_eq!(DIRECT_THRESHOLD, 1022);
    numbered(&mut arena, 0, 1021);
    assert_eq!((worker.chunks_live(), worker.blocks.live()), (1, 0));
    let slices = [(1, 1022), (2, 4096), (3, 100_000)].map(|(i, len)| numbered(&mut arena, i, len));
    assert_eq!((worker.chunks_live(), worker.blocks.live()), (1, 3));
    assert_eq!(arena.used(), 1021 + 1022 + 4096 + 100_000);
    assert_eq!(arena.get(slices[0]), [1; 1022]);
    assert_eq!(arena.get(slices[1]), [2; 4096]);
    assert_eq!(arena.get(slices[2]), [3; 100_000]);
    arena.get_mut(slices[2])[99_999] = 4;
    assert_eq!(arena.get(slices[2])[99_998..], [3, 4]);
}

#[test]
fn there_is_no_cap() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    for _ in 0..20 {
        arena.alloc::<u8>(100_000).unwrap();
    }
    for _ in 0..4000 {
        arena.alloc::<u8>(500).unwrap();
    }
    // The plan's arena refused past 1,114,112 bytes.
    assert_eq!(arena.used(), 4_000_000);
}

#[test]
fn allocations_are_zeroed_also_in_used_memory() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    for _ in 0..2 {
        for len in [900, 2000] {
            let slice = arena.alloc::<u8>(len).unwrap();
            assert!(arena.get(slice).iter().all(|&byte| byte == 0));
            arena.get_mut(slice).fill(0xff);
        }
        arena.reset();
    }
}

#[test]
fn an_allocation_of_nothing_is_valid() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    let nothing = arena.alloc::<u64>(0).unwrap();
    assert_eq!((arena.get(nothing), nothing.len()), (&[][..], 0));
    assert!(nothing.is_empty() && !arena.holds_memory());
    let copied = arena.alloc_copy::<u16>(&[]).unwrap();
    assert!(arena.get_mut(copied).is_empty());
}

#[test]
fn a_handle_tells_its_length() {
    let mut arena = Worker::new().arena();
    let slice = arena.alloc_copy(&[1_u32, 2, 3]).unwrap();
    assert_eq!((slice.len(), slice.is_empty()), (3, false));
    let shorter = [0, 2, 3, 4, u32::MAX as usize + 2].map(|len| slice.truncated(len));
    assert_eq!(
        shorter.map(|slice| arena.get(slice)),
        [&[][..], &[1, 2], &[1, 2, 3], &[1, 2, 3], &[1, 2, 3]]
    );
    assert_eq!(
        shorter.map(|slice| slice.is_empty()),
        [true, false, false, false, false]
    );
}

#[test]
fn the_default_slice_resolves_in_any_arena() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    assert!(arena.get(ArenaSlice::<[Span; 2]>::default()).is_empty());
    arena.alloc::<u8>(1).unwrap();
    assert!(arena.get_mut(ArenaSlice::<u64>::default()).is_empty());
}

/// The plan's arena put a `u64` at the next byte, whatever its address.
#[test]
fn a_u64_after_one_byte_is_aligned() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    arena.alloc::<u8>(1).unwrap();
    let number = arena.alloc_copy(&[1_u64]).unwrap();
    assert!(arena.get(number).as_ptr().is_aligned());
    arena.alloc::<u8>(3).unwrap();
    let short = arena.alloc_copy(&[2_u16]).unwrap();
    let spans = arena.alloc_copy(&[[Span::new(1, 2); 2]]).unwrap();
    assert_eq!((arena.get(number), arena.get(short)), (&[1][..], &[2][..]));
    assert_eq!(arena.get(spans), [[Span::new(1, 2); 2]]);
    // Each got only the padding that it needed.
    assert_eq!(
        (arena.used(), arena.current.used),
        (1 + 8 + 3 + 2 + 16, 8 + 8 + 3 + 1 + 2 + 2 + 16)
    );
}

#[test]
fn large_allocations_are_aligned() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    arena.alloc::<u8>(1023).unwrap();
    let numbers = arena.alloc::<u64>(1000).unwrap();
    assert!(arena.get(numbers).as_ptr().is_aligned());
    assert_eq!(arena.get(numbers), [0; 1000]);
}

#[derive(Copy, Clone, PartialEq, Debug)]
#[repr(C, align(16))]
struct Wide([u8; 16]);

// SAFETY: 16 bytes without padding, every value valid, align 16.
unsafe impl Plain for Wide {}

#[test]
fn sixteen_byte_alignment_holds_in_chunks_blocks_and_directs() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    let mut slices = Vec::new();
    for i in 0..200 {
        arena.alloc::<u8>(i % 7).unwrap();
        slices.push(
            arena
                .alloc_copy(&vec![Wide([i as u8; 16]); 1 + i % 80])
                .unwrap(),
        );
        if i % 50 == 0 {
            arena.park().unwrap();
        }
    }
    arena.park().unwrap();
    for (i, &slice) in slices.iter().enumerate() {
        assert!(arena.get(slice).as_ptr().is_aligned());
        assert_eq!(arena.get(slice), vec![Wide([i as u8; 16]); 1 + i % 80]);
    }
}

#[test]
fn writes_are_seen_by_later_reads() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    let first = arena.alloc::<u32>(3).unwrap();
    let second = arena.alloc::<u32>(3).unwrap();
    arena.get_mut(first).copy_from_slice(&[1, 2, 3]);
    arena.get_mut(second)[1] = 9;
    assert_eq!(
        (arena.get(first), arena.get(second)),
        (&[1, 2, 3][..], &[0, 9, 0][..])
    );
}

#[test]
fn free_slice_and_commit_round_trip() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    let free = arena.free_slice(100).unwrap();
    assert_eq!(free.len(), 100);
    free[..5].copy_from_slice(b"hello");
    let hello = arena.commit(5);
    let world = arena.alloc_copy(b"world").unwrap();
    assert_eq!(
        (arena.get(hello), arena.get(world)),
        (&b"hello"[..], &b"world"[..])
    );
    assert_eq!((arena.used(), worker.chunks_live()), (10, 1));
}

#[test]
fn a_full_chunk_is_followed_by_another_free_slice() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    assert_eq!(arena.free_slice(usize::MAX).unwrap().len(), USABLE);
    arena.free_slice(usize::MAX).unwrap().fill(1);
    let first = arena.commit(USABLE);
    arena.free_slice(usize::MAX).unwrap().fill(2);
    let second = arena.commit(USABLE - 1);
    assert_eq!(arena.free_slice(usize::MAX).unwrap().len(), 1);
    assert_eq!(
        (arena.get(first), arena.get(second)),
        (&[1; USABLE][..], &[2; USABLE - 1][..])
    );
    assert_eq!(worker.chunks_live(), 2);
}

#[test]
fn a_free_slice_of_nothing_takes_nothing() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    assert!(arena.free_slice(0).unwrap().is_empty());
    let nothing = arena.commit(0);
    assert!(arena.get(nothing).is_empty());
    assert!(!arena.holds_memory());
}

#[test]
#[should_panic(expected = "commit beyond the free slice")]
fn commit_is_checked() {
    let mut arena = Worker::new().arena();
    arena.free_slice(10).unwrap();
    arena.commit(USABLE + 1);
}

#[test]
fn reset_gives_everything_back() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    for i in 0..50 {
        numbered(&mut arena, i, 900);
        numbered(&mut arena, i, 2000);
    }
    arena.reset();
    assert!(!arena.holds_memory());
    assert_eq!(
        (arena.used(), worker.chunks_live(), worker.blocks.live()),
        (0, 0, 0)
    );
    let recycled = if cfg!(feature = "no-recycle") { 0 } else { 13 };
    assert_eq!(worker.chunks.cached(), recycled);
}

#[test]
#[cfg_attr(feature = "no-recycle", ignore = "nothing is cached")]
fn a_reset_arena_uses_the_same_chunk_from_its_start() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    let before = numbered(&mut arena, 1, 10);
    let address = arena.get(before).as_ptr();
    arena.reset();
    let after = numbered(&mut arena, 2, 10);
    assert_eq!(arena.get(after).as_ptr(), address);
    assert_eq!(worker.chunks.total_allocated(), 1);
}

#[test]
fn dropping_it_gives_everything_back() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    numbered(&mut arena, 1, 900);
    numbered(&mut arena, 1, 5000);
    drop(arena);
    assert_eq!((worker.chunks_live(), worker.blocks.live()), (0, 0));
}

#[test]
#[should_panic(expected = "stale arena handle")]
fn a_handle_from_before_a_reset_panics() {
    let mut arena = Worker::new().arena();
    let slice = numbered(&mut arena, 1, 10);
    arena.reset();
    numbered(&mut arena, 2, 10);
    let _ = arena.get(slice);
}

#[test]
#[should_panic(expected = "stale arena handle")]
fn a_direct_handle_from_before_a_reset_panics() {
    let mut arena = Worker::new().arena();
    let slice = numbered(&mut arena, 1, 5000);
    arena.reset();
    numbered(&mut arena, 2, 5000);
    let _ = arena.get_mut(slice);
}

#[test]
#[should_panic(expected = "one of another arena")]
fn a_handle_of_another_arena_panics() {
    let worker = Worker::new();
    let (mut one, mut other) = (worker.arena(), worker.arena());
    let slice = numbered(&mut one, 1, 10);
    numbered(&mut other, 2, 10);
    let _ = other.get(slice);
}

/// What a handle does whose epoch matches by chance, after 2³² others.
#[test]
fn no_handle_reaches_beyond_what_was_handed_out() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    for i in 0..10 {
        numbered(&mut arena, i, 1000);
    }
    numbered(&mut arena, 1, 2000);
    let used = arena.start + arena.current.used;
    for (offset, len) in [
        (used, 1),
        (used - 1, 2),
        (0, 4089),
        (4088 + 4000, 1),
        (100 * 4088, 1),
        (DIRECT, 2001),
        (DIRECT + 1, 1),
        (u32::MAX, u32::MAX),
        (0, u32::MAX),
    ] {
        let forged = ArenaSlice::<u8> {
            offset,
            len,
            epoch: arena.epoch,
            values: PhantomData,
        };
        let read =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| arena.get(forged).len()));
        assert!(read.is_err(), "offset {offset}, len {len}");
    }
    let misaligned = ArenaSlice::<u64> {
        offset: 1,
        len: 1,
        epoch: arena.epoch,
        values: PhantomData,
    };
    let read =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| arena.get(misaligned).len()));
    assert!(read.is_err());
}

#[test]
fn epochs_differ_between_arenas_and_resets() {
    let worker = Worker::new();
    let (mut one, other) = (worker.arena(), worker.arena());
    let before = one.epoch;
    one.reset();
    assert!(one.epoch != before && one.epoch != other.epoch && before != other.epoch);
    assert!(before > 0);
}

#[test]
fn impossible_sizes_are_errors() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    let kept = numbered(&mut arena, 1, 10);
    assert_eq!(arena.alloc::<u8>(usize::MAX).unwrap_err(), OutOfMemory);
    assert_eq!(arena.alloc::<u64>(usize::MAX / 4).unwrap_err(), OutOfMemory);
    assert_eq!(arena.alloc::<u8>(1 << 32).unwrap_err(), OutOfMemory);
    assert_eq!((arena.get(kept), arena.used()), (&[1; 10][..], 10));
}

#[test]
fn the_end_of_the_logical_addresses_is_an_error() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    numbered(&mut arena, 1, 1000);
    arena.start = (DIRECT / USABLE as u32 - 1) * USABLE as u32;
    numbered(&mut arena, 2, 1000);
    let last = numbered(&mut arena, 3, 1000);
    numbered(&mut arena, 4, 1000);
    assert_eq!(arena.alloc::<u8>(1000).unwrap_err(), OutOfMemory);
    assert_eq!(arena.get(last), [3; 1000]);
}

#[test]
fn parking_keeps_handles_and_returns_chunks() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    let slices: Vec<_> = (0..30)
        .map(|i| numbered(&mut arena, i, 1 + i * 60))
        .collect();
    let used = arena.used();
    arena.park().unwrap();
    assert_eq!((worker.chunks_live(), arena.used()), (0, used));
    assert!(arena.holds_memory());
    for (i, &slice) in slices.iter().enumerate() {
        assert_eq!(arena.get(slice), vec![i as u8; 1 + i * 60]);
    }
    arena.get_mut(slices[3]).fill(99);
    assert_eq!(arena.get(slices[3]), [99; 181]);
    assert_eq!((arena.get(slices[2])[0], arena.get(slices[4])[0]), (2, 4));
}

#[test]
fn a_parked_arena_holds_what_it_uses() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    numbered(&mut arena, 1, 300);
    arena.park().unwrap();
    assert_eq!((worker.chunks_live(), worker.blocks.live()), (0, 1));
    let Store::Block(block) = &arena.current.store else {
        panic!("not in a block")
    };
    assert_eq!((block.len(), block.capacity()), (308, 320));
}

#[test]
fn allocation_goes_on_after_parking() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    let before = numbered(&mut arena, 1, 500);
    arena.park().unwrap();
    let after = numbered(&mut arena, 2, 500);
    assert_eq!((worker.chunks_live(), worker.blocks.live()), (1, 0));
    assert_eq!(
        (arena.get(before), arena.get(after)),
        (&[1; 500][..], &[2; 500][..])
    );
    arena.park().unwrap();
    let number = arena.alloc_copy(&[7_u64]).unwrap();
    assert_eq!(
        (arena.get(before), arena.get(after)),
        (&[1; 500][..], &[2; 500][..])
    );
    assert_eq!(arena.get(number), [7]);
}

#[test]
fn a_parked_segment_without_room_stays_parked() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    let before: Vec<_> = (0..4).map(|i| numbered(&mut arena, i, 1000)).collect();
    arena.park().unwrap();
    let after = numbered(&mut arena, 9, 200);
    assert_eq!((worker.chunks_live(), worker.blocks.live()), (1, 1));
    arena.park().unwrap();
    assert_eq!((worker.chunks_live(), worker.blocks.live()), (0, 2));
    for (i, &slice) in before.iter().enumerate() {
        assert_eq!(arena.get(slice), [i as u8; 1000]);
    }
    assert_eq!(arena.get(after), [9; 200]);
}

#[test]
fn parking_again_and_again_uses_up_nothing() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    let mut slices = Vec::new();
    for i in 0..1000 {
        slices.push(numbered(&mut arena, i, 8));
        arena.park().unwrap();
        arena.park().unwrap();
    }
    assert_eq!((arena.used(), arena.start as usize), (8000, USABLE));
    assert_eq!((worker.chunks_live(), worker.blocks.live()), (0, 2));
    for (i, &slice) in slices.iter().enumerate() {
        assert_eq!(arena.get(slice), [i as u8; 8]);
    }
}

#[test]
fn parking_an_unused_arena_does_nothing() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    arena.park().unwrap();
    assert!(!arena.holds_memory());
    arena.free_slice(10).unwrap();
    assert!(arena.holds_memory());
    arena.park().unwrap();
    assert!(!arena.holds_memory());
    assert_eq!((worker.chunks_live(), worker.blocks.live()), (0, 0));
    let slice = numbered(&mut arena, 1, 10);
    assert_eq!(arena.get(slice), [1; 10]);
}

#[test]
fn directs_stay_where_they_are_when_parked() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    let direct = numbered(&mut arena, 1, 2000);
    let address = arena.get(direct).as_ptr();
    numbered(&mut arena, 2, 10);
    arena.park().unwrap();
    assert_eq!(
        (arena.get(direct).as_ptr(), arena.get(direct)),
        (address, &[1; 2000][..])
    );
}

#[test]
fn one_block_is_memory_held_whatever_it_is_for() {
    let worker = Worker::new();
    let mut direct = worker.arena();
    numbered(&mut direct, 1, 2000);
    assert_eq!((worker.chunks_live(), worker.blocks.live()), (0, 1));
    assert!(direct.holds_memory());
    direct.reset();

    // A full segment, parked; the one that was begun after it was empty, and is gone.
    let mut sealed = worker.arena();
    sealed.free_slice(USABLE).unwrap();
    sealed.commit(USABLE);
    sealed.free_slice(1).unwrap();
    sealed.park().unwrap();
    assert_eq!((worker.chunks_live(), worker.blocks.live()), (0, 1));
    assert!(sealed.holds_memory());
    sealed.reset();
    assert!(!direct.holds_memory() && !sealed.holds_memory());
}

#[test]
fn reset_after_parking_gives_everything_back() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    for i in 0..20 {
        numbered(&mut arena, i, 1000);
    }
    arena.park().unwrap();
    numbered(&mut arena, 1, 1000);
    numbered(&mut arena, 1, 3000);
    arena.reset();
    assert!(!arena.holds_memory());
    assert_eq!((worker.chunks_live(), worker.blocks.live()), (0, 0));
    let slice = numbered(&mut arena, 5, 5);
    assert_eq!(arena.get(slice), [5; 5]);
}

#[test]
fn a_free_slice_of_a_parked_arena_follows_its_bytes() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    let before = numbered(&mut arena, 1, 100);
    arena.park().unwrap();
    assert_eq!(arena.free_slice(usize::MAX).unwrap().len(), USABLE - 100);
    arena.free_slice(2).unwrap().copy_from_slice(b"ab");
    let after = arena.commit(2);
    assert_eq!(
        (arena.get(before), arena.get(after)),
        (&[1; 100][..], &b"ab"[..])
    );
}

#[test]
fn handles_and_arenas_are_small() {
    assert_eq!(size_of::<ArenaSlice<u64>>(), 12);
    assert!(size_of::<Arena>() <= 160, "{}", size_of::<Arena>());
}

#[test]
fn a_grown_slice_keeps_its_values_over_chunks_and_parking() {
    let worker = Worker::new();
    let mut arena = worker.arena();
    let mut slice = arena.alloc_copy(&[1_u32, 2, 3]).unwrap();
    for len in [4, 100, 1_000, 5_000] {
        arena.park().unwrap();
        let old = slice;
        slice = arena.grow(slice, len).unwrap();
        assert_eq!(arena.get(slice).len(), len);
        assert_eq!(&arena.get(slice)[..3], &[1, 2, 3]);
        assert!(
            arena.get(slice)[old.len()..]
                .iter()
                .all(|&value| value == 0)
        );
        assert_eq!(&arena.get(old)[..3], &[1, 2, 3]);
    }
}

#[test]
fn an_arena_in_two_hands_is_read_while_more_is_added() {
    let worker = Worker::new();
    for parks in [false, true] {
        let mut arena = worker.arena();
        let bytes = numbered(&mut arena, 7, 600);
        let numbers = arena.alloc_copy(&[1_u64, 2, 3]).unwrap();
        let large = numbered(&mut arena, 9, 5_000);
        if parks {
            arena.park().unwrap();
        }
        let (seen, counted, direct, mut more) = arena.split(bytes, numbers, large).unwrap();
        let mut grown = ArenaSlice::<u8>::default();
        for len in [10, 900, 3_000, 9_000] {
            grown = more.grow(grown, len).unwrap();
            let written = more.get_mut(grown);
            assert_eq!(written.len(), len);
            written.fill(5);
        }
        assert!(seen.iter().all(|&byte| byte == 7) && seen.len() == 600);
        assert_eq!(counted, [1, 2, 3]);
        assert!(direct.iter().all(|&byte| byte == 9) && direct.len() == 5_000);
        assert!(more.get(grown).iter().all(|&byte| byte == 5));
        // What was read and what was added is there when the two hands are one again.
        assert_eq!(
            (arena.get(bytes), arena.get(grown)),
            (&[7; 600][..], &[5; 9_000][..])
        );
        arena.reset();
    }
    assert_eq!((worker.chunks_live(), worker.blocks.live()), (0, 0));
}

#[test]
fn what_is_read_cannot_be_written_meanwhile() {
    for len in [10, 5_000] {
        let worker = Worker::new();
        let mut arena = worker.arena();
        let older = numbered(&mut arena, 1, len);
        let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let none = ArenaSlice::<u8>::default();
            let (_, _, _, mut more) = arena.split(older, none, none).unwrap();
            more.get_mut(older)[0] = 2;
        }));
        assert!(panics.is_err());
        assert_eq!(arena.get(older)[0], 1);
    }
}
