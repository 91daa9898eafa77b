//! Making models small: quantisers and pruners behind one interface, and the papers on them.
//!
//! A [`Layer`] is a layer's weights as a matrix (out, in). A [`Target`](methods::Target) says what it is to become: the
//! levels of a [`Scheme`](quantiser::Scheme), a [`Sparsity`](methods::Sparsity), or both. A
//! [`WeightMethod`](methods::WeightMethod) gets it there, if need be with what [`calibrate`](calibration::calibrate) saw of
//! the layer's inputs, and gives a [`Packed`] layer, whose [`dequant`](Packed::dequant) is the single truth about its
//! weights. [`compress`](fn@compress) does so for a whole network, layer by layer. [`examples`] holds trained models to
//! begin with, [`Subject`] is a network of the user's with samples, [`model`] folds batch norms and evaluates.
//! [`allocate`] gives each layer its bits, [`export`](mod@export) writes directories that other programs read and reads them back,
//! [`contest`] lists who enters the comparisons.
//!
//! Methods that train, and quantisers of activations, go through
//! [`nn::layers::substitute`](offprint_nn::layers::substitute): a network computes with other operands than its own while
//! gradients flow through what was done to them.

pub mod adadfq;
pub mod adaquant;
pub mod allocate;
pub mod bits;
pub mod calibration;
mod compare;
mod compression;
pub mod contest;
pub mod examples;
pub mod export;
pub mod gqsa;
pub mod hawq;
pub mod hesso;
mod layer;
pub mod methods;
pub mod model;
pub mod ofq;
mod packed;
pub mod quantiser;
mod subject;

pub use compression::{Compressed, LayerRecord, Order, Work, compress, usual_targets};
pub use layer::{Layer, matrix, tensor};
pub use packed::{Mask, Packed, Pattern, Values};
pub use subject::{Samples, Subject, open_network};

use offprint_core::{Comparison, Paper};

/// The papers of this field.
pub fn papers() -> Vec<Paper> {
    vec![
        offprint_core::paper!("hawq", hawq::Hawq),
        offprint_core::paper!("adaquant", adaquant::AdaQuant),
        offprint_core::paper!("adadfq", adadfq::AdaDfq),
        offprint_core::paper!("ofq", ofq::Ofq),
        offprint_core::paper!("gqsa", gqsa::Gqsa),
        offprint_core::paper!("hesso", hesso::HessoPaper),
    ]
}

/// The comparisons of this field.
pub fn comparisons() -> Vec<Comparison> {
    vec![compare::QUANTIZERS, compare::PRUNERS]
}
