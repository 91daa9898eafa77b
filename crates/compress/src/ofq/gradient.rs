//! How well the straight-through gradient tells where the rounded loss goes.

use super::{Lessons, QuantisedViT};
use candle_core::{Device, Tensor, Var};
use offprint_core::random::Stream;
use offprint_core::{Error, Result};
use offprint_nn::computation;
use rand_distr::{Distribution, StandardNormal};

/// The queries' weights of a block, before any change.
struct Queries {
    var: Var,
    all: Vec<f32>,
    /// Elements of W_q: the first third.
    count: usize,
    /// Size of a change.
    scale: f32,
    gradient: Vec<f32>,
}

impl Queries {
    /// Sets W_q to itself plus `sign` times `change`.
    fn shift(&self, change: &[f32], sign: f32) -> Result<()> {
        let mut moved = self.all.clone();
        moved.iter_mut().zip(change).for_each(|(w, c)| *w += sign * c);
        Tensor::from_vec(moved, self.var.shape(), &Device::Cpu).and_then(|t| self.var.set(&t)).map_err(computation)
    }
}

impl QuantisedViT {
    /// The cosine between what the straight-through gradient of all W_q predicts and what the loss on the images
    /// `chosen` does along `directions` random changes of them: normal, with `amplitude` times the mean size of the
    /// block's weights as deviation. Rounded losses are flat between jumps, so that the amplitude must be a sizeable part
    /// of the distance between levels. 1 is a perfect gradient; 0 one that says nothing.
    ///
    /// # Errors
    /// No direction; a loss that is not finite.
    pub fn gradient_agreement(
        &self,
        lessons: &Lessons,
        chosen: &Tensor,
        directions: usize,
        amplitude: f64,
        stream: Stream,
    ) -> Result<f64> {
        if directions == 0 {
            return Err(Error::parameter("directions", 0, "at least 1"));
        }
        let loss = lessons.loss(self, chosen)?;
        let gradients = offprint_nn::ops::backward(&loss).map_err(computation)?;
        let mut blocks = Vec::new();
        for i in 0..self.config().depth {
            let name = format!("blocks.{i}.attn.qkv.weight");
            let var = self.network().params().get(&name).expect("every block has one");
            let flat = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(computation);
            let all = flat(var)?;
            let count = all.len() / 3;
            let mean = all[..count].iter().map(|w| w.abs()).sum::<f32>() / count.max(1) as f32;
            let gradient = match gradients.get(var) {
                Some(gradient) => flat(gradient)?,
                None => vec![0.0; all.len()],
            };
            blocks.push(Queries { var: var.clone(), count, scale: amplitude as f32 * mean, gradient, all });
        }
        let (mut product, mut predicted_square, mut found_square) = (0.0, 0.0, 0.0);
        for direction in 0..directions as u64 {
            let mut rng = stream.rng(direction);
            let changes: Vec<Vec<f32>> = blocks
                .iter()
                .map(|b| {
                    (0..b.count).map(|_| b.scale * Distribution::<f32>::sample(&StandardNormal, &mut rng)).collect()
                })
                .collect();
            let at = |sign: f32| -> Result<f64> {
                blocks.iter().zip(&changes).try_for_each(|(block, change)| block.shift(change, sign))?;
                let loss = lessons.loss(self, chosen);
                blocks.iter().try_for_each(|block| block.shift(&[], 0.0))?;
                loss?.to_scalar::<f32>().map(f64::from).map_err(computation)
            };
            let found = at(1.0)? - at(-1.0)?;
            let along = |(block, change): (&Queries, &Vec<f32>)| -> f64 {
                block.gradient.iter().zip(change).map(|(g, c)| f64::from(g * c)).sum()
            };
            let predicted = 2.0 * blocks.iter().zip(&changes).map(along).sum::<f64>();
            product += found * predicted;
            predicted_square += predicted * predicted;
            found_square += found * found;
        }
        let cosine = product / (predicted_square * found_square).sqrt();
        if cosine.is_nan() {
            return Err(Error::Numerical("the loss does not change along any direction".into()));
        }
        Ok(cosine)
    }
}
