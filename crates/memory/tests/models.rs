//! Random operations on each type, side by side with a slow and plain model of it.

#![allow(clippy::unwrap_used, reason = "a failing test says where")]

use std::collections::{HashMap, VecDeque};

use proptest::collection::vec;
use proptest::prelude::*;
use theframework_memory::{
    Arena, ArenaSlice, BlockRecycler, Buffer, BufferRecycler, ChunkRecycler, InputBuffer, Key,
    Slab, WriteArena,
};

/// Bytes that differ with their place and with `seed`.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + seed * 31) as u8).collect()
}

#[derive(Clone, Debug)]
enum ArenaOp {
    Copy(usize),
    Zeroed(usize),
    Numbers(usize),
    Commit(usize, usize),
    Overwrite(usize),
    Park,
    Reset,
}

fn arena_op() -> impl Strategy<Value = ArenaOp> {
    prop_oneof![
        6 => (0_usize..1100).prop_map(ArenaOp::Copy),
        1 => (1000_usize..6000).prop_map(ArenaOp::Copy),
        3 => (0_usize..1500).prop_map(ArenaOp::Zeroed),
        3 => (0_usize..200).prop_map(ArenaOp::Numbers),
        3 => (0_usize..5000, 0_usize..5000).prop_map(|(max, n)| ArenaOp::Commit(max, n)),
        2 => any::<usize>().prop_map(ArenaOp::Overwrite),
        2 => Just(ArenaOp::Park),
        1 => Just(ArenaOp::Reset),
    ]
}

proptest! {
    #[test]
    fn arena_is_a_list_of_vectors(ops in vec(arena_op(), 1..150)) {
        let (chunks, blocks) = (ChunkRecycler::new(), BlockRecycler::new());
        let mut arena = Arena::new(chunks.clone(), blocks.clone());
        let mut bytes: Vec<(ArenaSlice<u8>, Vec<u8>)> = Vec::new();
        let mut numbers: Vec<(ArenaSlice<u64>, Vec<u64>)> = Vec::new();
        let mut used = 0;
        for (step, op) in ops.into_iter().enumerate() {
            match op {
                ArenaOp::Copy(len) => {
                    let expected = pattern(step, len);
                    bytes.push((arena.alloc_copy(&expected).unwrap(), expected));
                    used += len;
                }
                ArenaOp::Zeroed(len) => {
                    bytes.push((arena.alloc(len).unwrap(), vec![0; len]));
                    used += len;
                }
                ArenaOp::Numbers(len) => {
                    let expected: Vec<u64> = (0..len).map(|i| (step * i) as u64 * 0x0101_0101).collect();
                    numbers.push((arena.alloc_copy(&expected).unwrap(), expected));
                    used += len * 8;
                }
                ArenaOp::Commit(max, n) => {
                    let free = arena.free_slice(max).unwrap();
                    prop_assert!(free.len() <= max && (max == 0 || !free.is_empty()));
                    let expected = pattern(step, n.min(free.len()));
                    free[..expected.len()].copy_from_slice(&expected);
                    used += expected.len();
                    bytes.push((arena.commit(expected.len()), expected));
                }
                ArenaOp::Overwrite(which) if !bytes.is_empty() => {
                    let which = which % bytes.len();
                    let (slice, expected) = &mut bytes[which];
                    *expected = pattern(step + 1000, expected.len());
                    arena.get_mut(*slice).copy_from_slice(expected);
                }
                ArenaOp::Overwrite(_) => {}
                ArenaOp::Park => {
                    arena.park().unwrap();
                    prop_assert_eq!(chunks.total_allocated(), chunks.cached());
                }
                ArenaOp::Reset => {
                    arena.reset();
                    (bytes, numbers, used) = (Vec::new(), Vec::new(), 0);
                    prop_assert!(!arena.holds_memory());
                }
            }
            prop_assert_eq!(arena.used(), used);
            for (slice, expected) in &bytes {
                prop_assert_eq!(arena.get(*slice), expected);
            }
            for (slice, expected) in &numbers {
                prop_assert_eq!(arena.get(*slice), expected);
            }
        }
        drop(arena);
        prop_assert_eq!((chunks.total_allocated(), blocks.live()), (chunks.cached(), 0));
    }
}

#[derive(Clone, Debug)]
enum InputOp {
    Extend(usize),
    Receive(usize, usize),
    Total(usize),
    Consume(usize),
    Remove(usize, usize),
    NewRequest,
    NewConnection,
    ReleaseIfEmpty,
    Take,
}

