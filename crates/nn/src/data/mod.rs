//! Small data sets as tensors: digits, a text by characters, and point clouds from generators.

mod characters;
mod digits;
mod points;

pub use characters::Characters;
pub use digits::{Digits, digits};
pub use points::{gaussian_mixture, ring_of_gaussians, swiss_roll, two_moons};
