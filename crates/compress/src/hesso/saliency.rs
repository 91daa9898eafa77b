//! How much each group matters, in several ways at once.

use super::space::Group;
use offprint_nn::params::Real;
use rayon::prelude::*;
use std::ops::Range;

/// What the criteria need to know of a group's parameters p and of the direction v in which the optimiser moves them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moments {
    /// pᵀp
    pub magnitude: f64,
    /// vᵀv
    pub direction: f64,
    /// pᵀv
    pub along: f64,
    /// Number of parameters.
    pub size: usize,
}

/// The moments of every group, from the elements of all tensors; `p[i]` and `v[i]` belong to tensor i. One sweep over the
/// groups' parameters, in sums of fixed order.
pub fn moments<T: Real>(groups: &[Group], p: &[Vec<T>], v: &[Vec<T>]) -> Vec<Moments> {
    let of = |group: &Group| {
        group.stretches.iter().fold(Moments { size: group.size(), ..Moments::default() }, |mut sum, stretch| {
            let Range { start, end } = stretch.elements.clone();
            let [pp, vv, pv] = products(&p[stretch.tensor][start..end], &v[stretch.tensor][start..end]);
            sum.magnitude += pp;
            sum.direction += vv;
            sum.along += pv;
            sum
        })
    };
    groups.par_iter().with_min_len(16).map(of).collect()
}

/// Partial sums side by side, so that additions do not wait for each other.
const LANES: usize = 8;

/// pᵀp, vᵀv and pᵀv in f64.
fn products<T: Real>(p: &[T], v: &[T]) -> [f64; 3] {
    let mut sums = [[0.0; LANES]; 3];
    let mut add = |lane: usize, p: T, v: T| {
        let (p, v) = (p.to_f64(), v.to_f64());
        sums[0][lane] += p * p;
        sums[1][lane] += v * v;
        sums[2][lane] += p * v;
    };
    let (whole, rest) = p.as_chunks::<LANES>();
    let (whole_v, rest_v) = v.as_chunks::<LANES>();
    for (p, v) in whole.iter().zip(whole_v) {
        (0..LANES).for_each(|lane| add(lane, p[lane], v[lane]));
    }
    rest.iter().zip(rest_v).for_each(|(&p, &v)| add(0, p, v));
    sums.map(|lanes| lanes.iter().sum())
}

/// One way to tell how much a group matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Criterion {
    /// ‖p‖
    Magnitude,
    /// ‖p‖ / number of parameters
    AverageMagnitude,
    /// 1 + cos(p, v): that training is already shrinking the group counts for it, as in the authors' code.
    Cosine,
    /// |pᵀv|: the first-order change of the loss when the group goes.
    TaylorFirst,
    /// ½ (pᵀv)²
    TaylorSecond,
}

impl Criterion {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Magnitude, Self::AverageMagnitude, Self::Cosine, Self::TaylorFirst, Self::TaylorSecond];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Magnitude => "magnitude",
            Self::AverageMagnitude => "average magnitude",
            Self::Cosine => "cosine similarity",
            Self::TaylorFirst => "Taylor, first order",
            Self::TaylorSecond => "Taylor, second order",
        }
    }

    /// Its value for one group.
    pub fn of(self, m: &Moments) -> f64 {
        let (p, v) = (m.magnitude.sqrt(), m.direction.sqrt());
        match self {
            Self::Magnitude => p,
            Self::AverageMagnitude => p / (m.size as f64 + 1e-6),
            Self::Cosine => m.along / ((p + 1e-8) * (v + 1e-8)) + 1.0,
            Self::TaylorFirst => m.along.abs(),
            Self::TaylorSecond => 0.5 * m.along * m.along,
        }
    }
}

/// Weights of the criteria, in the order of [`Criterion::ALL`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Criteria(pub [f64; 5]);

impl Criteria {
    /// The authors' mixture: 0.2 of each.
    pub const MIXTURE: Self = Self([0.2; 5]);

    /// One criterion alone.
    pub fn only(criterion: Criterion) -> Self {
        Self(Criterion::ALL.map(|other| if other == criterion { 1.0 } else { 0.0 }))
    }

    /// The saliency of every group, low where it is redundant: each criterion divided by its root sum of squares over all
    /// groups of all components, then added up with the weights.
    pub fn saliency(&self, moments: &[Moments]) -> Vec<f64> {
        let mut total = vec![0.0; moments.len()];
        for (criterion, weight) in Criterion::ALL.into_iter().zip(self.0).filter(|(_, weight)| *weight != 0.0) {
            let scores: Vec<f64> = moments.iter().map(|m| criterion.of(m)).collect();
            let norm = (scores.iter().map(|s| s * s).sum::<f64>() + 1e-8).sqrt() + 1e-8;
            total.iter_mut().zip(scores).for_each(|(total, score)| *total += weight * score / norm);
        }
        total
    }
}
