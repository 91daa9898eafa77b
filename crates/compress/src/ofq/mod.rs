//! Vision transformers of two to four bits, without oscillating weights: OFQ (Liu, Liu and Cheng, ICML 2023,
//! arXiv:2302.02210).
//!
//! [`QuantisedViT`] is a transformer whose weights and activations are rounded in its forward pass, and
//! [`QuantisedViT::train`] trains it so. Three things are to stop weights that jump between two levels: scales that follow
//! the weights' statistics ([`Rule::StatsQ`]), attention from the quantised product W_qᵀ W_k ([`Form::Qkr`]), and late
//! training of those weights only that lie at a boundary ([`Calm::Cga`]). Beside them stand LSQ ([`Rule::Lsq`]), plain
//! attention, iterative freezing and dampening. A [`Tracker`] counts flips and oscillations, and what caused them.

mod activation;
mod attention;
mod bench;
mod calm;
mod checkpoint;
mod entrant;
mod gradient;
mod levels;
mod oscillation;
mod packed;
mod reading;
mod report;
mod run;
mod site;
mod study;
mod training;
mod vit;
mod weight;

pub use activation::{Sharing, Shifted};
pub use attention::Form;
pub use calm::Calm;
pub use checkpoint::is_quantised;
pub use entrant::OfqEntrant;
pub use levels::{LEAST_SCALE, Levels, stats_scales, to_levels};
pub use oscillation::{Counts, Memory, OSCILLATING, Tracker};
pub use reading::Reading;
pub use run::{Calming, OfqParams};
pub use training::{History, Lessons, Training};
pub use vit::{EDGE_BITS, Precision, QuantisedViT};
pub use weight::{Rule, WeightQuantiser};

/// The paper, for the catalogue.
pub struct Ofq;
