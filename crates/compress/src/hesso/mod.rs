//! HESSO (Chen et al. 2024): train a network and remove structures from it in the same run.

mod base;
mod choose;
mod cric;
pub mod graph;
mod groups;
mod hspg;
mod net;
mod optimizer;
mod saliency;
mod space;
mod subnet;
mod train;

pub use base::Base;
pub use choose::{Choice, quotas, target};
pub use cric::{Cric, CricSettings};
pub use groups::{Groups, Snapshot, Status};
pub use hspg::{Hspg, HspgSettings};
pub use net::{GRAPH, Net};
pub use optimizer::{Hesso, Pace, Ranking, Settings, prune_now};
pub use saliency::{Criteria, Criterion, Moments, moments};
pub use space::{Component, Fixed, Group, Inside, Kind, Place, Slice, Space, Stretch};
pub use subnet::compact;
pub use train::{Quality, Training, judge};
