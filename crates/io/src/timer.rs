//! The timer wheel: every timeout and sleep of a worker, in user space.
//!
//! Time is counted in ticks of a length that the caller chooses ([`TICK_US`] here). Six levels of 64
//! slots: a slot of level `k` spans `64^k` ticks; a timer stands on the lowest level whose slots tell
//! its deadline from now, and moves down ("cascades") when the wheel reaches its slot:
//!
//! ```text
//! level 0   | 1 tick each, 64 in all (32 ms)     exact: a timer fires from here
//! level 1   | 64 ticks each, 4,096 in all (2 s)
//! level 2   | 4,096 ticks each (2 s), 131 s in all
//! ...       | level 5: a year in all; later deadlines wait in its last slot
//! ```
//!
//! Inserting and cancelling are O(1), firing is O(1) plus at most five moves in a timer's life.
//! A timer never fires early; it fires at the first call of [`TimerWheel::pop_expired`] at or after
//! its deadline. Slots are FIFO. Entries sit in one vector that grows and is reused: no allocation
//! in steady state.

/// Names a timer until it fires or is cancelled. Stale ids are harmless.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct TimerId {
    index: u32,
    generation: u32,
}

/// The tick of an engine's wheel, in microseconds: how exactly a sleep ends. A shorter one makes
/// smaller batches of what is woken: 250 cost 9 % more CPU per sleeping handler, 1,000 cost 5 % less
/// but made a 50 ms sleep half a millisecond longer.
pub const TICK_US: u64 = 500;

const LEVELS: usize = 6;
const SLOTS: usize = 64;
/// How far ahead the top level tells slots apart: all but the one that the wheel stands in.
const REACH: u64 = (SLOTS as u64 - 1) << (6 * (LEVELS - 1));
const NONE: u32 = u32::MAX;
const FREE: u16 = u16::MAX;

#[derive(Debug)]
struct Entry {
    deadline: u64,
    token: u64,
    next: u32,
    prev: u32,
    generation: u32,
    /// `level * SLOTS + slot`, or `FREE`.
    place: u16,
}

/// Timers of one worker. Times are ticks of the caller's monotonic clock.
#[derive(Debug)]
pub struct TimerWheel {
    entries: Vec<Entry>,
    free: u32,
    len: usize,
    elapsed: u64,
    occupied: [u64; LEVELS],
    /// Head of each slot's circular list.
    heads: Box<[u32; LEVELS * SLOTS]>,
}

impl TimerWheel {
    /// An empty wheel that stands at `now`.
    pub fn new(now: u64) -> Self {
        TimerWheel {
            entries: Vec::new(),
            free: NONE,
            len: 0,
            elapsed: now,
            occupied: [0; LEVELS],
            heads: Box::new([NONE; LEVELS * SLOTS]),
        }
    }

    /// How many timers are waiting.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The tokens of all timers that wait, in no order. Looks at every slot: for tests.
    pub fn tokens(&self) -> impl Iterator<Item = u64> {
        let waiting = self.entries.iter().filter(|entry| entry.place != FREE);
        waiting.map(|entry| entry.token)
    }

    /// Whether no timer is waiting.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a timer; a deadline in the past fires at the next [`pop_expired`](Self::pop_expired).
    pub fn insert(&mut self, deadline: u64, token: u64) -> TimerId {
        let index = if self.free == NONE {
            if self.entries.len() == self.entries.capacity() {
                // By an eighth, not by half: an idle connection has one, and there are many.
                self.entries.reserve_exact((self.entries.len() / 8).max(64));
            }
            self.entries.push(Entry {
                deadline,
                token,
                next: NONE,
                prev: NONE,
                generation: 0,
                place: FREE,
            });
            u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 timers fit in memory")
        } else {
            let index = self.free;
            self.free = self.entries[index as usize].next;
            index
        };
        let entry = &mut self.entries[index as usize];
        entry.deadline = deadline;
        entry.token = token;
        let id = TimerId {
            index,
            generation: entry.generation,
        };
        self.len += 1;
        self.link(index);
        id
    }

