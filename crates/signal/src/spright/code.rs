//! The binary code whose words are the delays of the sample-optimal variant.
//!
//! A code of dimension m and length L turns the m unknown bits of an index into L signs, each seen through noise. Its
//! parity checks are sparse (each code bit in three of them: Gallager's construction, rate about a half), so messages
//! passed along them decode in time linear in L. Codes here are short; where the messages do not settle, the most
//! reliable bits are trusted and the rest re-encoded (ordered statistics). Which code the paper's simulations used is
//! not known: this choice is a reconstruction.

use super::gf2::{Subspace, dual, odd};
use offprint_core::random::Rng;
use rand::RngExt;
use rand::seq::SliceRandom;

/// Rounds of message passing.
const ROUNDS: usize = 30;
/// What min-sum messages are multiplied by: they overstate.
const DAMPING: f64 = 0.75;
/// Codes drawn, of which the one with the largest distance is kept.
const DRAWS: usize = 16;
/// Up to this dimension two of the trusted bits may be wrong at once when statistics are ordered; above, one.
const TWO_FLIPS: usize = 24;

/// A linear code of dimension m.
#[derive(Debug, Clone)]
pub struct Code {
    dimension: usize,
    /// Row r of the generator: code bit r of the message k is ⟨generator[r], k⟩.
    generator: Vec<u64>,
    /// Code bits in each parity check.
    checks: Vec<Vec<usize>>,
}

impl Code {
    /// Draws a code of dimension `m` ≥ 1 and the given `length` ≥ m.
    pub fn draw(m: usize, length: usize, rng: &mut Rng) -> Self {
        assert!(m >= 1 && length >= m, "a code of dimension {m} has at least {m} bits, not {length}");
        (0..DRAWS).map(|_| Self::draw_one(m, length, rng)).max_by_key(Self::light_word).expect("DRAWS > 0")
    }

    fn draw_one(m: usize, length: usize, rng: &mut Rng) -> Self {
        let rows = length - m;
        loop {
            let checks = sparse_checks(rows, length, rng);
            if let Some(generator) = generator(&checks, length, m) {
                return Self { dimension: m, generator, checks };
            }
        }
    }

    /// The smallest weight among words of one or two message bits: the code's distance is at most that.
    fn light_word(&self) -> usize {
        let column = |i: usize| self.generator.iter().map(move |g| g >> i & 1);
        let single = (0..self.dimension).map(|i| column(i).sum::<u64>());
        let double = (0..self.dimension)
            .flat_map(|i| (0..i).map(move |j| (i, j)))
            .map(|(i, j)| column(i).zip(column(j)).map(|(a, b)| a ^ b).sum());
        single.chain(double).min().unwrap_or(0) as usize
    }

    /// The rows of the generator, `length` vectors of F₂^m.
    pub fn generator(&self) -> &[u64] {
        &self.generator
    }

    /// The message whose word fits best to `soft`: code bit r is more likely 0 the larger soft\[r\] is.
    pub fn decode(&self, soft: &[f64], scratch: &mut Scratch) -> u64 {
        if let Some(message) = self.pass_messages(soft, scratch) { message } else { self.order_statistics(soft) }
    }

