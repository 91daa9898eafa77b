//! Files that a run leaves. Each appears whole or not at all.

use crate::{Array, Error, Result, npy};
use ndarray::{ArrayD, IxDyn};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::fs::Permissions;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Named arrays.
pub type Arrays = BTreeMap<String, Array>;

/// Words kept beside arrays in a `.safetensors` file.
pub type Metadata = BTreeMap<String, String>;

/// What a run leaves under a name.
#[derive(Debug, Clone)]
pub enum Artifact {
    /// One array, written as `.npy`.
    Array(Array),
    /// Named arrays, written as `.npz`, or as `.safetensors` with words beside them.
    Arrays(Arrays, Metadata),
    /// Text: CSV, JSON, plain.
    Text(String),
}

impl Artifact {
    /// Writes the file at `path`; the ending of named arrays says in which format.
    pub fn write(&self, path: &Path) -> Result<()> {
        match self {
            Self::Array(array) => write_whole(path, |out| npy::write(out, array)),
            Self::Text(text) => write_whole(path, |out| out.write_all(text.as_bytes())),
            Self::Arrays(arrays, metadata) if path.extension().is_some_and(|e| e == "safetensors") => {
                let bytes =
                    to_safetensors(arrays, metadata).map_err(|e| Error::file("write", path, io::Error::other(e)))?;
                write_whole(path, |out| out.write_all(&bytes))
            }
            Self::Arrays(arrays, _) => write_whole(path, |out| {
                let mut archive = zip::ZipWriter::new_stream(out);
                for (name, array) in arrays {
                    // Arrays of numbers hardly shrink; numpy stores them plain too.
                    let options =
                        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
                    archive.start_file(format!("{name}.npy"), options).map_err(io::Error::other)?;
                    npy::write(&mut archive, array)?;
                }
                archive.finish().map_err(io::Error::other)?;
                Ok(())
            }),
        }
    }
}

/// Writes the file at `path` through a temporary file beside it, so that it appears whole or not at all.
pub fn write_whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let attempt = || -> io::Result<()> {
        let mut builder = tempfile::Builder::new();
        // As for any new file: what the user's umask leaves of read and write for all.
        #[cfg(unix)]
        builder.permissions(<Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666));
        let mut file = builder.prefix(".offprint-").tempfile_in(directory)?;
        let mut out = BufWriter::new(file.as_file_mut());
        write(&mut out)?;
        out.flush()?;
        drop(out);
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        Ok(())
    };
    attempt().map_err(|e| Error::file("write", path, e))
}

fn to_safetensors(arrays: &Arrays, metadata: &Metadata) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let bytes: Vec<(&String, Dtype, &[usize], Vec<u8>)> = arrays
        .iter()
        .map(|(name, array)| {
            let (dtype, bytes) = match array {
                Array::F32(a) => (Dtype::F32, a.iter().flat_map(|x| x.to_le_bytes()).collect()),
                Array::F64(a) => (Dtype::F64, a.iter().flat_map(|x| x.to_le_bytes()).collect()),
                Array::I64(a) => (Dtype::I64, a.iter().flat_map(|x| x.to_le_bytes()).collect()),
                Array::U64(a) => (Dtype::U64, a.iter().flat_map(|x| x.to_le_bytes()).collect()),
                Array::U8(a) => (Dtype::U8, a.iter().copied().collect()),
                Array::C128(a) => (
                    Dtype::C64,
                    a.iter()
                        .flat_map(|z| [(z.re as f32).to_le_bytes(), (z.im as f32).to_le_bytes()].concat())
                        .collect(),
                ),
            };
            (name, dtype, array.shape(), bytes)
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, dtype, shape, data)| Ok((name.as_str(), TensorView::new(*dtype, shape.to_vec(), data)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    let metadata: Option<HashMap<String, String>> =
        (!metadata.is_empty()).then(|| metadata.clone().into_iter().collect());
    safetensors::serialize(views, metadata)
}

/// Reads the arrays and words of a `.safetensors` file.
pub fn read_safetensors(path: &Path) -> Result<(Arrays, Metadata)> {
    let bytes = std::fs::read(path).map_err(|e| Error::file("read", path, e))?;
    let bad = |problem: String| Error::input(path.display().to_string(), problem);
    let unreadable = |e: safetensors::SafeTensorError| bad(format!("is not a .safetensors file: {e}"));
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(unreadable)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(unreadable)?;
    let mut arrays = Arrays::new();
    for (name, view) in tensors.iter() {
        let (data, shape) = (view.data(), view.shape());
        let array = match view.dtype() {
            Dtype::F32 => shaped(shape, data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()).into(),
            Dtype::F64 => shaped(shape, data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect()).into(),
            Dtype::I64 => shaped(shape, data.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect()).into(),
            Dtype::U64 => shaped(shape, data.as_chunks().0.iter().map(|&b| u64::from_le_bytes(b)).collect()).into(),
            Dtype::U8 => shaped(shape, data.to_vec()).into(),
            other => {
                return Err(bad(format!(
                    "tensor \"{name}\" has dtype {other:?}; F32, F64, I64, U64 and U8 are read here"
                )));
            }
        };
        arrays.insert(name.to_owned(), array);
    }
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok((arrays, metadata))
}

fn shaped<T>(shape: &[usize], values: Vec<T>) -> ArrayD<T> {
    ArrayD::from_shape_vec(IxDyn(shape), values).expect("the reader has checked the size")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safetensors_and_npz_read_back_as_written() {
        let directory = tempfile::tempdir().unwrap();
        let arrays: Arrays =
            [("a".to_owned(), ndarray::arr2(&[[1.0, 2.0]]).into()), ("b".to_owned(), vec![3u64].into())].into();
        let metadata: Metadata = [("step".to_owned(), "7".to_owned())].into();
        let artifact = Artifact::Arrays(arrays.clone(), metadata.clone());
        let path = directory.path().join("m.safetensors");
        artifact.write(&path).unwrap();
        assert_eq!(read_safetensors(&path).unwrap(), (arrays.clone(), metadata));

        let path = directory.path().join("m.npz");
        artifact.write(&path).unwrap();
        let source: crate::Source = format!("{}:b", path.display()).parse().unwrap();
        assert_eq!(source.array().unwrap(), arrays["b"]);
        let both: crate::Source = path.display().to_string().parse().unwrap();
        assert!(both.array().unwrap_err().to_string().contains("a, b"));
    }

    #[test]
    fn hostile_safetensors_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.safetensors");
        for bytes in
            [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff{}", b"\x02\0\0\0\0\0\0\0{}trailing", b"\x10\0\0\0\0\0\0\0{"]
        {
            std::fs::write(&path, bytes).unwrap();
            assert!(matches!(read_safetensors(&path), Err(Error::Input { .. })));
        }
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.txt");
        let failed = write_whole(&path, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
