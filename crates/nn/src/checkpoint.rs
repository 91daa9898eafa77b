//! Checkpoints on disk: `.safetensors` files and Hugging Face directories, read through a memory map.
//!
//! A directory holds `model.safetensors`, or shards listed by `model.safetensors.index.json`. Nothing is copied until a
//! tensor is asked for, and then only that tensor. Headers are checked before anything in them is believed.

use crate::error::computation;
use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;
use offprint_core::artifact::write_whole;
use offprint_core::{Error, Result};
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorView};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::ops::Deref;
use std::path::{Component, Path, PathBuf};

/// The file of a directory that holds all tensors.
const WHOLE: &str = "model.safetensors";
/// The file of a directory that tells which shard holds which tensor.
const INDEX: &str = "model.safetensors.index.json";

/// Named tensors on disk.
#[derive(Debug)]
pub struct Checkpoint {
    origin: PathBuf,
    files: Vec<Mapped>,
    /// Name → number of the file that holds it.
    tensors: BTreeMap<String, usize>,
}

/// The bytes of a file.
#[derive(Debug)]
enum Contents {
    Mapped(Mmap),
    Held(&'static [u8]),
}

impl Deref for Contents {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Held(bytes) => bytes,
        }
    }
}

#[derive(Debug)]
struct Mapped {
    map: Contents,
    /// Where the values begin.
    start: usize,
    header: Metadata,
}

impl Mapped {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::file("read", path, e))?;
        // SAFETY: the map is read-only and private to this value. Another process that shortens the file while it is
        // mapped could still make reads fail; as with every program that maps its input, that is the user's to avoid.
        // Mapping the 90 MB of a small encoder takes microseconds, reading it first a tenth of a second and its memory.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::file("map", path, e))?;
        Self::read(Contents::Mapped(map), &path.display().to_string())
    }

    fn read(map: Contents, origin: &str) -> Result<Self> {
        let (length, header) = SafeTensors::read_metadata(&map)
            .map_err(|e| Error::input(origin, format!("is not a .safetensors file: {e}")))?;
        Ok(Self { start: length + size_of::<u64>(), map, header })
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a `.safetensors` file or a directory of them.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if !path.is_dir() {
            return Self::whole(path, path);
        }
        if path.join(INDEX).is_file() {
            return Self::sharded(path);
        }
        if !path.join(WHOLE).is_file() {
            return Err(Error::input(path.display().to_string(), format!("has neither {WHOLE} nor {INDEX}")));
        }
        Self::whole(path, &path.join(WHOLE))
    }

    /// The bytes of a `.safetensors` file, which errors call `origin`.
    pub fn from_bytes(bytes: &'static [u8], origin: &str) -> Result<Self> {
        Ok(Self::of_one(Path::new(origin), Mapped::read(Contents::Held(bytes), origin)?))
    }

    fn whole(origin: &Path, file: &Path) -> Result<Self> {
        Ok(Self::of_one(origin, Mapped::open(file)?))
    }

    fn of_one(origin: &Path, file: Mapped) -> Self {
        let tensors = file.header.offset_keys().into_iter().map(|name| (name, 0)).collect();
        Self { origin: origin.to_owned(), files: vec![file], tensors }
    }

    fn sharded(directory: &Path) -> Result<Self> {
        let path = directory.join(INDEX);
        let bad = |problem: String| Error::input(path.display().to_string(), problem);
        let text = std::fs::read_to_string(&path).map_err(|e| Error::file("read", &path, e))?;
        let index: Index = serde_json::from_str(&text).map_err(|e| bad(format!("is not an index of shards: {e}")))?;
        let (mut files, mut numbers, mut tensors) = (Vec::<Mapped>::new(), HashMap::new(), BTreeMap::new());
        for (name, shard) in index.weight_map {
            let number = match numbers.get(&shard) {
                Some(&number) => number,
                None => {
                    // An index comes with the checkpoint, from anywhere: it must not reach outside its directory.
                    let mut parts = Path::new(&shard).components();
                    if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                        return Err(bad(format!("names the shard \"{shard}\", which is no plain file name")));
                    }
                    files.push(Mapped::open(&directory.join(&shard))?);
                    numbers.insert(shard.clone(), files.len() - 1);
                    files.len() - 1
                }
            };
            if files[number].header.info(&name).is_none() {
                return Err(bad(format!("says that \"{name}\" stands in {shard}, but it does not")));
            }
            tensors.insert(name, number);
        }
        Ok(Self { origin: directory.to_owned(), files, tensors })
    }

    /// The path it was opened by.
    pub fn origin(&self) -> String {
        self.origin.display().to_string()
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of the tensor `name`, if it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let file = &self.files[*self.tensors.get(name)?];
        file.header.info(name).map(|info| info.shape.as_slice())
    }

    /// The word kept under `key` beside the tensors, if there is one.
    pub fn word(&self, key: &str) -> Option<&str> {
        self.files.iter().find_map(|f| f.header.metadata().as_ref()?.get(key)).map(String::as_str)
    }

    /// The tensor `name`, its values converted to `dtype` from F16, BF16, F32 or F64.
    pub fn tensor(&self, name: &str, dtype: DType) -> Result<Tensor> {
        let tensor = self.stored(name)?;
        if !tensor.dtype().is_float() {
            let problem = format!("tensor \"{name}\" holds integers ({}), not numbers", tensor.dtype().as_str());
            return Err(Error::input(self.origin(), problem));
        }
        tensor.to_dtype(dtype).map_err(computation)
    }

    /// The bytes of the tensor `name` as they stand in the file, with their type and shape.
    pub fn raw(&self, name: &str) -> Result<(Dtype, &[usize], &[u8])> {
        let missing = || {
            let near = self.names().filter(|n| n.rsplit('.').next() == name.rsplit('.').next()).take(3);
            let near: Vec<_> = near.collect();
            let hint = if near.is_empty() { String::new() } else { format!(" (it has {}, …)", near.join(", ")) };
            Error::input(self.origin(), format!("has no tensor \"{name}\"{hint}"))
        };
        let file = &self.files[*self.tensors.get(name).ok_or_else(missing)?];
        let info = file.header.info(name).ok_or_else(missing)?;
        // The header was checked against the length of the file, and offsets against shapes, when it was opened.
        let (begin, end) = info.data_offsets;
        Ok((info.dtype, &info.shape, &file.map[file.start + begin..file.start + end]))
    }

    /// The tensor `name` in the type in which it is stored: F16, BF16, F32, F64, U32 or I64.
    pub fn stored(&self, name: &str) -> Result<Tensor> {
        let (dtype, shape, bytes) = self.raw(name)?;
        let stored = match dtype {
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            Dtype::U32 => DType::U32,
            Dtype::I64 => DType::I64,
            other => {
                let problem =
                    format!("tensor \"{name}\" has dtype {other:?}; F16, BF16, F32, F64, U32 and I64 are read here");
                return Err(Error::input(self.origin(), problem));
            }
        };
        Tensor::from_raw_buffer(bytes, stored, shape, &Device::Cpu).map_err(computation)
    }

    /// The tensor `name`, which must have the given shape.
    pub fn shaped(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
        match self.shape(name) {
            Some(found) if found != shape => Err(Error::input(
                self.origin(),
                format!("tensor \"{name}\" has shape {found:?}, but the model needs {shape:?}"),
            )),
            _ => self.tensor(name, dtype),
        }
    }
}