    /// Removes a timer; false if it has fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> bool {
        match self.entries.get(id.index as usize) {
            Some(entry) if entry.generation == id.generation && entry.place != FREE => {
                self.unlink(id.index);
                self.release(id.index);
                true
            }
            _ => false,
        }
    }

    /// Takes one timer whose deadline is at or before `now`; returns its id and token.
    /// Timers that are inserted between two calls are seen by the second.
    pub fn pop_expired(&mut self, now: u64) -> Option<(TimerId, u64)> {
        loop {
            let Some((level, slot, at)) = self.next_slot() else {
                self.elapsed = self.elapsed.max(now);
                return None;
            };
            if at > now {
                self.elapsed = self.elapsed.max(now);
                return None;
            }
            self.elapsed = self.elapsed.max(at);
            let index = self.heads[level * SLOTS + slot];
            if level == 0 && self.entries[index as usize].deadline <= self.elapsed {
                self.unlink(index);
                let entry = &self.entries[index as usize];
                let (token, generation) = (entry.token, entry.generation);
                self.release(index);
                return Some((TimerId { index, generation }, token));
            }
            self.cascade(level, slot);
        }
    }

    /// The earliest time at which [`pop_expired`](Self::pop_expired) has something to do: a lower
    /// bound of the next deadline, exact within the next 64 ticks.
    pub fn next_tick(&self) -> Option<u64> {
        self.next_slot().map(|(_, _, at)| at)
    }

    fn cascade(&mut self, level: usize, slot: usize) {
        // Re-linked timers stand on lower levels, or in another slot of the top level.
        let last = self.entries[self.heads[level * SLOTS + slot] as usize].prev;
        loop {
            let index = self.heads[level * SLOTS + slot];
            self.unlink(index);
            self.link(index);
            if index == last {
                return;
            }
        }
    }

    /// Level, slot and start of the first slot that holds a timer.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|&bits| bits != 0)?;
        let span = 1_u64 << (6 * level);
        let here = (self.elapsed >> (6 * level)) as u32 % SLOTS as u32;
        let ahead = self.occupied[level].rotate_right(here).trailing_zeros();
        let slot = (here + ahead) as usize % SLOTS;
        let start = self.elapsed & !(span - 1);
        Some((level, slot, start + u64::from(ahead) * span))
    }

    fn link(&mut self, index: u32) {
        let deadline = self.entries[index as usize]
            .deadline
            .clamp(self.elapsed, self.elapsed.saturating_add(REACH));
        let differing = (deadline ^ self.elapsed) | 63;
        let level = ((63 - differing.leading_zeros() as usize) / 6).min(LEVELS - 1);
        let slot = (deadline >> (6 * level)) as usize % SLOTS;
        let place = level * SLOTS + slot;
        let head = self.heads[place];
        let (next, prev) = if head == NONE {
            self.heads[place] = index;
            self.occupied[level] |= 1 << slot;
            (index, index)
        } else {
            let tail = self.entries[head as usize].prev;
            self.entries[head as usize].prev = index;
            self.entries[tail as usize].next = index;
            (head, tail)
        };
        let entry = &mut self.entries[index as usize];
        entry.next = next;
        entry.prev = prev;
        entry.place = place as u16;
    }

    fn unlink(&mut self, index: u32) {
        let Entry {
            next, prev, place, ..
        } = self.entries[index as usize];
        let place = usize::from(place);
        if next == index {
            self.heads[place] = NONE;
            self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
        } else {
            self.entries[prev as usize].next = next;
            self.entries[next as usize].prev = prev;
            if self.heads[place] == index {
                self.heads[place] = next;
            }
        }
    }

    fn release(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.place = FREE;
        entry.next = self.free;
        self.free = index;
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn drain(wheel: &mut TimerWheel, now: u64) -> Vec<u64> {
        std::iter::from_fn(|| wheel.pop_expired(now).map(|(_, token)| token)).collect()
    }

    #[test]
    fn fires_at_its_deadline_and_not_before() {
        for after in [0, 1, 63, 64, 65, 4095, 4096, 75_000, 300_000_000] {
            let mut wheel = TimerWheel::new(1_000_003);
            wheel.insert(1_000_003 + after, 9);
            if after > 0 {
                assert!(drain(&mut wheel, 1_000_002 + after).is_empty(), "{after}");
            }
            assert_eq!(drain(&mut wheel, 1_000_003 + after), [9], "{after}");
            assert!(wheel.is_empty());
        }
    }

    #[test]
    fn same_deadline_fires_in_order_of_insertion() {
        let mut wheel = TimerWheel::new(0);
        for token in 0..100 {
            wheel.insert(5000, token);
        }
        assert_eq!(drain(&mut wheel, 5000), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_cancelled_timer_does_not_fire_and_its_id_is_dead() {
        let mut wheel = TimerWheel::new(0);
        let a = wheel.insert(10, 1);
        wheel.insert(10, 2);
        assert!(wheel.cancel(a));
        assert!(!wheel.cancel(a));
        let reused = wheel.insert(11, 3);
        assert!(
            !wheel.cancel(a),
            "the entry is reused under another generation"
        );
        assert_eq!(drain(&mut wheel, 10), [2]);
        assert!(wheel.cancel(reused));
        assert_eq!(wheel.next_tick(), None);
    }

    #[test]
    fn next_is_never_later_than_the_first_deadline_and_makes_progress() {
        let mut wheel = TimerWheel::new(0);
        wheel.insert(75_000, 1);
        let mut wakes = 0;
        loop {
            let next = wheel.next_tick().unwrap();
            assert!(next <= 75_000);
            wakes += 1;
            if !drain(&mut wheel, next).is_empty() {
                break;
            }
        }
        assert!(wakes <= 4, "one wake for each level: {wakes}");
    }

    #[test]
    fn deadlines_beyond_the_last_level_still_fire_in_time() {
        let mut wheel = TimerWheel::new(5);
        wheel.insert(1 << 40, 1);
        let mut now = 5;
        while let Some(next) = wheel.next_tick() {
            now = next;
            if !drain(&mut wheel, now).is_empty() {
                break;
            }
        }
        assert_eq!(now, 1 << 40);
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_map(steps in prop::collection::vec((0_u64..3, 0_u64..10_000, 0_usize..50), 1..200)) {
            let mut wheel = TimerWheel::new(0);
            let mut model: BTreeMap<(u64, u64), TimerId> = BTreeMap::new();
            let (mut now, mut token) = (0, 0);
            for (kind, amount, pick) in steps {
                match kind {
                    0 => {
                        token += 1;
                        model.insert((now + amount, token), wheel.insert(now + amount, token));
                    }
                    1 => {
                        if let Some((&key, &id)) = model.iter().nth(pick) {
                            prop_assert!(wheel.cancel(id));
                            model.remove(&key);
                        }
                    }
                    _ => {
                        now += amount;
                        let mut fired = drain(&mut wheel, now);
                        let mut due: Vec<u64> = model.range(..=(now, u64::MAX)).map(|(&(_, t), _)| t).collect();
                        model.retain(|&(at, _), _| at > now);
                        fired.sort_unstable();
                        due.sort_unstable();
                        prop_assert_eq!(fired, due);
                        if let Some(next) = wheel.next_tick() {
                            prop_assert!(next <= model.keys().next().unwrap().0);
                        }
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
            }
        }
    }
}
