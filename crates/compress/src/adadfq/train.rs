//! The loop: a generator's step, then a quantised network's.

use super::distilled::distilled;
use super::generator::{Generator, ImageShape};
use super::losses::{adaptability, disagreement, distillation};
use super::normalisation::Normalisation;
use super::recipe::{GeneratorGoal, Images, Lesson, Recipe};
use super::settings::Settings;
use super::student::Student;
use super::teacher::Teacher;
use candle_core::{D, DType, Device, Tensor};
use offprint_core::random::Streams;
use offprint_core::{Error, Result};
use offprint_nn::ops::{Reduction, backward, cross_entropy};
use offprint_nn::optim::{Adam, AdamSettings, Optimizer, Sgd, SgdSettings};
use offprint_nn::train::Epochs;
use offprint_nn::{Batch, computation};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};

/// A network to be quantised, and what its images look like.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// The float network.
    pub teacher: &'a Teacher,
    /// What its images look like.
    pub shape: ImageShape,
    /// How they are distributed.
    pub normalisation: &'a Normalisation,
    /// Real images (n, channels, height, width), which only [`Recipe::Real`] looks at.
    pub real: Option<&'a Tensor>,
}

/// What was seen in a step; what a recipe does not have is NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record {
    /// Number of the step, from 0.
    pub step: usize,
    /// Loss of the generator before it.
    pub generator: f64,
    /// Loss of the quantised network before it.
    pub student: f64,
    /// Mean H′ of the generated images.
    pub adaptability: f64,
    /// Share of generated images that the float network takes for the class they were asked for.
    pub recognised: f64,
}

/// A network quantised.
#[derive(Debug)]
pub struct Outcome {
    /// The quantised network.
    pub student: Student,
    /// The generator, if there was one.
    pub generator: Option<Generator>,
    /// Every step.
    pub history: Vec<Record>,
}

/// Quantises the network of `problem` by `recipe`. `each` is told after every step and may stop it.
///
/// Recipes without training end after the observed steps. The student is the last one, not the best on some test set.
///
/// # Errors
/// Settings as [`Settings::check`] refuses; classes that are not the network's; statistics or real images that the recipe
/// needs and the problem lacks; losses that are not finite; what `each` answers.
pub fn quantise(
    problem: &Problem<'_>,
    recipe: Recipe,
    settings: &Settings,
    streams: Streams,
    each: &mut dyn FnMut() -> Result<()>,
) -> Result<Outcome> {
    settings.check()?;
    let Problem { teacher, shape, .. } = *problem;
    if shape.classes != teacher.classes() || shape.classes < 2 {
        let allowed = format!("the {} classes of the network's last layer, at least 2", teacher.classes());
        return Err(Error::parameter("classes", shape.classes, allowed));
    }
    if teacher.norms() == 0 && recipe.needs_statistics(&settings.loss) {
        let problem = "has no batch norm behind a convolution, whose statistics tell what images look like; set the weight \
                       of the statistics to 0 to go without";
        return Err(Error::input("model", problem));
    }
    let mut trainer = Trainer::new(problem, recipe, settings, streams)?;
    for step in 0..trainer.steps() {
        trainer.step(step)?;
        each()?;
    }
    let generator = trainer.player.map(|(generator, _, _)| generator);
    Ok(Outcome { student: trainer.student, generator, history: trainer.history })
}

/// The generator that a training with `streams` begins with.
pub(super) fn first_generator(shape: ImageShape, settings: &Settings, streams: Streams) -> Result<Generator> {
    Generator::fresh(shape, settings.conditioning, streams.stream("generator's weights").rng(0).random())
}

/// The noise and the labels of a step of a training with `streams`.
pub(super) fn latents(
    generator: &Generator,
    settings: &Settings,
    streams: Streams,
    step: usize,
) -> Result<(Tensor, Tensor)> {
    generator.draw(settings.batch, streams.stream("latents"), step as u64)
}

/// Weight of the batch norm statistics in GDFQ's generator.
const GDFQ_STATISTICS: f64 = 0.1;

/// Everything that a step changes.
struct Trainer<'a> {
    problem: &'a Problem<'a>,
    recipe: Recipe,
    settings: &'a Settings,
    streams: Streams,
    student: Student,
    sgd: Sgd,
    /// The generator, and what it is trained on.
    player: Option<(Generator, Adam, GeneratorGoal)>,
    real: Option<Epochs>,
    history: Vec<Record>,
}

/// The images of a step as the network reads them, with their labels if they have any.
struct Material {
    images: Tensor,
    labels: Option<Tensor>,
}

impl<'a> Trainer<'a> {
    fn new(problem: &'a Problem<'a>, recipe: Recipe, settings: &'a Settings, streams: Streams) -> Result<Self> {
        let student = Student::new(problem.teacher.network(), settings.bits, settings.compounded)?;
        let momentum = SgdSettings {
            learning_rate: settings.student_rate,
            momentum: 0.9,
            nesterov: true,
            weight_decay: 1e-4,
            ..SgdSettings::default()
        };
        let sgd = Sgd::new(student.network().params().vars(), momentum).map_err(computation)?;
        let player = match recipe.images() {
            Images::Generated(goal) => {
                let generator = first_generator(problem.shape, settings, streams)?;
                let adam = AdamSettings {
                    learning_rate: settings.generator_rate,
                    betas: (0.5, 0.999),
                    ..AdamSettings::default()
                };
                let adam = Adam::new(generator.params().vars(), adam).map_err(computation)?;
                Some((generator, adam, goal))
            }
            Images::Noise | Images::Real | Images::Distilled => None,
        };
        let real = match (recipe.images(), problem.real) {
            (Images::Real, Some(images)) => {
                // Nobody looks at the labels of real images.
                let targets = images.dim(0).and_then(|n| Tensor::zeros(n, DType::U32, &Device::Cpu));
                let images = Batch { inputs: images.clone(), targets: targets.map_err(computation)? };
                Some(Epochs::new(images, settings.batch, streams.stream("order of images"))?)
            }
            (Images::Real, None) => {
                return Err(Error::parameter("data", "none", "given: this recipe looks at real images"));
            }
            _ => None,
        };
        Ok(Self { problem, recipe, settings, streams, student, sgd, player, real, history: Vec::new() })
    }