/// Writes named tensors (F32, F64, U32, I64) and words beside them as one `.safetensors` file, whole or not at all.
pub fn save(path: &Path, tensors: &[(String, Tensor)], words: &BTreeMap<String, String>) -> Result<()> {
    let mut parts = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let flat = tensor.flatten_all().map_err(computation)?;
        let (dtype, bytes): (_, Vec<u8>) = match tensor.dtype() {
            DType::F32 => {
                (Dtype::F32, flat.to_vec1::<f32>().map_err(computation)?.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
            DType::F64 => {
                (Dtype::F64, flat.to_vec1::<f64>().map_err(computation)?.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
            DType::U32 => {
                (Dtype::U32, flat.to_vec1::<u32>().map_err(computation)?.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
            DType::I64 => {
                (Dtype::I64, flat.to_vec1::<i64>().map_err(computation)?.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
            other => {
                return Err(Error::parameter(name.as_str(), other.as_str(), "a tensor of dtype f32, f64, u32 or i64"));
            }
        };
        parts.push((name, dtype, tensor.dims().to_vec(), bytes));
    }
    let fail = |e: safetensors::SafeTensorError| Error::file("write", path, std::io::Error::other(e));
    let views = parts
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(fail)?;
    let words: Option<HashMap<String, String>> = (!words.is_empty()).then(|| words.clone().into_iter().collect());
    let bytes = safetensors::serialize(views, words).map_err(fail)?;
    write_whole(path, |out| out.write_all(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn tensor(values: &[f64]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    fn raw(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn tensors_and_words_read_back_bit_for_bit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.safetensors");
        let words = BTreeMap::from([("step".to_owned(), "7".to_owned())]);
        let values = [0.1, f64::MIN_POSITIVE, -0.0];
        save(&path, &[("x".into(), tensor(&values).reshape((3, 1)).unwrap())], &words).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.shape("x"), Some(&[3, 1][..]));
        assert_eq!(checkpoint.word("step"), Some("7"));
        let read = checkpoint.tensor("x", DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(read.map_bits(), values.to_vec().map_bits());
    }

    trait Bits {
        fn map_bits(self) -> Vec<u64>;
    }
    impl Bits for Vec<f64> {
        fn map_bits(self) -> Vec<u64> {
            self.into_iter().map(f64::to_bits).collect()
        }
    }

    #[test]
    fn half_precision_is_converted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("half.safetensors");
        // 1.5 is 0x3e00 in binary16 and 0x3fc0 in bfloat16; an odd number of header bytes leaves the data unaligned.
        let header = r#"{"h":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"b":{"dtype":"BF16","shape":[1],"data_offsets":[2,4]}}"#;
        fs::write(&path, raw(header, &[0x00, 0x3e, 0xc0, 0x3f])).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        for name in ["h", "b"] {
            assert_eq!(checkpoint.tensor(name, DType::F32).unwrap().to_vec1::<f32>().unwrap(), [1.5]);
        }
    }

    #[test]
    fn shards_are_one_checkpoint() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        save(&at("one.safetensors"), &[("a".into(), tensor(&[1.0]))], &BTreeMap::new()).unwrap();
        save(&at("two.safetensors"), &[("b".into(), tensor(&[2.0]))], &BTreeMap::new()).unwrap();
        let index = |map: &str| fs::write(at(INDEX), format!(r#"{{"metadata":{{}},"weight_map":{{{map}}}}}"#)).unwrap();
        index(r#""a":"one.safetensors","b":"two.safetensors""#);
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(checkpoint.tensor("b", DType::F64).unwrap().to_vec1::<f64>().unwrap(), [2.0]);

        for (map, says) in [
            (r#""a":"two.safetensors""#, "\"a\" stands in two.safetensors, but it does not"),
            (r#""a":"../one.safetensors""#, "no plain file name"),
            (r#""a":"/etc/passwd""#, "no plain file name"),
            (r#""a":"three.safetensors""#, "cannot read"),
            (r#""a":3"#, "is not an index"),
        ] {
            index(map);
            let error = Checkpoint::open(directory.path()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn hostile_headers_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bad.safetensors");
        let entry = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"x":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        let cases = [
            vec![],
            vec![0xff; 8],
            raw("{", &[]),
            raw(r#"{"x":1}"#, &[]),
            // Longer than the file, shorter than the shape, backwards, overlapping its own end, a product that overflows.
            raw(&entry("F32", "[4]", "[0,16]"), &[0; 8]),
            raw(&entry("F32", "[4]", "[0,8]"), &[0; 8]),
            raw(&entry("F32", "[1]", "[8,4]"), &[0; 8]),
            raw(&entry("F32", "[1]", "[4,8]"), &[0; 8]),
            raw(&entry("F32", "[9223372036854775807,4]", "[0,8]"), &[0; 8]),
            raw(&entry("F99", "[1]", "[0,4]"), &[0; 4]),
        ];
        for (i, bytes) in cases.into_iter().enumerate() {
            fs::write(&path, bytes).unwrap();
            let error = Checkpoint::open(&path).expect_err(&format!("case {i}"));
            assert!(matches!(error, Error::Input { .. } | Error::File { .. }), "{i}: {error}");
        }
        fs::write(&path, raw(&entry("I64", "[1]", "[0,8]"), &[0; 8])).unwrap();
        let error = Checkpoint::open(&path).unwrap().tensor("x", DType::F32).unwrap_err().to_string();
        assert!(error.contains("\"x\" holds integers (i64)"), "{error}");
        fs::write(&path, raw(&entry("F8_E4M3", "[1]", "[0,1]"), &[0; 1])).unwrap();
        let error = Checkpoint::open(&path).unwrap().tensor("x", DType::F32).unwrap_err().to_string();
        assert!(error.contains("\"x\" has dtype F8_E4M3"), "{error}");
    }

    #[test]
    fn missing_tensors_and_wrong_shapes_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.safetensors");
        save(&path, &[("fc1.weight".into(), tensor(&[1.0, 2.0]))], &BTreeMap::new()).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        let error = checkpoint.tensor("fc2.weight", DType::F32).unwrap_err().to_string();
        assert!(error.contains("\"fc2.weight\"") && error.contains("fc1.weight"), "{error}");
        let error = checkpoint.shaped("fc1.weight", &[3], DType::F32).unwrap_err().to_string();
        assert!(error.contains("[2]") && error.contains("[3]"), "{error}");
        let error = Checkpoint::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains(WHOLE) && error.contains(INDEX), "{error}");
    }
}
