#![doc = include_str!("README.md")]

mod base;
mod bench;
mod choose;
mod cric;
mod data;
pub mod graph;
mod groups;
mod hspg;
mod measure;
mod net;
mod optimizer;
mod run;
mod saliency;
mod space;
mod study;
mod subnet;
mod train;
mod ways;

pub use base::Base;
pub use choose::{Choice, quotas, target};
pub use cric::{Cric, CricSettings};
pub use data::{Samples, Start, digits_mlp, digits_samples};
pub use groups::{Groups, Snapshot, Status};
pub use hspg::{Hspg, HspgSettings};
pub use measure::{difference, latencies};
pub use net::{GRAPH, Net};
pub use optimizer::{Hesso, Pace, Ranking, Settings, prune_now};
pub use run::{HessoPaper, HessoParams};
pub use saliency::{Criteria, Criterion, Moments, moments};
pub use space::{Component, Fixed, Group, Inside, Kind, Place, Slice, Space, Stretch};
pub use subnet::compact;
pub use train::{Quality, Training, judge};
pub use ways::{Outcome, Pruning, Way, kept};
