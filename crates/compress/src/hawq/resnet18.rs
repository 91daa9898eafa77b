//! The ResNet-18 instance of HAWQ-V3 with its published sensitivities: which of the 19 middle layers get 4 bits, which 8.
//!
//! Numbers are those of the notebook beside HAWQ-V3 (github.com/Zhen-Dong/HAWQ, MIT).

use super::problem::rank;
use crate::allocate::Candidate;

/// trace/n.
pub const MEAN_TRACES: [f64; 19] = [
    0.06857826, 0.03162379, 0.03298575, 0.01205663, 0.02222431, 0.00596336, 0.06931772, 0.00807129, 0.00372905,
    0.00530698, 0.00209011, 0.00737569, 0.00210454, 0.00151197, 0.00158041, 0.00078146, 0.00451841, 0.00098745,
    0.00072944,
];

/// ‖W − Q(W)‖² at 8 bits.
pub const ERRORS_8: [f64; 19] = [
    0.0235, 0.0125, 0.0102, 0.0082, 0.0145, 0.0344, 0.0023, 0.0287, 0.0148, 0.0333, 0.0682, 0.0027, 0.0448, 0.0336,
    0.0576, 0.1130, 0.0102, 0.0947, 0.0532,
];

/// ‖W − Q(W)‖² at 4 bits.
pub const ERRORS_4: [f64; 19] = [
    6.7430, 3.9691, 3.3281, 2.6796, 4.7277, 10.5966, 0.6827, 9.0942, 4.8857, 10.7599, 21.7546, 0.8603, 14.5324,
    10.9651, 18.7706, 36.4044, 3.1572, 29.6994, 17.4016,
];

/// Numbers of weights.
pub const WEIGHTS: [u64; 19] = [
    36864, 36864, 36864, 36864, 73728, 147456, 8192, 147456, 147456, 294912, 589824, 32768, 589824, 589824, 1179648,
    2359296, 131072, 2359296, 2359296,
];

/// Multiplications for one image.
pub const MULTIPLICATIONS: [u64; 19] = {
    let (full, half, small) = (115_605_504, 57_802_752, 6_422_528);
    [
        full, full, full, full, half, full, small, full, full, half, full, small, full, full, half, full, small, full,
        full,
    ]
};

/// Layers that must have the same bits: the first of a stage and the projection beside it.
const TIED: [(usize, usize); 3] = [(4, 6), (9, 11), (14, 16)];

/// The instance as a knapsack.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Layers that are chosen together.
    pub groups: Vec<Vec<usize>>,
    /// 8 bits, 4 bits.
    pub options: Vec<Vec<Candidate>>,
    /// Budget in bits.
    pub budget: u64,
}

/// Bits to choose from.
pub const BITS: [u32; 2] = [8, 4];

/// With cost (trace/n) ‖W − Q(W)‖² and a size of at most size₄ + `limit` (size₈ − size₄).
pub fn instance(limit: f64) -> Instance {
    let second = |layer: usize| TIED.iter().any(|&(_, second)| second == layer);
    let group = |layer: usize| -> Vec<usize> {
        let with = TIED.iter().find(|&&(first, _)| first == layer).map(|&(_, second)| second);
        std::iter::once(layer).chain(with).collect()
    };
    let groups: Vec<Vec<usize>> = (0..19).filter(|&layer| !second(layer)).map(group).collect();
    let option = |group: &[usize], bits: u32, errors: &[f64; 19]| Candidate {
        cost: group.iter().map(|&layer| MEAN_TRACES[layer] * errors[layer]).sum(),
        size: group.iter().map(|&layer| WEIGHTS[layer] * u64::from(bits)).sum(),
    };
    let options = groups.iter().map(|group| vec![option(group, 8, &ERRORS_8), option(group, 4, &ERRORS_4)]).collect();
    let least: u64 = WEIGHTS.iter().sum::<u64>() * 4;
    Instance { groups, options, budget: least + (limit.clamp(0.0, 1.0) * least as f64) as u64 }
}

impl Instance {
    /// Bits of each of the 19 layers.
    pub fn bits(&self, choices: &[usize]) -> Vec<u32> {
        let mut bits = vec![0; 19];
        for (group, &choice) in self.groups.iter().zip(choices) {
            group.iter().for_each(|&layer| bits[layer] = BITS[choice]);
        }
        bits
    }
}

/// Pairs of layers of which the first has the larger trace/n and fewer `bits`.
pub fn violations(bits: &[u32]) -> Vec<(usize, usize)> {
    let order = rank(&MEAN_TRACES);
    let pairs = order.iter().enumerate().flat_map(|(at, &a)| order[at + 1..].iter().map(move |&b| (a, b)));
    pairs.filter(|&(a, b)| bits[a] < bits[b]).collect()
}
