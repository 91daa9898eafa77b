//! Functions on bits whose sparse spectrum is known: synthetic ones, decision trees, graph cuts.

use super::gf2::sign;
use super::query::Query;
use super::settings::MOST_BITS;
use offprint_core::random::Rng;
use offprint_core::{Error, Result};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};

/// A real function on n bits with a known spectrum.
pub trait Function: Sync {
    /// n.
    fn bits(&self) -> u32;
    /// Its value; bit i of `m` is the i-th argument.
    fn value(&self, m: u64) -> f64;
    /// Its non-zero coefficients (k, X\[k\]) by ascending k.
    fn spectrum(&self) -> Vec<(u64, f64)>;
}

/// A function seen through Gaussian noise that belongs to the index: asking twice gives the same value.
#[derive(Debug)]
pub struct Noisy<'a, F: ?Sized> {
    /// The function.
    pub function: &'a F,
    /// σ.
    pub sigma: f64,
    /// Tells one realisation of the noise from another.
    pub seed: u64,
}

impl<F: Function + ?Sized> Noisy<'_, F> {
    /// The value at m.
    pub fn value(&self, m: u64) -> f64 {
        let noise = if self.sigma > 0.0 { self.sigma * normal(self.seed, m) } else { 0.0 };
        self.function.value(m) + noise
    }

    /// All 2ⁿ values.
    pub fn table(&self) -> Vec<f64> {
        (0..1u64 << self.function.bits()).into_par_iter().map(|m| self.value(m)).collect()
    }
}

impl<F: Function + ?Sized> Query<f64> for Noisy<'_, F> {
    fn query(&mut self, indices: &[u64], values: &mut [f64]) -> Result<()> {
        let this = &*self;
        indices.par_iter().zip(values).with_min_len(256).for_each(|(&m, value)| *value = this.value(m));
        Ok(())
    }
}

/// A standard normal number that is a function of (seed, index), by Box and Muller from two mixed words.
fn normal(seed: u64, index: u64) -> f64 {
    let first = mix(seed ^ mix(index));
    let second = mix(first);
    // In (0, 1] and [0, 1).
    let unit = |word: u64| (word >> 11) as f64 * 2f64.powi(-53);
    (-2.0 * (1.0 - unit(first)).ln()).sqrt() * (std::f64::consts::TAU * unit(second)).cos()
}

/// The output function of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// A function given by its coefficients.
#[derive(Debug, Clone)]
pub struct SparseFunction {
    bits: u32,
    spectrum: Vec<(u64, f64)>,
}

impl SparseFunction {
    /// The function on `bits` bits with these coefficients; those of the same index add up.
    pub fn new(bits: u32, coefficients: impl IntoIterator<Item = (u64, f64)>) -> Self {
        let mut sum = BTreeMap::new();
        for (k, x) in coefficients {
            assert!(bits >= 64 || k >> bits == 0, "index {k} has more than {bits} bits");
            *sum.entry(k).or_insert(0.0) += x;
        }
        Self { bits, spectrum: sum.into_iter().filter(|c| c.1 != 0.0).collect() }
    }

    /// K coefficients ±`amplitude` at random indices.
    pub fn random_signs(bits: u32, sparsity: usize, amplitude: f64, rng: &mut Rng) -> Self {
        let support = random_support(bits, sparsity, rng);
        Self::new(bits, support.into_iter().map(|k| (k, if rng.random() { amplitude } else { -amplitude })))
    }

    /// K standard normal coefficients at random indices.
    pub fn random_normal(bits: u32, sparsity: usize, rng: &mut Rng) -> Self {
        let support = random_support(bits, sparsity, rng);
        Self::new(bits, support.into_iter().map(|k| (k, StandardNormal.sample(rng))))
    }
}

/// `count` different random indices, in the order drawn.
fn random_support(bits: u32, count: usize, rng: &mut Rng) -> Vec<u64> {
    assert!(count as u64 <= 1 << bits, "{count} different indices of {bits} bits");
    let mut seen = HashSet::new();
    let mut support = Vec::with_capacity(count);
    while support.len() < count {
        let k = rng.random_range(0..1u64 << bits);
        if seen.insert(k) {
            support.push(k);
        }
    }
    support
}