    /// Normalised min-sum; `None` if it ends on no word of the code.
    fn pass_messages(&self, soft: &[f64], scratch: &mut Scratch) -> Option<u64> {
        let edges: usize = self.checks.iter().map(Vec::len).sum();
        scratch.messages.clear();
        scratch.messages.resize(edges, 0.0);
        scratch.belief.clear();
        scratch.belief.extend_from_slice(soft);
        for _ in 0..ROUNDS {
            let mut settled = true;
            let mut edge = 0;
            for check in &self.checks {
                let messages = &mut scratch.messages[edge..edge + check.len()];
                edge += check.len();
                // What each bit says without this check's own word; the two smallest magnitudes and the parity.
                let (mut smallest, mut second, mut at, mut parity) = (f64::MAX, f64::MAX, 0, false);
                let mut unmet = false;
                for (i, (&bit, message)) in check.iter().zip(messages.iter_mut()).enumerate() {
                    unmet ^= scratch.belief[bit] < 0.0;
                    let said = scratch.belief[bit] - *message;
                    scratch.belief[bit] = said;
                    parity ^= said < 0.0;
                    let size = said.abs();
                    if size < smallest {
                        (second, smallest, at) = (smallest, size, i);
                    } else if size < second {
                        second = size;
                    }
                }
                settled &= !unmet;
                for (i, (&bit, message)) in check.iter().zip(messages).enumerate() {
                    let said = scratch.belief[bit];
                    let size = DAMPING * if i == at { second.min(f64::MAX / 4.0) } else { smallest };
                    *message = if parity ^ (said < 0.0) { -size } else { size };
                    scratch.belief[bit] = said + *message;
                }
            }
            if settled
                && self.checks.iter().all(|check| !check.iter().fold(false, |p, &b| p ^ (scratch.belief[b] < 0.0)))
            {
                return Some(self.message(&scratch.belief));
            }
        }
        None
    }

    /// The message of a word given by its signs.
    fn message(&self, word: &[f64]) -> u64 {
        // The generator holds every unit vector: those code bits are the message.
        (0..self.dimension).fold(0, |message, i| {
            let at = self.generator.iter().position(|&g| g == 1 << i).expect("the generator is systematic");
            message | u64::from(word[at] < 0.0) << i
        })
    }

    /// Trusts the most reliable independent bits, all but one or two of them, and keeps the likeliest word.
    fn order_statistics(&self, soft: &[f64]) -> u64 {
        let mut order: Vec<usize> = (0..soft.len()).collect();
        order.sort_by(|&a, &b| soft[b].abs().total_cmp(&soft[a].abs()).then(a.cmp(&b)));
        let mut space = Subspace::default();
        let trusted: Vec<usize> = order.into_iter().filter(|&r| space.insert(self.generator[r])).collect();
        let basis: Vec<u64> = trusted.iter().map(|&r| self.generator[r]).collect();
        let dual = dual(&basis);
        let base = trusted.iter().zip(&dual).fold(0, |k, (&r, &w)| if soft[r] < 0.0 { k ^ w } else { k });
        let fit =
            |k: u64| -> f64 { self.generator.iter().zip(soft).map(|(&g, &s)| if odd(g, k) { -s } else { s }).sum() };
        let mut best = (fit(base), base);
        let mut consider = |k: u64| {
            let fit = fit(k);
            if fit > best.0 {
                best = (fit, k);
            }
        };
        for (i, &first) in dual.iter().enumerate() {
            consider(base ^ first);
            if self.dimension <= TWO_FLIPS {
                dual[..i].iter().for_each(|&second| consider(base ^ first ^ second));
            }
        }
        best.1
    }
}

/// Memory for decoding, used again and again.
#[derive(Debug, Default)]
pub struct Scratch {
    messages: Vec<f64>,
    belief: Vec<f64>,
}

/// Parity checks in which every code bit stands three times (as often as there are checks, if those are fewer), spread
/// as evenly over the checks as chance allows.
fn sparse_checks(rows: usize, length: usize, rng: &mut Rng) -> Vec<Vec<usize>> {
    let mut checks = vec![Vec::new(); rows];
    if rows < 4 {
        // Too few for a sparse code: each bit in a random set of checks that is not empty.
        for bit in 0..length {
            let set = if rows == 0 { 0 } else { rng.random_range(1..1u32 << rows) };
            (0..rows).filter(|r| set >> r & 1 == 1).for_each(|r| checks[r].push(bit));
        }
        return checks;
    }
    let mut order: Vec<usize> = (0..rows).collect();
    for bit in 0..length {
        order.shuffle(rng);
        order.sort_by_key(|&r| checks[r].len());
        order[..3].iter().for_each(|&r| checks[r].push(bit));
    }
    checks
}

