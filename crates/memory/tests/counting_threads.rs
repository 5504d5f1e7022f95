//! The counting allocator is the one thing of this crate that threads share: what they count together
//! is exact when they have ended. Run under ThreadSanitizer by `make sanitize`.

use theframework_memory::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// One test: the allocator counts for the whole process.
#[test]
fn threads_count_together() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 2_000;
    let start = std::sync::Barrier::new(THREADS as usize + 1);
    let end = std::sync::Barrier::new(THREADS as usize + 1);
    let (before, after) = std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                for round in 0..ROUNDS {
                    let mut bytes = Vec::with_capacity(8);
                    bytes.push(round);
                    bytes.reserve_exact(100);
                    std::hint::black_box(&mut bytes);
                }
                end.wait();
            });
        }
        // Threads were made, and have not begun.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let before = ALLOCATOR.counts();
        start.wait();
        end.wait();
        (before, ALLOCATOR.counts())
    });
    let made = after.allocations - before.allocations;
    let grown = after.reallocations - before.reallocations;
    let freed = after.deallocations - before.deallocations;
    assert!((THREADS * ROUNDS..THREADS * ROUNDS + 100).contains(&made));
    assert_eq!(grown, THREADS * ROUNDS);
    assert!(freed.abs_diff(made) < 100);
    assert!(after.live_bytes.abs_diff(before.live_bytes) < 10_000);
}
