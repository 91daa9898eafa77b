//! Counter-based random streams: same seed, same result, whatever the number of threads.
//!
//! A generator is addressed by (seed, stream name, index) and nothing else. Work that runs in parallel takes one
//! index per item (sample, trial, chunk), so the order in which threads get to the items does not matter.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The generator behind every stream.
pub type Rng = ChaCha8Rng;

/// All random streams of one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    seed: u64,
}

/// One named stream: a family of independent generators, one per index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    seed: u64,
    name: u64,
}

impl Streams {
    /// The streams of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The stream called `name` ("noise", "initial values").
    pub fn stream(&self, name: &str) -> Stream {
        Stream { seed: self.seed, name: fnv1a(name.as_bytes()) }
    }
}

impl Stream {
    /// The generator with number `index`.
    pub fn rng(&self, index: u64) -> Rng {
        let mut key = [0; 32];
        for (word, bytes) in [self.seed, self.name, index].into_iter().zip(key.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        // The last word tells these keys from those of any other program that uses the same construction.
        key[24..].copy_from_slice(b"offprint");
        Rng::from_seed(key)
    }

    /// The streams that belong to item `index` of this one: for a trial that itself needs several streams.
    pub fn nested(&self, index: u64) -> Streams {
        use rand::RngExt;
        Streams { seed: self.rng(index).random() }
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn streams_differ_by_seed_name_and_index_only() {
        let draw = |seed, name, index| Streams::new(seed).stream(name).rng(index).random::<u64>();
        assert_eq!(draw(1, "a", 0), draw(1, "a", 0));
        let all = [draw(1, "a", 0), draw(2, "a", 0), draw(1, "b", 0), draw(1, "a", 1)];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn stream_names_are_hashed_by_published_fnv1a() {
        // Test vectors of the FNV authors for 64-bit FNV-1a.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