fn input_op() -> impl Strategy<Value = InputOp> {
    prop_oneof![
        4 => (0_usize..9000).prop_map(InputOp::Extend),
        4 => (0_usize..5000, any::<usize>()).prop_map(|(min, n)| InputOp::Receive(min, n)),
        2 => (0_usize..200_000).prop_map(InputOp::Total),
        6 => any::<usize>().prop_map(InputOp::Consume),
        3 => any::<(usize, usize)>().prop_map(|(start, len)| InputOp::Remove(start, len)),
        2 => Just(InputOp::NewRequest),
        1 => Just(InputOp::NewConnection),
        2 => Just(InputOp::ReleaseIfEmpty),
        1 => Just(InputOp::Take),
    ]
}

proptest! {
    #[test]
    fn input_buffer_is_a_queue_of_bytes(ops in vec(input_op(), 1..150)) {
        let recycler = BufferRecycler::new();
        let mut input = InputBuffer::new(recycler.clone());
        let mut model: VecDeque<u8> = VecDeque::new();
        for (step, op) in ops.into_iter().enumerate() {
            match op {
                InputOp::Extend(len) => {
                    let bytes = pattern(step, len);
                    input.extend(&bytes).unwrap();
                    model.extend(bytes);
                }
                InputOp::Receive(min, n) => {
                    let free = input.reserve(min).unwrap();
                    prop_assert!(free.len() >= min);
                    let bytes = pattern(step, n % (free.len() + 1));
                    free[..bytes.len()].copy_from_slice(&bytes);
                    input.commit(bytes.len());
                    model.extend(bytes);
                }
                InputOp::Total(total) => {
                    input.reserve_exact_total(total).unwrap();
                    prop_assert!(input.len() + input.free_len() >= total);
                }
                InputOp::Consume(n) => {
                    let n = n % (model.len() + 1);
                    input.consume(n);
                    model.drain(..n);
                }
                InputOp::Remove(start, len) => {
                    let start = start % (model.len() + 1);
                    let len = len % (model.len() - start + 1);
                    input.remove(start, len);
                    model.drain(start..start + len);
                }
                InputOp::NewRequest => input.reset_for_new_request(),
                InputOp::NewConnection => {
                    input.reset_for_new_connection();
                    model.clear();
                    prop_assert_eq!(input.capacity(), 0);
                }
                InputOp::ReleaseIfEmpty => {
                    input.release_if_empty();
                    prop_assert!(!model.is_empty() || input.capacity() == 0);
                }
                InputOp::Take => {
                    let taken = input.take();
                    prop_assert_eq!((input.len(), input.capacity()), (0, 0));
                    input = taken;
                }
            }
            prop_assert_eq!(input.unconsumed(), model.make_contiguous());
            prop_assert_eq!((input.len(), input.is_empty()), (model.len(), model.is_empty()));
            prop_assert!(input.len() + input.free_len() <= input.capacity());
            prop_assert_eq!(recycler.live(), usize::from(input.capacity() > 0));
        }
    }
}

#[derive(Clone, Debug)]
enum SlabOp {
    Insert(u16),
    Remove(usize),
    Change(usize, u16),
    Trim,
}

fn slab_op() -> impl Strategy<Value = SlabOp> {
    prop_oneof![
        6 => any::<u16>().prop_map(SlabOp::Insert),
        5 => any::<usize>().prop_map(SlabOp::Remove),
        2 => any::<(usize, u16)>().prop_map(|(which, value)| SlabOp::Change(which, value)),
        1 => Just(SlabOp::Trim),
    ]
}

proptest! {
    #[test]
    fn slab_is_a_map_that_knows_stale_keys(ops in vec(slab_op(), 1..600), limit in 1_usize..300) {
        let mut slab = Slab::with_limit(limit);
        let mut model: HashMap<Key, u16> = HashMap::new();
        // Every key that was ever made; a second one that is equal would be a stale key revived.
        let mut keys: Vec<Key> = Vec::new();
        for op in ops {
            match op {
                SlabOp::Insert(value) if model.len() == limit => {
                    prop_assert!(slab.insert(value).is_err());
                }
                SlabOp::Insert(value) => {
                    let key = slab.insert(value).unwrap();
                    prop_assert!((key.index as usize) < limit);
                    prop_assert!(!keys.contains(&key));
                    keys.push(key);
                    model.insert(key, value);
                }
                SlabOp::Remove(which) if !keys.is_empty() => {
                    let key = keys[which % keys.len()];
                    prop_assert_eq!(slab.remove(key), model.remove(&key));
                }
                SlabOp::Change(which, value) if !keys.is_empty() => {
                    let key = keys[which % keys.len()];
                    let changed = slab.get_mut(key).map(|held| *held = value);
                    prop_assert_eq!(changed, model.get_mut(&key).map(|held| *held = value));
                }
                SlabOp::Trim => slab.trim(),
                SlabOp::Remove(_) | SlabOp::Change(..) => {}
            }
            prop_assert_eq!((slab.len(), slab.is_empty()), (model.len(), model.is_empty()));
        }
        for key in keys {
            prop_assert_eq!(slab.get(key), model.get(&key));
        }
        let held: HashMap<Key, u16> = slab.iter().map(|(key, &value)| (key, value)).collect();
        prop_assert_eq!(held, model);
        prop_assert!(slab.keys().map(|key| key.index).is_sorted());
    }
}

