//! A load that goes on as before allocates nothing. Without the test harness: the counters are
//! process-wide, and the harness's own thread allocates while a test begins.

#![allow(clippy::unwrap_used, reason = "a failing test says where")]

use theframework_memory::{
    Arena, BlockRecycler, BufferRecycler, ChunkRecycler, CountingAllocator, InputBuffer, Slab,
    Span, WriteArena,
};

#[global_allocator]
static COUNTING: CountingAllocator = CountingAllocator::new();

fn main() {
    if cfg!(feature = "no-recycle") {
        println!("test a_steady_load_allocates_nothing ... ignored, nothing is cached");
        return;
    }
    let (chunks, blocks, buffers) = (
        ChunkRecycler::new(),
        BlockRecycler::new(),
        BufferRecycler::new(),
    );
    let mut arenas = Slab::new();
    let mut request = || {
        let mut input = InputBuffer::new(buffers.clone());
        input.extend(&[b'a'; 6000]).unwrap();
        let key = arenas
            .insert(Arena::new(chunks.clone(), blocks.clone()))
            .unwrap();
        let arena = arenas.get_mut(key).unwrap();
        let table = arena.alloc::<[Span; 2]>(32).unwrap();
        arena.get_mut(table)[31] = [Span::new(1, 2); 2];
        arena.park().unwrap();
        arena
            .alloc_copy(input.unconsumed().first_chunk::<500>().unwrap())
            .unwrap();
        input.consume(6000);
        let mut write = WriteArena::new(buffers.clone()).unwrap();
        write.extend(&[b'b'; 5000]).unwrap();
        arenas.remove(key);
    };
    request();
    let before = COUNTING.counts();
    for _ in 0..100 {
        request();
    }
    assert_eq!(COUNTING.counts(), before);
    println!("test a_steady_load_allocates_nothing ... ok");
}