/// The systematic generator of the code with these checks; `None` unless its dimension is `m`.
fn generator(checks: &[Vec<usize>], length: usize, m: usize) -> Option<Vec<u64>> {
    let words = length.div_ceil(64);
    let mut rows: Vec<Vec<u64>> = checks
        .iter()
        .map(|check| {
            let mut row = vec![0u64; words];
            check.iter().for_each(|&bit| row[bit / 64] ^= 1 << (bit % 64));
            row
        })
        .collect();
    let has = |row: &[u64], bit: usize| row[bit / 64] >> (bit % 64) & 1 == 1;
    let mut pivots = Vec::with_capacity(rows.len());
    for bit in 0..length {
        let done = pivots.len();
        let Some(at) = (done..rows.len()).find(|&r| has(&rows[r], bit)) else { continue };
        rows.swap(done, at);
        let pivot = rows[done].clone();
        for (r, row) in rows.iter_mut().enumerate() {
            if r != done && has(row, bit) {
                row.iter_mut().zip(&pivot).for_each(|(a, b)| *a ^= b);
            }
        }
        pivots.push(bit);
    }
    if length - pivots.len() != m {
        return None;
    }
    let free: Vec<usize> = (0..length).filter(|bit| !pivots.contains(bit)).collect();
    let mut generator = vec![0u64; length];
    for (i, &bit) in free.iter().enumerate() {
        generator[bit] = 1 << i;
    }
    // A reduced check says: its pivot bit is the sum of the free bits in it.
    for (row, &pivot) in rows.iter().zip(&pivots) {
        generator[pivot] = free.iter().enumerate().filter(|&(_, &bit)| has(row, bit)).fold(0, |g, (i, _)| g | 1 << i);
    }
    Some(generator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use offprint_core::random::Streams;
    use rand_distr::{Distribution, StandardNormal};

    fn rng(index: u64) -> Rng {
        Streams::new(0).stream("code").rng(index)
    }

    #[test]
    fn words_meet_every_check_and_decode_to_their_message() {
        for (m, length) in [(1, 1), (1, 2), (2, 3), (5, 10), (12, 24), (19, 38), (40, 80), (58, 130)] {
            let mut rng = rng(length as u64);
            let code = Code::draw(m, length, &mut rng);
            assert_eq!(Subspace::of(code.generator()).rank(), m);
            for _ in 0..20 {
                let message = rng.random_range(0..1u64 << m);
                let bit = |r: usize| odd(code.generator[r], message);
                assert!(code.checks.iter().all(|check| !check.iter().fold(false, |p, &r| p ^ bit(r))));
                let soft: Vec<f64> = (0..length).map(|r| if bit(r) { -1.0 } else { 1.0 }).collect();
                assert_eq!(code.decode(&soft, &mut Scratch::default()), message, "({length}, {m})");
            }
        }
    }

    #[test]
    fn decoding_is_nearly_as_good_as_trying_every_word() {
        // Dimension 8, so that the best of all 256 words can be found by trying.
        let mut rng = rng(0);
        let code = Code::draw(8, 16, &mut rng);
        let (mut ours, mut best) = (0, 0);
        for _ in 0..400 {
            let message = rng.random_range(0..1u64 << 8);
            let soft: Vec<f64> = code
                .generator
                .iter()
                .map(|&g| {
                    let noise: f64 = StandardNormal.sample(&mut rng);
                    super::super::gf2::sign(g, message) + 0.7 * noise
                })
                .collect();
            let fit =
                |k: u64| code.generator.iter().zip(&soft).map(|(&g, s)| if odd(g, k) { -s } else { *s }).sum::<f64>();
            let likeliest = (0..1 << 8).max_by(|&a, &b| fit(a).total_cmp(&fit(b))).unwrap();
            ours += usize::from(code.decode(&soft, &mut Scratch::default()) == message);
            best += usize::from(likeliest == message);
        }
        assert!(best > 300 && ours + 12 >= best, "{ours} against {best} of 400");
    }
}