    /// Steps of this recipe.
    fn steps(&self) -> usize {
        if self.recipe.lesson() == Lesson::None { self.settings.observed } else { self.settings.steps }
    }

    fn step(&mut self, step: usize) -> Result<()> {
        let factor = self.settings.schedule().factor(step as u64, self.settings.steps as u64);
        let material = self.material(step)?;
        let images = material.images.detach();
        if step < self.settings.observed {
            self.student.observe(&images)?;
        }
        let mut record =
            Record { step, generator: f64::NAN, student: f64::NAN, adaptability: f64::NAN, recognised: f64::NAN };
        let teacher = match (&material.labels, self.player.is_some()) {
            (Some(labels), true) => self.generator_step(&material.images, labels, factor, &mut record)?,
            _ => self.problem.teacher.logits(&images)?.detach(),
        };
        if step >= self.settings.warmup && self.recipe.lesson() != Lesson::None {
            record.student = self.student_step(&images, &teacher, material.labels.as_ref(), factor)?;
        }
        let finite = |loss: f64| loss.is_nan() || loss.is_finite();
        if !finite(record.generator) || !finite(record.student) {
            let problem = format!("the loss of step {step} is not finite; lower the step lengths");
            return Err(Error::Numerical(problem));
        }
        self.history.push(record);
        Ok(())
    }

    fn material(&self, step: usize) -> Result<Material> {
        let Problem { shape, normalisation, teacher, .. } = *self.problem;
        let restore = |x: &Tensor| normalisation.restore(x).map_err(computation);
        if let Some((generator, _, _)) = &self.player {
            let (z, labels) = latents(generator, self.settings, self.streams, step)?;
            let images = generator.forward(&z, &labels).map_err(computation)?;
            return Ok(Material { images: restore(&images)?, labels: Some(labels) });
        }
        if let Some(real) = &self.real {
            return Ok(Material { images: real.at(step as u64)?.inputs, labels: None });
        }
        let mut rng = self.streams.stream("noise").rng(step as u64);
        let size = (self.settings.batch, shape.channels, shape.height, shape.width);
        let noise: Vec<f32> = (0..size.0 * size.1 * size.2 * size.3).map(|_| StandardNormal.sample(&mut rng)).collect();
        let noise = Tensor::from_vec(noise, size, &Device::Cpu).map_err(computation)?;
        let images =
            if self.recipe.images() == Images::Distilled { distilled(&noise, teacher, normalisation)? } else { noise };
        Ok(Material { images: restore(&images)?, labels: None })
    }

    /// Steps the generator; P's logits without gradient.
    fn generator_step(&mut self, images: &Tensor, labels: &Tensor, factor: f64, record: &mut Record) -> Result<Tensor> {
        let Some((_, adam, goal)) = &mut self.player else { return self.problem.teacher.logits(images) };
        let loss = self.settings.loss;
        let (teacher, distance) = self.problem.teacher.logits_and_statistics(images)?;
        let student = self.student.logits_frozen(images)?;
        let total = match goal {
            GeneratorGoal::Adaptable => {
                loss.game(&teacher, &student, labels).and_then(|game| game + distance.affine(loss.statistics, 0.0)?)
            }
            GeneratorGoal::Recognised => cross_entropy(&teacher, labels, 0.0, Reduction::Mean)
                .and_then(|class| class + distance.affine(GDFQ_STATISTICS, 0.0)?),
        };
        let total = total.map_err(computation)?;
        record.generator = number(&total)?;
        let (teacher, student) = (teacher.detach(), student.detach());
        let seen = || {
            let h = adaptability(&(&teacher - &student)?)?.mean_all()?;
            let right = teacher.argmax(D::Minus1)?.eq(labels)?.to_dtype(DType::F32)?.mean_all()?;
            Ok((h, right))
        };
        let (h, right) = seen().map_err(computation)?;
        (record.adaptability, record.recognised) = (number(&h)?, number(&right)?);
        adam.set_learning_rate(self.settings.generator_rate * factor);
        backward(&total).and_then(|gradients| adam.step(&gradients)).map_err(computation)?;
        Ok(teacher)
    }

    /// Steps the quantised network; its loss before.
    fn student_step(&mut self, images: &Tensor, teacher: &Tensor, labels: Option<&Tensor>, factor: f64) -> Result<f64> {
        let student = self.student.logits(images)?;
        let temperature = self.settings.temperature;
        let loss = match (self.recipe.lesson(), labels) {
            (Lesson::Agreement, _) => disagreement(teacher, &student, temperature),
            (Lesson::LabelsToo, Some(labels)) => distillation(teacher, &student, temperature)
                .and_then(|soft| soft + cross_entropy(&student, labels, 0.0, Reduction::Mean)?),
            _ => distillation(teacher, &student, temperature),
        };
        let loss = loss.map_err(computation)?;
        self.sgd.set_learning_rate(self.settings.student_rate * factor);
        backward(&loss).and_then(|gradients| self.sgd.step(&gradients)).map_err(computation)?;
        number(&loss)
    }
}

/// A scalar as a number.
fn number(scalar: &Tensor) -> Result<f64> {
    scalar.to_dtype(DType::F64).and_then(|t| t.to_scalar()).map_err(computation)
}