impl Function for SparseFunction {
    fn bits(&self) -> u32 {
        self.bits
    }

    fn value(&self, m: u64) -> f64 {
        self.spectrum.iter().map(|&(k, x)| x * sign(m, k)).sum()
    }

    fn spectrum(&self) -> Vec<(u64, f64)> {
        self.spectrum.clone()
    }
}

/// A sum of binary decision trees on binary features.
#[derive(Debug, Clone)]
pub struct Trees {
    bits: u32,
    trees: Vec<Tree>,
}

/// A tree in the words of scikit-learn's `tree_`: arrays over nodes, of which 0 is the root.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tree {
    /// The feature that is looked at; negative for leaves.
    feature: Vec<i64>,
    /// Where it is 0.
    children_left: Vec<i64>,
    /// Where it is 1.
    children_right: Vec<i64>,
    /// The value of each node; only those of leaves count.
    value: Vec<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TreesFile {
    bits: u32,
    trees: Vec<Tree>,
}

impl Trees {
    /// Reads `{"bits": n, "trees": [{"feature": […], "children_left": […], "children_right": […], "value": […]}, …]}`.
    ///
    /// # Errors
    /// Another shape, a feature beyond the bits, children that make no tree, a value that is not finite.
    pub fn parse(json: &str, name: &str) -> Result<Self> {
        let bad = |problem: String| Error::input(name, problem);
        let file: TreesFile =
            serde_json::from_str(json).map_err(|e| bad(format!("is no file of decision trees: {e}")))?;
        if file.bits == 0 || file.bits > MOST_BITS {
            return Err(bad(format!("says {} bits; between 1 and {MOST_BITS} are possible", file.bits)));
        }
        if file.trees.is_empty() {
            return Err(bad("has no trees".into()));
        }
        for (t, tree) in file.trees.iter().enumerate() {
            tree.check(file.bits).map_err(|problem| bad(format!("tree {t}: {problem}")))?;
        }
        Ok(Self { bits: file.bits, trees: file.trees })
    }
}

impl Tree {
    fn check(&self, bits: u32) -> Result<(), String> {
        let nodes = self.feature.len();
        if nodes == 0 || [self.children_left.len(), self.children_right.len(), self.value.len()] != [nodes; 3] {
            return Err("feature, children_left, children_right and value must be equally long and not empty".into());
        }
        let mut parents = vec![0; nodes];
        for node in 0..nodes {
            if self.feature[node] < 0 {
                if !self.value[node].is_finite() {
                    return Err(format!("the value of leaf {node} is {}", self.value[node]));
                }
                continue;
            }
            if self.feature[node] >= i64::from(bits) {
                return Err(format!("node {node} looks at feature {}, but there are {bits}", self.feature[node]));
            }
            for child in [self.children_left[node], self.children_right[node]] {
                // Children after their parent rule out circles.
                if child <= node as i64 || child >= nodes as i64 {
                    return Err(format!("node {node} has the child {child}; children stand after their parents"));
                }
                parents[child as usize] += 1;
            }
        }
        match parents.iter().position(|&p| p > 1) {
            Some(node) => Err(format!("node {node} has two parents")),
            None => Ok(()),
        }
    }

    fn value(&self, m: u64) -> f64 {
        let mut node = 0;
        while self.feature[node] >= 0 {
            let children = if m >> self.feature[node] & 1 == 1 { &self.children_right } else { &self.children_left };
            node = children[node] as usize;
        }
        self.value[node]
    }

