//! CIFAR-10 in its binary form, which a user brings: `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`.

use crate::batch::Batch;
use crate::error::computation;
use candle_core::{DType, Device, Tensor};
use offprint_core::{Error, Result};
use std::path::Path;

/// Height and width.
const SIDE: usize = 32;
/// Red, green, blue.
const CHANNELS: usize = 3;
/// A byte for the class, then the three planes.
const RECORD: usize = 1 + CHANNELS * SIDE * SIDE;
/// Mean of each channel over the training images, of values from 0 to 1.
const MEAN: [f32; CHANNELS] = [0.4914, 0.4822, 0.4465];
/// Its standard deviation.
const DEVIATION: [f32; CHANNELS] = [0.2470, 0.2435, 0.2616];

/// Colour photographs with their classes: images (n, 3, 32, 32), each channel with mean 0 and deviation 1 over the training
/// images.
#[derive(Debug, Clone)]
pub struct Cifar10 {
    /// To train on.
    pub train: Batch,
    /// For testing.
    pub test: Batch,
}

/// Reads `directory` (`cifar-10-batches-bin`).
///
/// # Errors
/// A file that is missing, is no whole number of records of 3073 bytes, or holds a class above 9, by its record.
pub fn cifar10(directory: &Path) -> Result<Cifar10> {
    let train: Vec<String> = (1..=5).map(|i| format!("data_batch_{i}.bin")).collect();
    Ok(Cifar10 { train: read(directory, &train)?, test: read(directory, &["test_batch.bin".to_owned()])? })
}

fn read(directory: &Path, names: &[String]) -> Result<Batch> {
    let (mut pixels, mut classes) = (Vec::<f32>::new(), Vec::<u32>::new());
    for name in names {
        let path = directory.join(name);
        let bytes = std::fs::read(&path).map_err(|e| Error::file("read", &path, e))?;
        let bad = |problem: String| Error::input(path.display().to_string(), problem);
        if bytes.is_empty() || bytes.len() % RECORD != 0 {
            return Err(bad(format!("has {} bytes, which are no whole records of {RECORD}", bytes.len())));
        }
        for (number, record) in bytes.chunks_exact(RECORD).enumerate() {
            if record[0] > 9 {
                return Err(bad(format!("record {number} (counted from 0) has the class {}; there are 10", record[0])));
            }
            classes.push(u32::from(record[0]));
            for (channel, plane) in record[1..].chunks_exact(SIDE * SIDE).enumerate() {
                let (mean, deviation) = (MEAN[channel], DEVIATION[channel]);
                pixels.extend(plane.iter().map(|&byte| (f32::from(byte) / 255.0 - mean) / deviation));
            }
        }
    }
    let n = classes.len();
    let inputs = Tensor::from_vec(pixels, (n, CHANNELS, SIDE, SIDE), &Device::Cpu).and_then(|t| t.to_dtype(DType::F32));
    Ok(Batch {
        inputs: inputs.map_err(computation)?,
        targets: Tensor::from_vec(classes, n, &Device::Cpu).map_err(computation)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_a_class_and_three_planes() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes).unwrap();
        let record = |class: u8, ink: u8| {
            let mut bytes = vec![ink; RECORD];
            bytes[0] = class;
            bytes
        };
        (1..=5).for_each(|i| write(&format!("data_batch_{i}.bin"), &[record(i, 0), record(9 - i, 255)].concat()));
        let error = cifar10(directory.path()).unwrap_err().to_string();
        assert!(error.contains("test_batch.bin"), "{error}");
        write("test_batch.bin", &record(3, 51));
        let read = cifar10(directory.path()).unwrap();
        assert_eq!(read.train.inputs.dims(), [10, 3, 32, 32]);
        assert_eq!(read.train.targets.to_vec1::<u32>().unwrap()[..4], [1, 8, 2, 7]);
        let pixel = read.test.inputs.get(0).unwrap().get(2).unwrap().get(5).unwrap().to_vec1::<f32>().unwrap()[7];
        assert!((pixel - (0.2 - 0.4465) / 0.2616).abs() < 1e-6);
        for (bytes, says) in [(&record(10, 0)[..], "class 10"), (&[0; 100][..], "100 bytes"), (&[][..], "0 bytes")] {
            write("test_batch.bin", bytes);
            let error = cifar10(directory.path()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