#[derive(Clone, Debug)]
enum BufferOp {
    Acquire(usize),
    Release(usize),
    Trim,
    Limit(usize),
}

fn buffer_op() -> impl Strategy<Value = BufferOp> {
    prop_oneof![
        5 => (0_usize..70_000).prop_map(BufferOp::Acquire),
        1 => (16_usize << 20..18 << 20).prop_map(BufferOp::Acquire),
        5 => any::<usize>().prop_map(BufferOp::Release),
        1 => Just(BufferOp::Trim),
        1 => (0_usize..300_000).prop_map(BufferOp::Limit),
    ]
}

proptest! {
    #[test]
    fn buffer_recycler_never_hands_out_memory_twice(ops in vec(buffer_op(), 1..120)) {
        let recycler = BufferRecycler::new();
        let mut held: Vec<(u8, Buffer)> = Vec::new();
        for (step, op) in ops.into_iter().enumerate() {
            match op {
                BufferOp::Acquire(min) => {
                    let mut buffer = recycler.acquire(min).unwrap();
                    prop_assert!(buffer.capacity() >= min.max(4096));
                    prop_assert!(buffer.capacity() < 2 * min.max(4096));
                    let from = buffer.as_ptr().addr();
                    for (_, other) in &held {
                        let other_from = other.as_ptr().addr();
                        prop_assert!(
                            from + buffer.capacity() <= other_from || other_from + other.capacity() <= from
                        );
                    }
                    let (tag, last) = (step as u8, buffer.capacity() - 1);
                    (buffer[0], buffer[last]) = (tag, tag);
                    held.push((tag, buffer));
                }
                BufferOp::Release(which) if !held.is_empty() => {
                    let (tag, buffer) = held.swap_remove(which % held.len());
                    prop_assert_eq!((buffer[0], buffer[buffer.capacity() - 1]), (tag, tag));
                }
                BufferOp::Release(_) => {}
                BufferOp::Trim => {
                    let before = recycler.cached_bytes();
                    prop_assert_eq!(recycler.trim(), before - recycler.cached_bytes());
                }
                BufferOp::Limit(bytes) => recycler.set_cached_bytes_max(bytes),
            }
            prop_assert_eq!(recycler.live(), held.len());
            prop_assert!(recycler.cached_bytes() <= recycler.cached_bytes_max());
        }
    }
}

#[derive(Clone, Debug)]
enum WriteOp {
    Extend(usize),
    Spare(usize, usize),
    Reserve(usize),
    Truncate(usize),
}

fn write_op() -> impl Strategy<Value = WriteOp> {
    prop_oneof![
        5 => (0_usize..3000).prop_map(WriteOp::Extend),
        1 => (3000_usize..40_000).prop_map(WriteOp::Extend),
        3 => (0_usize..3000, any::<usize>()).prop_map(|(min, n)| WriteOp::Spare(min, n)),
        1 => (0_usize..100_000).prop_map(WriteOp::Reserve),
        1 => (0_usize..50_000).prop_map(WriteOp::Truncate),
    ]
}

proptest! {
    #[test]
    fn write_arena_is_a_vector(ops in vec(write_op(), 1..100)) {
        let recycler = BufferRecycler::new();
        let mut arena = WriteArena::new(recycler.clone()).unwrap();
        let mut model: Vec<u8> = Vec::new();
        for (step, op) in ops.into_iter().enumerate() {
            match op {
                WriteOp::Extend(len) => {
                    arena.extend(&pattern(step, len)).unwrap();
                    model.extend(pattern(step, len));
                }
                WriteOp::Spare(min, n) => {
                    let spare = arena.spare_mut(min).unwrap();
                    prop_assert!(spare.len() >= min);
                    let bytes = pattern(step, n % (spare.len() + 1));
                    spare[..bytes.len()].copy_from_slice(&bytes);
                    arena.advance(bytes.len());
                    model.extend(bytes);
                }
                WriteOp::Reserve(n) => {
                    arena.reserve(n).unwrap();
                    prop_assert!(arena.capacity() - arena.len() >= n);
                }
                WriteOp::Truncate(n) => {
                    arena.truncate(n);
                    model.truncate(n);
                }
            }
            prop_assert_eq!(arena.as_slice(), &model);
            prop_assert_eq!((arena.len(), arena.is_empty()), (model.len(), model.is_empty()));
            prop_assert_eq!(recycler.live(), 1);
        }
    }
}
