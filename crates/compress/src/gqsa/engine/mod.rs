//! Products of compressed matrices with one vector, the work of a decoder that makes one token after the other.
//!
//! A [`Gemv`] is a matrix in one of the formats of [`Format`]; an [`Input`] is the vector, prepared once for all matrices
//! that read it. A product reads every byte of the matrix once, so its time is at least bytes over bandwidth
//! ([`read_bandwidth`]); what the instructions cost comes on top where they take longer than the memory.
//!
//! | format | bits a weight |
//! | --- | --- |
//! | `f32`, `f16` | 32, 16 |
//! | 4 bits, groups of 16, dense | 5.5 |
//! | 4 bits, groups of 16, half of the groups dropped | 3.25 |
//! | 4 bits, two of four kept | 3.75 |
//! | 2 bits, groups of 16 | 3.5 |
//! | 2 bits, groups of 64 | 2.375 |

#[cfg(target_arch = "x86_64")]
mod avx2;
mod bandwidth;
mod format;
mod group;
mod input;
mod instructions;
mod matrix;
mod plain;
mod portable;
mod record;
pub mod timing;
mod two_four;

pub use bandwidth::read_bandwidth;
pub use format::{Format, dense2, dense4, packed_sparse, sparse, two_four, wide2};
pub use group::{Affine, GROUP, Group, largest_code, stored_scale};
pub use input::{Input, Precision};
pub use instructions::Instructions;
pub use matrix::{Gemv, Records, Split};
pub use plain::{Element, Plain};
pub use record::{DenseQuad2, DenseQuad4, GROUPS, Record, SparseQuad, WideQuad2};
pub use two_four::TwoFourQuad;
