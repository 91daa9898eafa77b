//! Where the values of the function come from: a table, measurements, a callback.

use super::value::Value;
use offprint_core::npy::{Mapped, Reals};
use offprint_core::{Error, Result};
use rayon::prelude::*;
use std::marker::PhantomData;

/// A function on bits that can be asked for its (noisy) values.
///
/// The same index must always have the same value: noise belongs to the index, not to the asking. Any
/// `FnMut(&[u64], &mut [T])` is one; it is asked for all indices at once, each once, in ascending order.
pub trait Query<T: Value> {
    /// Writes the values at `indices` into `values`, which is as long.
    fn query(&mut self, indices: &[u64], values: &mut [T]) -> Result<()>;

    /// Whether looking an index up again costs next to nothing, so that repeated indices need not be sorted out.
    fn is_table(&self) -> bool {
        false
    }

    /// Writes all values in order if they are at hand; `false` if they have to be asked for.
    fn copy_all(&self, _values: &mut [T]) -> bool {
        false
    }
}

impl<T: Value, F: FnMut(&[u64], &mut [T])> Query<T> for F {
    fn query(&mut self, indices: &[u64], values: &mut [T]) -> Result<()> {
        self(indices, values);
        Ok(())
    }
}

/// A callback that returns its values, as those of other languages do; it must return one for each index.
pub struct Returning<T, F: FnMut(&[u64]) -> Vec<T>> {
    function: F,
    value: PhantomData<T>,
}

impl<T: Value, F: FnMut(&[u64]) -> Vec<T>> Returning<T, F> {
    /// Asks `function`.
    pub fn new(function: F) -> Self {
        Self { function, value: PhantomData }
    }
}

impl<T: Value, F: FnMut(&[u64]) -> Vec<T>> Query<T> for Returning<T, F> {
    fn query(&mut self, indices: &[u64], values: &mut [T]) -> Result<()> {
        let answer = (self.function)(indices);
        if answer.len() != indices.len() {
            let problem = format!("was asked for {} values but returned {}", indices.len(), answer.len());
            return Err(Error::input("query function", problem));
        }
        values.copy_from_slice(&answer);
        Ok(())
    }
}

/// All 2ⁿ values of the function, in memory or in a mapped file, of which only those that are asked for are read.
#[derive(Debug)]
pub struct Table<S> {
    values: S,
    bits: u32,
}

/// What a [`Table`] can lie on.
pub trait Values<T>: Sync {
    /// The number of values.
    fn count(&self) -> usize;
    /// The value at `index`.
    fn at(&self, index: usize) -> T;
}

impl<T: Value> Values<T> for Vec<T> {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, index: usize) -> T {
        self[index]
    }
}

impl<T: Value> Values<T> for &[T] {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, index: usize) -> T {
        self[index]
    }
}

impl Values<f64> for Reals<'_> {
    fn count(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    fn at(&self, index: usize) -> f64 {
        match self {
            Self::F32(values) => f64::from(values[index]),
            Self::F64(values) => values[index],
        }
    }
}

impl<S> Table<S> {
    /// A table of 2ⁿ values called `name` in errors.
    ///
    /// # Errors
    /// The number of values is not a power of two.
    pub fn new<T>(values: S, name: &str) -> Result<Self>
    where
        S: Values<T>,
    {
        let count = values.count();
        if !count.is_power_of_two() {
            return Err(Error::input(
                name,
                format!("has {count} values; 2ⁿ are needed, one for each setting of n bits"),
            ));
        }
        Ok(Self { values, bits: count.trailing_zeros() })
    }

    /// n, the number of bits of an index.
    pub fn bits(&self) -> u32 {
        self.bits
    }
}

impl<T: Value, S: Values<T>> Query<T> for Table<S> {
    fn query(&mut self, indices: &[u64], values: &mut [T]) -> Result<()> {
        let table = &self.values;
        // Nearly every look-up misses the caches; more threads wait for more of them at a time.
        indices.par_chunks(1 << 12).zip(values.par_chunks_mut(1 << 12)).for_each(|(indices, values)| {
            for (value, &index) in values.iter_mut().zip(indices) {
                *value = table.at(index as usize);
            }
        });
        Ok(())
    }

    fn is_table(&self) -> bool {
        true
    }

    fn copy_all(&self, values: &mut [T]) -> bool {
        let table = &self.values;
        values.par_chunks_mut(1 << 16).enumerate().for_each(|(part, values)| {
            values.iter_mut().enumerate().for_each(|(i, value)| *value = table.at(part << 16 | i));
        });
        true
    }
}

/// The reals of a mapped file of one axis (or of several with one longer than 1).
///
/// # Errors
/// The file has several axes, or its numbers do not lie there as little-endian `f32` or `f64`.
pub fn mapped_reals<'a>(file: &'a Mapped, name: &str) -> Result<Option<Reals<'a>>> {
    let shape = file.shape();
    if shape.iter().filter(|&&n| n != 1).count() > 1 {
        return Err(Error::input(name, format!("has shape {shape:?}; an array of one axis is needed")));
    }
    Ok(file.reals())
}

/// Values measured beforehand at certain indices.
#[derive(Debug)]
pub struct Measurements<T> {
    /// By ascending index.
    pairs: Vec<(u64, T)>,
    name: String,
}

impl<T: Value> Measurements<T> {
    /// Measurements called `name` in errors.
    ///
    /// # Errors
    /// An index stands twice with different values.
    pub fn new(mut pairs: Vec<(u64, T)>, name: &str) -> Result<Self> {
        pairs.sort_by_key(|pair| pair.0);
        if let Some(twice) = pairs.windows(2).find(|w| w[0].0 == w[1].0 && w[0].1 != w[1].1) {
            let problem = format!(
                "has two values for index {}, {:?} and {:?}; average repeated measurements",
                twice[0].0, twice[0].1, twice[1].1
            );
            return Err(Error::input(name, problem));
        }
        pairs.dedup_by_key(|pair| pair.0);
        Ok(Self { pairs, name: name.into() })
    }

    fn find(&self, index: u64) -> Option<T> {
        self.pairs.binary_search_by_key(&index, |pair| pair.0).ok().map(|at| self.pairs[at].1)
    }
}

impl<T: Value> Query<T> for Measurements<T> {
    fn query(&mut self, indices: &[u64], values: &mut [T]) -> Result<()> {
        for (value, &index) in values.iter_mut().zip(indices) {
            *value = self.find(index).ok_or_else(|| {
                let missing = indices.iter().filter(|&&i| self.find(i).is_none()).count();
                Error::input(
                    self.name.clone(),
                    format!(
                        "has no value for index {index} ({missing} of the {} needed are missing); the same parameters \
                         and seed with --plan list the indices that are needed",
                        indices.len()
                    ),
                )
            })?;
        }
        Ok(())
    }
}
