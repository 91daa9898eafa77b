//! Bin detection: is a bin empty (zero-ton), does it hold one coefficient (single-ton, and which), or several?

use super::bins::{energy, fit, misfit};
use super::code;
use super::design::{Group, Roles};
use super::settings::Settings;
use super::value::Value;

/// ML tries 2^{n−b} candidates per bin, up to this many bits.
pub const MOST_SEARCHED: usize = 22;

/// What a bin was found to hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Content<T> {
    /// Nothing but noise.
    Zero,
    /// One coefficient: what is unknown of its index, r, and its value.
    Single {
        /// r = Qᵀk.
        rest: u64,
        /// The estimate of X\[k\].
        value: T,
    },
    /// Several, or one that noise hides.
    Multi,
}

/// Detects, with the memory it needs to do so.
pub struct Detector<'a, T> {
    settings: &'a Settings,
    /// σ, the noise on one value.
    sigma: f64,
    /// What counts as zero where values are exact.
    zero: f64,
    votes: Vec<i32>,
    soft: Vec<f64>,
    scratch: code::Scratch,
    search: Vec<T>,
}

impl<'a, T: Value> Detector<'a, T> {
    /// A detector for noise of standard deviation `sigma` on values of up to `largest`.
    pub fn new(settings: &'a Settings, sigma: f64, largest: f64) -> Self {
        Self {
            settings,
            sigma,
            zero: settings.tolerance * largest,
            votes: Vec::new(),
            soft: Vec::new(),
            scratch: code::Scratch::default(),
            search: Vec::new(),
        }
    }

    /// ν², the variance of the noise on a bin.
    pub fn variance(&self, group: &Group) -> f64 {
        self.sigma * self.sigma / group.bins() as f64
    }

    /// The smallest |X| that is told from noise in every group: the bin must not pass for empty, and the estimate must
    /// stand out from its own error.
    pub fn limit(&self, group: &Group) -> f64 {
        if self.settings.algorithm.is_noiseless() {
            return self.zero;
        }
        let p = group.delays.len() as f64;
        self.variance(group).sqrt() * self.settings.gamma.sqrt().max(3.0 / p.sqrt())
    }

    /// Whether a bin holds nothing but noise.
    pub fn is_empty(&self, group: &Group, u: &[T]) -> bool {
        if self.settings.algorithm.is_noiseless() {
            u.iter().all(|u| u.norm_squared() <= self.zero * self.zero)
        } else {
            energy(u) <= (1.0 + self.settings.gamma) * self.variance(group)
        }
    }

    /// Whether a bin clearly holds more than noise. Asked of every bin at the end, with a margin for chance: the energy
    /// per delay of P values of noise strays from ν² by ν² √(2/P).
    pub fn is_unresolved(&self, group: &Group, u: &[T]) -> bool {
        if self.settings.algorithm.is_noiseless() {
            return !self.is_empty(group, u);
        }
        let margin = self.settings.gamma.max(5.0 * (2.0 / u.len() as f64).sqrt());
        energy(u) > (1.0 + margin) * self.variance(group)
    }

    /// What counts as zero where values are exact.
    pub fn zero(&self) -> f64 {
        self.zero
    }

    /// What the bin with the observation `u` (P values) holds.
    pub fn content(&mut self, group: &Group, u: &[T]) -> Content<T> {
        if self.is_empty(group, u) {
            return Content::Zero;
        }
        match &group.roles {
            Roles::Signs => self.by_signs(u),
            Roles::Majority { base, modulated } => {
                let rest = self.by_majority(group.unknown(), base, modulated, u);
                self.accept(group, u, [rest])
            }
            Roles::Coded { code, carriers } => {
                let direction = u[0].direction();
                self.soft.clear();
                self.soft.extend(carriers.iter().map(|&p| u[p].dot(direction)));
                // The sign of X itself is unknown: decode for both.
                let positive = code.decode(&self.soft, &mut self.scratch);
                self.soft.iter_mut().for_each(|s| *s = -*s);
                let negative = code.decode(&self.soft, &mut self.scratch);
                self.accept(group, u, [positive, negative])
            }
            Roles::Search => {
                let rest = self.by_search(group, u);
                self.accept(group, u, [rest])
            }
        }
    }

    /// Without noise: a lone coefficient shows the same magnitude through every delay, and the sign relative to delay 0
    /// tells ⟨qᵢ, k⟩.
    fn by_signs(&self, u: &[T]) -> Content<T> {
        let first = u[0];
        let mut rest = 0;
        for (i, &u) in u[1..].iter().enumerate() {
            let negative = u.dot(first) < 0.0;
            if (u - first.signed(negative)).norm_squared() > self.zero * self.zero {
                return Content::Multi;
            }
            rest |= u64::from(negative) << i;
        }
        Content::Single { rest, value: self.in_alphabet(first) }
    }

    /// Bit i is what most pairs of a random delay and its modulation say: sgn U_p ⊕ sgn U_{p,i}.
    fn by_majority(&mut self, unknown: usize, base: &[usize], modulated: &[usize], u: &[T]) -> u64 {
        self.votes.clear();
        self.votes.resize(unknown, 0);
        for (p, &at) in base.iter().enumerate() {
            let reference = u[at];
            for (vote, &at) in self.votes.iter_mut().zip(&modulated[p * unknown..]) {
                *vote += if u[at].dot(reference) < 0.0 { 1 } else { -1 };
            }
        }
        let mut rest = 0;
        for (i, &vote) in self.votes.iter().enumerate() {
            // A tie is decided by the products themselves.
            let one = match vote {
                0 => {
                    base.iter().enumerate().map(|(p, &at)| u[modulated[p * unknown + i]].dot(u[at])).sum::<f64>() < 0.0
                }
                vote => vote > 0,
            };
            rest |= u64::from(one) << i;
        }
        rest
    }

    /// The r with the largest |s_rᵀ U|: the transform of U scattered over the delays' coordinates.
    fn by_search(&mut self, group: &Group, u: &[T]) -> u64 {
        self.search.clear();
        self.search.resize(1 << group.unknown(), T::default());
        for (&u, &delta) in u.iter().zip(&group.delays) {
            self.search[delta as usize] = u;
        }
        T::transform(&mut self.search);
        let mut best = (0, -1.0);
        for (r, correlation) in self.search.iter().enumerate() {
            let size = correlation.norm_squared();
            if size > best.1 {
                best = (r as u64, size);
            }
        }
        best.0
    }

    /// The candidate that leaves the least residual, if that is as small as noise and the coefficient is not.
    fn accept<const N: usize>(&self, group: &Group, u: &[T], candidates: [u64; N]) -> Content<T> {
        let delays = &group.delays;
        let tried = candidates.map(|rest| {
            let value = self.in_alphabet(fit(u, delays, rest));
            (misfit(u, delays, rest, value), rest, value)
        });
        let &(misfit, rest, value) = tried.iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("at least one candidate");
        let variance = self.variance(group);
        let fits = misfit <= (1.0 + self.settings.gamma) * variance;
        // Without this, small γ would make coefficients of noise.
        let stands_out = value.norm_squared() * u.len() as f64 > 9.0 * variance;
        if fits && stands_out { Content::Single { rest, value } } else { Content::Multi }
    }

    fn in_alphabet(&self, value: T) -> T {
        match self.settings.amplitude {
            // ±ρ for reals, ρ in the direction of complex values.
            Some(rho) => value.scaled(rho / value.modulus()),
            None => value,
        }
    }
}
