//! Which values are looked at: C ways of hashing, each observed through several delays (§3).

use super::code::Code;
use super::gf2::{Subspace, combine, dual, odd, span};
use super::settings::{Algorithm, Hashing, Settings};
use offprint_core::random::{Rng, Stream};
use offprint_core::{Error, Result};
use rand::RngExt;

/// The subsampling pattern: what has to be asked, and how to read the answers.
#[derive(Debug, Clone)]
pub struct Design {
    /// n.
    pub bits: u32,
    /// The ways of hashing.
    pub groups: Vec<Group>,
}

/// One way of hashing indices k into B = 2ᵇ bins: j = Mᵀk.
///
/// Delays by vectors of M's column space only permute the same samples (their bins differ by known signs), so they
/// would add no information. Delays are therefore taken modulo that space, in coordinates δ ∈ F₂^{n−b} of a
/// complement Q: d = Q δ. What they leave unknown of k is r = Qᵀk, because j is known: together j and r determine k.
#[derive(Debug, Clone)]
pub struct Group {
    /// The b columns of M.
    pub columns: Vec<u64>,
    /// The n − b columns of Q; with those of M they form a basis.
    pub complement: Vec<u64>,
    /// The dual of that basis: k is the sum of those that (j, r) selects.
    dual: Vec<u64>,
    /// The P different delays, as coordinates δ.
    pub delays: Vec<u64>,
    /// What the delays are for.
    pub roles: Roles,
}

/// What the delays of a group are for, by their positions in [`Group::delays`].
#[derive(Debug, Clone)]
pub enum Roles {
    /// Delay 0, then the n − b unit vectors: bit i is read from the sign relative to delay 0 (§4.2).
    Signs,
    /// P₁ random delays, and for each its n − b modulations δ ⊕ eᵢ (NSO).
    Majority {
        /// The random delays.
        base: Vec<usize>,
        /// Modulation i of delay p, at p (n − b) + i.
        modulated: Vec<usize>,
    },
    /// Words of a code, among random delays that verify (SO). Position 0 is delay 0.
    Coded {
        /// The code.
        code: Code,
        /// The delay that carries each code bit.
        carriers: Vec<usize>,
    },
    /// Random delays only: all 2^{n−b} candidates are tried (ML).
    Search,
}

impl Design {
    /// Draws the pattern for `settings`.
    ///
    /// # Errors
    /// Settings out of range; blocks that leave bits uncovered; more candidates per bin than ML can try.
    pub fn draw(settings: &Settings, stream: Stream) -> Result<Self> {
        settings.check()?;
        let n = settings.bits;
        let groups = hashes(settings, &mut stream.rng(0))?
            .into_iter()
            .enumerate()
            .map(|(c, columns)| Group::draw(n, columns, settings, &mut stream.rng(1 + c as u64)))
            .collect::<Result<_>>()?;
        Ok(Self { bits: n, groups })
    }

    /// How many values are looked at, counting those that several groups share each time.
    pub fn queries(&self) -> usize {
        self.groups.iter().map(|g| g.bins() * g.delays.len()).sum()
    }

    /// The different indices whose values are needed, ascending.
    pub fn indices(&self) -> Vec<u64> {
        let mut indices: Vec<u64> = self.groups.iter().flat_map(Group::indices).collect();
        indices.sort_unstable();
        indices.dedup();
        indices
    }
}

impl Group {
    fn draw(n: u32, columns: Vec<u64>, settings: &Settings, rng: &mut Rng) -> Result<Self> {
        let b = columns.len();
        let m = n as usize - b;
        let mut space = Subspace::of(&columns);
        let complement: Vec<u64> = (0..n).map(|i| 1 << i).filter(|&e| space.insert(e)).collect();
        let basis = [&columns[..], &complement].concat();
        let (delays, roles) = delays(m, settings, rng)?;
        Ok(Self { dual: dual(&basis), columns, complement, delays, roles })
    }

    /// B, the number of bins.
    pub fn bins(&self) -> usize {
        1 << self.columns.len()
    }

    /// How many bits of k the bin leaves unknown: n − b.
    pub fn unknown(&self) -> usize {
        self.complement.len()
    }

    /// The bin j = Mᵀk of an index.
    pub fn bin(&self, k: u64) -> usize {
        self.columns.iter().enumerate().fold(0, |j, (t, &m)| j | usize::from(odd(m, k)) << t)
    }

    /// The rest r = Qᵀk of an index.
    pub fn rest(&self, k: u64) -> u64 {
        self.complement.iter().enumerate().fold(0, |r, (i, &q)| r | u64::from(odd(q, k)) << i)
    }

    /// The index in bin j with the rest r.
    pub fn index(&self, j: usize, r: u64) -> u64 {
        combine(&self.dual, j as u64 | r << self.columns.len())
    }

    /// The indices of the samples u\[ℓ\] = y[M ℓ ⊕ d], shape (B, P) row by row.
    pub fn indices(&self) -> Vec<u64> {
        let offsets: Vec<u64> = self.delays.iter().map(|&delta| combine(&self.complement, delta)).collect();
        let mut indices = Vec::with_capacity(self.bins() * offsets.len());
        for base in span(&self.columns) {
            indices.extend(offsets.iter().map(|d| base ^ d));
        }
        indices
    }
}