    /// Adds the spectrum: a leaf's indicator is the product of (1 ± χᵢ)/2 over the features on its path, + where the
    /// path goes left, χᵢ(m) = (−1)^{mᵢ}.
    fn add_spectrum(&self, node: usize, path: &[(u64, f64)], sum: &mut BTreeMap<u64, f64>) {
        let feature = self.feature[node];
        if feature < 0 {
            path.iter().for_each(|&(k, factor)| *sum.entry(k).or_insert(0.0) += factor * self.value[node]);
            return;
        }
        let chi = 1u64 << feature;
        for (child, sign) in [(self.children_left[node], 1.0), (self.children_right[node], -1.0)] {
            let mut longer = BTreeMap::new();
            for &(k, factor) in path.iter() {
                *longer.entry(k).or_insert(0.0) += 0.5 * factor;
                // χᵢ χᵢ = 1: a feature that stands twice on a path keeps or cancels the term.
                *longer.entry(k ^ chi).or_insert(0.0) += 0.5 * sign * factor;
            }
            self.add_spectrum(child as usize, &longer.into_iter().filter(|x| x.1 != 0.0).collect::<Vec<_>>(), sum);
        }
    }
}

impl Function for Trees {
    fn bits(&self) -> u32 {
        self.bits
    }

    fn value(&self, m: u64) -> f64 {
        self.trees.iter().map(|t| t.value(m)).sum()
    }

    fn spectrum(&self) -> Vec<(u64, f64)> {
        let mut sum = BTreeMap::new();
        self.trees.iter().for_each(|t| t.add_spectrum(0, &[(0, 1.0)], &mut sum));
        without_rounding(sum)
    }
}

/// The coefficients that are more than the rounding of sums that should vanish.
fn without_rounding(sum: BTreeMap<u64, f64>) -> Vec<(u64, f64)> {
    let largest = sum.values().fold(0.0f64, |l, x| l.max(x.abs()));
    sum.into_iter().filter(|x| x.1.abs() > 1e-13 * largest).collect()
}

/// How much of a weighted graph's edges a set of its nodes cuts.
#[derive(Debug, Clone)]
pub struct GraphCut {
    nodes: u32,
    edges: Vec<(u32, u32, f64)>,
}

impl GraphCut {
    /// The cut function of the graph with these edges (node, node, weight), nodes numbered from 0.
    ///
    /// # Errors
    /// No edge, an edge from a node to itself, more than 60 nodes, a weight that is not finite.
    pub fn new(edges: Vec<(u32, u32, f64)>, name: &str) -> Result<Self> {
        let bad = |problem: String| Error::input(name, problem);
        for (i, &(a, b, weight)) in edges.iter().enumerate() {
            if a == b {
                return Err(bad(format!("edge {i} joins node {a} with itself")));
            }
            if !weight.is_finite() {
                return Err(bad(format!("edge {i} has the weight {weight}")));
            }
        }
        let last = edges.iter().map(|e| e.0.max(e.1)).max().ok_or_else(|| bad("has no edges".into()))?;
        if last >= MOST_BITS {
            return Err(bad(format!("has a node {last}; nodes are numbered from 0, up to {}", MOST_BITS - 1)));
        }
        Ok(Self { nodes: last + 1, edges })
    }

    /// The wheel with `spokes` spokes: node 0 is the hub.
    pub fn wheel(spokes: u32) -> Self {
        let rim = (0..spokes).map(|i| (1 + i, 1 + (i + 1) % spokes, 1.0));
        Self { nodes: spokes + 1, edges: (1..=spokes).map(|i| (0, i, 1.0)).chain(rim).collect() }
    }
}

impl Function for GraphCut {
    fn bits(&self) -> u32 {
        self.nodes
    }

    fn value(&self, m: u64) -> f64 {
        self.edges.iter().filter(|&&(a, b, _)| (m >> a ^ m >> b) & 1 == 1).map(|e| e.2).sum()
    }

    /// An edge is cut where χₐ χ_b = −1: weight · (1 − χₐ χ_b)/2.
    fn spectrum(&self) -> Vec<(u64, f64)> {
        let mut sum = BTreeMap::new();
        for &(a, b, weight) in &self.edges {
            *sum.entry(0).or_insert(0.0) += weight / 2.0;
            *sum.entry(1 << a | 1 << b).or_insert(0.0) -= weight / 2.0;
        }
        without_rounding(sum)
    }
}
