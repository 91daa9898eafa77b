#![doc = include_str!("README.md")]

mod bench;
pub mod control;
mod coupling;
mod density;
mod exact;
pub mod examples;
mod fields;
pub mod fokker_planck;
mod interpolant;
mod joint;
mod learned;
pub mod line;
pub mod objective;
mod one_sided;
mod run;
mod sde;
mod source;
mod study;
mod view;

pub use coupling::{Coupling, Pairing, Pairs};
pub use density::{Estimated, log_density_of_diffusion, log_density_of_flow};
pub use exact::ExactFields;
pub use fields::{Fields, Flow, Rippled};
pub use interpolant::{Interpolant, PATHS};
pub use joint::Joint;
pub use learned::{LearnedFields, Recipe, Shape};
pub use one_sided::{AsDiffusion, Denoised, NetworkFields};
pub use run::{CouplingName, EpsilonShape, Example, GammaName, IntegratorName, InterpolantsParams, PathName, Second};
pub use sde::{Diffusion, Epsilon, Generated, Integrator, Keep, flow};

/// Stochastic interpolants.
pub struct Interpolants;