/// The columns of each group's M.
fn hashes(settings: &Settings, rng: &mut Rng) -> Result<Vec<Vec<u64>>> {
    let n = settings.bits;
    let block = |first: u32, last: u32| (first..=last).map(|i| 1u64 << i).collect::<Vec<_>>();
    let b = settings.bin_bits();
    let groups: Vec<Vec<u64>> = if !settings.blocks.is_empty() {
        settings.blocks.iter().map(|&(first, last)| block(first, last)).collect()
    } else if settings.hashing == Hashing::Windows {
        let spread = (settings.groups as u32 - 1).max(1);
        // From bit 0 to bit n − 1 at even distances, rounded half up.
        (0..settings.groups as u32)
            .map(|c| (2 * c * (n - b) + spread) / (2 * spread))
            .map(|s| block(s, s + b - 1))
            .collect()
    } else {
        return Ok(random_hashes(n, b as usize, settings.groups, rng));
    };
    let covered = groups.iter().flatten().fold(0, |all: u64, m: &u64| all | m);
    let missing: Vec<String> = (0..n).filter(|i| covered >> i & 1 == 0).map(|i| i.to_string()).collect();
    if !missing.is_empty() {
        let given = groups.iter().map(|g| format!("{} bits", g.len())).collect::<Vec<_>>().join(", ");
        let allowed = format!(
            "blocks that together cover all {n} bits; no block covers bit {}, so indices that differ only there could \
             never be told apart (take more bins, or random hashing)",
            missing.join(", ")
        );
        return Err(Error::parameter("blocks", given, allowed));
    }
    Ok(groups)
}

/// Random vectors, independent within each group and, as far as n allows, altogether.
fn random_hashes(n: u32, b: usize, groups: usize, rng: &mut Rng) -> Vec<Vec<u64>> {
    let mut all = Subspace::default();
    (0..groups)
        .map(|_| {
            let mut own = Subspace::default();
            let mut columns = Vec::with_capacity(b);
            while columns.len() < b {
                let v = rng.random_range(0..1u64 << n);
                let new = all.rank() == n as usize || !all.contains(v);
                // A group may lie across the point where all of F₂ⁿ is spanned; then its own independence remains.
                if new && own.insert(v) {
                    all.insert(v);
                    columns.push(v);
                }
            }
            columns
        })
        .collect()
}

/// The delays of a group with m unknown bits, and their roles.
fn delays(m: usize, settings: &Settings, rng: &mut Rng) -> Result<(Vec<u64>, Roles)> {
    let mut delays = Delays::default();
    let random = |rng: &mut Rng| rng.random_range(0..1u64 << m);
    let roles = match settings.algorithm {
        Algorithm::Exact | Algorithm::SparseFht => {
            delays.position(0);
            (0..m).for_each(|i| _ = delays.position(1 << i));
            Roles::Signs
        }
        Algorithm::So => {
            delays.position(0);
            delays.add_new(settings.delays(), m, rng);
            let length = settings.coded_delays.unwrap_or(2 * m);
            if length < m || length > 64 * m {
                let allowed = format!("between {m} (the unknown bits, n − b) and {}", 64 * m);
                return Err(Error::parameter("coded_delays", length, allowed));
            }
            let code = Code::draw(m, length, rng);
            let carriers = code.generator().iter().map(|&word| delays.position(word)).collect();
            Roles::Coded { code, carriers }
        }
        Algorithm::Ml => {
            if m > super::detect::MOST_SEARCHED {
                let allowed = format!(
                    "at least n − {} for the ml algorithm, which tries every index in a bin; nso and so do not",
                    super::detect::MOST_SEARCHED
                );
                return Err(Error::parameter("bin_bits", settings.bits as usize - m, allowed));
            }
            delays.position(0);
            delays.add_new(settings.delays().saturating_sub(1), m, rng);
            Roles::Search
        }
        _ => {
            let mut base = Vec::new();
            let mut modulated = Vec::new();
            for _ in 0..settings.delays() {
                let delta = random(rng);
                base.push(delays.position(delta));
                modulated.extend((0..m).map(|i| delays.position(delta ^ 1 << i)));
            }
            Roles::Majority { base, modulated }
        }
    };
    Ok((delays.different, roles))
}

/// Delays without repetition. A repeated delay would count the same noise twice.
#[derive(Default)]
struct Delays {
    different: Vec<u64>,
    positions: std::collections::HashMap<u64, usize>,
}

impl Delays {
    /// Where `delta` stands, adding it if it is new.
    fn position(&mut self, delta: u64) -> usize {
        *self.positions.entry(delta).or_insert_with(|| {
            self.different.push(delta);
            self.different.len() - 1
        })
    }

    /// Adds `count` new random delays of m bits, or all that are left.
    fn add_new(&mut self, count: usize, m: usize, rng: &mut Rng) {
        let count = (count as u64).min((1 << m) - self.different.len() as u64) as usize;
        let wanted = self.different.len() + count;
        while self.different.len() < wanted {
            self.position(rng.random_range(0..1u64 << m));
        }
    }
}
