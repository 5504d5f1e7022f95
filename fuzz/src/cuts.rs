//! Where an input is cut in pieces: derived from the input itself, so that a seed is nothing but the
//! bytes of the wire, and a reproducer needs no second file.

/// The work of cutting at every byte grows with the square of the length: short inputs always are, of
/// longer ones some, of the longest none.
const EVERY_BYTE_ALWAYS: usize = 32;
const EVERY_BYTE_MAX: usize = 256;

/// Several ways to cut `bytes`: in one piece, byte by byte, and a few in between. Each is a growing
/// list of lengths, and ends with the whole.
pub fn ways(bytes: &[u8]) -> Vec<Vec<usize>> {
    let len = bytes.len();
    let mut ways = vec![vec![len]];
    let mut random = Random::new(bytes);
    if len <= EVERY_BYTE_ALWAYS || (len <= EVERY_BYTE_MAX && random.below(15) == 0) {
        ways.push((1..=len).collect());
    }
    for pieces_max in [1, 3, 12] {
        let pieces = 1 + random.below(pieces_max);
        let mut cuts: Vec<_> = (0..pieces).map(|_| random.below(len)).collect();
        cuts.push(len);
        cuts.sort_unstable();
        ways.push(cuts);
    }
    ways
}

/// xorshift64*, seeded by the bytes (FNV-1a).
pub struct Random(u64);

impl Random {
    pub fn new(bytes: &[u8]) -> Self {
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Random(hash | 1)
    }

    /// A number from 0 to `max`.
    pub fn below(&mut self, max: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as usize % (max + 1)
    }
}
