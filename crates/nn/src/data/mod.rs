//! Data as tensors: digits, a text by characters, point clouds from generators, and what users bring.

mod characters;
mod cifar10;
mod digits;
mod labelled;
mod points;
mod sequences;

pub use characters::Characters;
pub use cifar10::{Cifar10, cifar10};
pub use digits::{Digits, digits};
pub use labelled::{labelled, unlabelled};
pub use points::{gaussian_mixture, ring_of_gaussians, swiss_roll, two_moons};
pub use sequences::{Sequence, read_sequences, sequence_batch};
