//! What a generator makes, looked at.

use super::generator::Generator;
use super::losses::adaptability;
use super::student::Student;
use super::train::Problem;
use candle_core::{D, DType, Tensor};
use offprint_core::Result;
use offprint_core::random::Stream;
use offprint_nn::computation;

/// Generated images with what the networks say of them.
#[derive(Debug, Clone)]
pub struct Samples {
    /// As the network reads them (n, channels, height, width).
    pub images: Tensor,
    /// The classes they were asked for.
    pub labels: Vec<u32>,
    /// H′ of each, relative to the batch it was made in.
    pub adaptability: Vec<f64>,
    /// Whether the float network takes it for its class.
    pub recognised: Vec<bool>,
}

impl Samples {
    /// `count` images, made in batches of `batch` as in training.
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn draw(
        problem: &Problem<'_>,
        student: &Student,
        generator: &Generator,
        (count, batch): (usize, usize),
        stream: Stream,
    ) -> Result<Self> {
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        let (mut h, mut recognised) = (Vec::new(), Vec::new());
        for part in 0..count.div_ceil(batch) {
            let (z, classes) = generator.draw(batch, stream, part as u64)?;
            let made = generator.forward(&z, &classes).and_then(|x| problem.normalisation.restore(&x));
            let made = made.map_err(computation)?.detach();
            let (p, q) = (problem.teacher.logits(&made)?, student.logits(&made)?);
            let seen = || -> candle_core::Result<_> {
                let h = adaptability(&(&p - &q)?)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
                Ok((h, p.argmax(D::Minus1)?.to_vec1::<u32>()?, classes.to_vec1::<u32>()?))
            };
            let (of_batch, taken_for, classes) = seen().map_err(computation)?;
            h.extend(of_batch);
            recognised.extend(taken_for.iter().zip(&classes).map(|(taken, class)| taken == class));
            labels.extend(classes);
            images.push(made);
        }
        let images = Tensor::cat(&images, 0).and_then(|all| all.narrow(0, 0, count)).map_err(computation)?;
        labels.truncate(count);
        h.truncate(count);
        recognised.truncate(count);
        Ok(Self { images, labels, adaptability: h, recognised })
    }

    /// The share of images with H′ from `lower` to `upper`.
    pub fn share_within(&self, lower: f64, upper: f64) -> f64 {
        let within = self.adaptability.iter().filter(|h| (lower..=upper).contains(*h)).count();
        within as f64 / self.adaptability.len().max(1) as f64
    }

    /// The share of images of each class that the float network recognises; NaN for a class that was not asked for.
    pub fn recognised_by_class(&self, classes: usize) -> Vec<f64> {
        let (mut right, mut all) = (vec![0.0; classes], vec![0.0; classes]);
        for (&label, &recognised) in self.labels.iter().zip(&self.recognised) {
            all[label as usize] += 1.0;
            right[label as usize] += f64::from(u8::from(recognised));
        }
        right.iter().zip(all).map(|(right, all)| right / all).collect()
    }
}
