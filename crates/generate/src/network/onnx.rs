//! Models that were exported to ONNX, run by `tract`.

use super::model::Network;
use super::net::Net;
use super::reading::Reading;
use candle_core::{DType, Device, Tensor};
use offprint_core::{Error, Picture, Result};
use offprint_nn::{Weights, computation};
use rayon::prelude::*;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, PoisonError};
use tract_onnx::pb;
use tract_onnx::prelude::*;

/// Rows that run at once, where the file leaves the number open.
const ROWS: usize = 64;

/// The key of a file's metadata under which its [`Reading`] may stand.
const KEY: &str = "offprint";

/// Names by which inputs are known: points, level, class.
const NAMES: [&[&str]; 3] = [
    &["x", "x_t", "xt", "sample", "input", "points", "noisy"],
    &["t", "time", "timestep", "timesteps", "sigma", "noise_level", "noise_labels", "level"],
    &["class", "classes", "label", "labels", "class_labels", "y"],
];

/// Reads the model in `file`, which means what `reading` says, or its metadata.
///
/// # Errors
/// A file that is no ONNX model or has operations that are not known, inputs that are not points, level and class,
/// outputs of another shape than the points, no words on what it means.
pub fn read(file: &Path, reading: Option<&Reading>) -> Result<Network> {
    let origin = file.display().to_string();
    let bytes = std::fs::read(file).map_err(|e| Error::file("read", file, e))?;
    let proto = guarded(&origin, "is not an ONNX model", || onnx().proto_model_for_read(&mut bytes.as_slice()))?;
    let reading = match reading {
        Some(reading) => reading.clone(),
        None => {
            let Some(word) = proto.metadata_props.iter().find(|entry| entry.key == KEY) else {
                let problem = "does not say what it predicts: tell it with --onnx predicts=eps,schedule=vp-linear,time=t \
                               or the like, or keep these words in the file's metadata under \"offprint\"";
                return Err(Error::input(origin, problem));
            };
            word.value.parse().map_err(|e: Error| Error::input(origin.clone(), e.to_string()))?
        }
    };
    let net = OnnxNet::new(&proto, &reading, file)?;
    let weights = Weights::fresh(0, DType::F32)?;
    Network::assemble(Net::Onnx(net), &weights, (reading.path, reading.target, reading.clock))
}

/// The answer of the library, whose errors and panics become ours.
fn guarded<T>(origin: &str, problem: &str, work: impl FnOnce() -> TractResult<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::input(origin, format!("{problem}: {error:#}"))),
        Err(_) => Err(Error::input(origin, format!("{problem}: its numbers contradict each other"))),
    }
}

/// An ONNX model of points, levels and, it may be, classes.
#[derive(Clone)]
pub(super) struct OnnxNet {
    inner: Arc<Inner>,
}

struct Inner {
    origin: String,
    model: InferenceModel,
    inputs: Vec<(Role, DatumType)>,
    /// Rows of a run, where the file fixes them.
    rows: Option<usize>,
    /// The shape of a point.
    shape: Vec<usize>,
    classes: usize,
    /// Ready to run, by number of rows.
    plans: Mutex<HashMap<usize, Arc<TypedRunnableModel>>>,
}

/// What an input is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Points,
    /// One level for all rows, one for each, or a column of them.
    Level(usize),
    /// The number of the class for each row.
    Class,
    /// A row of zeros with a one at the class.
    OneHot,
}

impl fmt::Debug for OnnxNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnnxNet").field("origin", &self.inner.origin).field("shape", &self.inner.shape).finish()
    }
}

/// An input as the file declares it: open lengths are `None`.
struct Port {
    name: String,
    kind: DatumType,
    shape: Vec<Option<usize>>,
}

impl OnnxNet {
    /// Numbers beside a point: the level's code, and the class or −1.
    pub const SIDE: usize = 2;

    fn new(proto: &pb::ModelProto, reading: &Reading, file: &Path) -> Result<Self> {
        let origin = file.display().to_string();
        let bad = |problem: String| Error::input(origin.clone(), problem);
        let graph = proto.graph.as_ref().ok_or_else(|| bad("is not an ONNX model: it has no graph".into()))?;
        stays_inside(graph).and_then(|()| holds_its_numbers(graph)).map_err(&bad)?;
        let ports = ports(graph).map_err(&bad)?;
        let roles = roles(&ports, &reading.inputs).map_err(&bad)?;
        let folder = file.parent().and_then(Path::to_str);
        let parsed = guarded(&origin, "cannot be run", || onnx().parse(proto, folder))?;
        let mut model = parsed.model;
        let known = model.inputs.iter().map(|outlet| model.node(outlet.node).name.clone()).collect::<Vec<_>>();
        if known.len() != ports.len() || known.iter().zip(&ports).any(|(name, port)| *name != port.name) {
            return Err(bad(format!("has the inputs {}, of which not all are used", listed(&ports))));
        }
        // What a file says of its outputs may be in terms of open lengths; what comes out is checked below.
        for output in 0..model.outputs.len() {
            guarded(&origin, "cannot be run", || model.set_output_fact(output, InferenceFact::default()))?;
        }
        let points = &ports[roles.iter().position(|role| *role == Role::Points).expect("found above")];
        let shape = point_shape(points, reading).map_err(&bad)?;
        let rows = points.shape[0];
        let classes = match roles.iter().position(|role| matches!(role, Role::Class | Role::OneHot)) {
            None if reading.classes.is_some() => return Err(bad("has no input for classes".into())),
            None => 0,
            Some(at) => match (ports[at].shape.get(1).copied().flatten(), reading.classes) {
                (Some(wide), Some(given)) if wide != given => {
                    return Err(bad(format!("has {wide} classes, but classes={given} is said")));
                }
                (Some(classes), _) | (None, Some(classes)) => classes,
                (None, None) => {
                    return Err(bad(format!("has the input \"{}\": say how many classes=…", ports[at].name)));
                }
            },
        };
        let inputs = roles.into_iter().zip(ports.iter().map(|port| port.kind)).collect();
        let inner = Inner { origin, model, inputs, rows, shape, classes, plans: Mutex::default() };
        let net = Self { inner: Arc::new(inner) };
        // Whatever is wrong with the model shows now.
        let mut row = vec![0.0; net.dim() + Self::SIDE];
        row[net.dim()] = 0.5;
        row[net.dim() + 1] = -1.0;
        net.run(&row)?;
        Ok(net)
    }

    /// Components of a point.
    pub fn dim(&self) -> usize {
        self.inner.shape.iter().product()
    }

    /// Classes; 0 without any.
    pub fn classes(&self) -> usize {
        self.inner.classes
    }

    /// The picture that a point is, if it has channels, height and width.
    pub fn picture(&self) -> Option<Picture> {
        match self.inner.shape[..] {
            [channels @ (1 | 3), height, width] => Some(Picture { channels, height, width }),
            [height, width] => Some(Picture { channels: 1, height, width }),
            _ => None,
        }
    }

    /// Writes what stands beside a point.
    pub fn fill_side(code: f64, label: Option<usize>, side: &mut [f32]) {
        side[0] = code as f32;
        side[1] = label.map_or(-1.0, |class| class as f32);
    }

    /// Inputs (n, dim + 2), points with level and class, to outputs (n, dim). Rows run in groups of fixed size, so that
    /// results do not depend on the number of threads.
    pub fn forward(&self, inputs: &Tensor) -> Result<Tensor> {
        let rows = inputs.dims()[0];
        let values = inputs.flatten_all().and_then(|x| x.to_vec1::<f32>()).map_err(computation)?;
        let group = self.inner.rows.unwrap_or(ROWS) * (self.dim() + Self::SIDE);
        let outputs: Vec<Vec<f32>> = values.par_chunks(group).map(|rows| self.run(rows)).collect::<Result<_>>()?;
        Tensor::from_vec(outputs.concat(), (rows, self.dim()), &Device::Cpu).map_err(computation)
    }

    /// Some rows \[point, level, class\] to outputs.
    fn run(&self, rows: &[f32]) -> Result<Vec<f32>> {
        let inner = &*self.inner;
        let (d, width) = (self.dim(), self.dim() + Self::SIDE);
        let count = rows.len() / width;
        // Few numbers of rows, so that few plans are made; the last row fills up.
        let padded = inner.rows.unwrap_or(count.next_power_of_two());
        let plan = inner.plan(padded)?;
        let row = |i: usize| &rows[i.min(count - 1) * width..][..width];
        let values = inner.inputs.iter().map(|&(role, kind)| {
            let numbers: Vec<f32> = match role {
                Role::Points => (0..padded).flat_map(|i| &row(i)[..d]).copied().collect(),
                Role::Level(0) => vec![row(0)[d]],
                Role::Level(_) => (0..padded).map(|i| row(i)[d]).collect(),
                Role::Class => (0..padded).map(|i| class(row(i)[d + 1], inner.classes) as f32).collect(),
                Role::OneHot => (0..padded)
                    .flat_map(|i| (0..inner.classes).map(move |c| f32::from(u8::from(row(i)[d + 1] == c as f32))))
                    .collect(),
            };
            // Whole numbers: the nearest step of a table.
            let numbers = if kind.is_float() { numbers } else { numbers.into_iter().map(f32::round).collect() };
            let tensor = tract_onnx::prelude::Tensor::from_shape(&inner.shape_of(role, padded), &numbers)?;
            Ok(tensor.cast_to_dt(kind)?.into_owned().into_tvalue())
        });
        let outputs = guarded(&inner.origin, "fails", || plan.run(values.collect::<TractResult<TVec<TValue>>>()?))?;
        let output = guarded(&inner.origin, "fails", || {
            let output = outputs.first().ok_or_else(|| TractError::msg("nothing comes out"))?;
            Ok((output.shape().to_vec(), output.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec()))
        })?;
        self.points_of(output, (count, padded))
    }

    /// The outputs as points: of the points' shape, or with twice the channels, of which the second half is a variance.
    fn points_of(&self, (shape, values): (Vec<usize>, Vec<f32>), (count, padded): (usize, usize)) -> Result<Vec<f32>> {
        let d = self.dim();
        let rows = shape.first() == Some(&padded) || self.inner.rows == Some(1);
        match values.len() / padded.max(1) {
            per if rows && per == d && values.len() == padded * d => Ok(values[..count * d].to_vec()),
            per if rows && per == 2 * d && shape.get(1) == Some(&(2 * self.inner.shape[0])) => {
                Ok(values.chunks_exact(2 * d).take(count).flat_map(|row| &row[..d]).copied().collect())
            }
            _ => {
                let point = self.inner.shape_of(Role::Points, padded);
                let problem = format!("gives outputs of shape {shape:?} for points of shape {point:?}");
                Err(Error::input(self.inner.origin.clone(), problem))
            }
        }
    }
}

impl Inner {
    /// The shape of an input for `rows` rows.
    fn shape_of(&self, role: Role, rows: usize) -> Vec<usize> {
        match role {
            Role::Points => std::iter::once(rows).chain(self.shape.iter().copied()).collect(),
            Role::Level(0) => vec![],
            Role::Level(1) | Role::Class => vec![rows],
            Role::Level(axes) => std::iter::once(rows).chain(std::iter::repeat_n(1, axes - 1)).collect(),
            Role::OneHot => vec![rows, self.classes],
        }
    }

    /// The model, optimised for `rows` rows.
    fn plan(&self, rows: usize) -> Result<Arc<TypedRunnableModel>> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.get(&rows) {
            return Ok(plan.clone());
        }
        let plan = guarded(&self.origin, "cannot be run", || {
            let mut model = self.model.clone();
            for (i, &(role, kind)) in self.inputs.iter().enumerate() {
                model.set_input_fact(i, InferenceFact::dt_shape(kind, self.shape_of(role, rows)))?;
            }
            model.into_optimized()?.into_runnable()
        })?;
        plans.insert(rows, plan.clone());
        Ok(plan)
    }
}

/// The number of a class; the one after the last stands for none.
fn class(code: f32, classes: usize) -> usize {
    if code < 0.0 { classes } else { code as usize }
}

/// All weights: those with a name, and constants.
fn weights(graph: &pb::GraphProto) -> impl Iterator<Item = &pb::TensorProto> {
    let constants = graph.node.iter().flat_map(|node| &node.attribute).filter_map(|attribute| attribute.t.as_ref());
    graph.initializer.iter().chain(constants)
}

/// Refuses weights that a file wants to take from outside its own folder.
fn stays_inside(graph: &pb::GraphProto) -> std::result::Result<(), String> {
    for place in weights(graph).flat_map(|tensor| &tensor.external_data).filter(|entry| entry.key == "location") {
        if !Path::new(&place.value).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(format!("wants weights from \"{}\", outside its folder", place.value));
        }
    }
    Ok(())
}

/// Refuses weights that claim more numbers than the file holds: room would be made for them.
fn holds_its_numbers(graph: &pb::GraphProto) -> std::result::Result<(), String> {
    for tensor in weights(graph).filter(|tensor| tensor.external_data.is_empty()) {
        let wanted = tensor.dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(usize::try_from(dim).ok()?));
        let words = tensor.float_data.len() + tensor.int32_data.len() + tensor.int64_data.len();
        let held = tensor.raw_data.len() + words + tensor.double_data.len() + tensor.uint64_data.len();
        // A number takes a byte at least, but for the strings that no network has.
        if wanted.is_none_or(|wanted| wanted > held + tensor.string_data.len()) {
            return Err(format!("has the weight \"{}\" of shape {:?}, but not its numbers", tensor.name, tensor.dims));
        }
    }
    Ok(())
}

/// The inputs that are no weights.
fn ports(graph: &pb::GraphProto) -> std::result::Result<Vec<Port>, String> {
    let is_weight = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
    let port = |input: &pb::ValueInfoProto| {
        let name = &input.name;
        let declared = input.r#type.as_ref().and_then(|kind| kind.value.as_ref());
        let Some(pb::type_proto::Value::TensorType(tensor)) = declared else {
            return Err(format!("has the input \"{name}\", which is no tensor"));
        };
        let Some(shape) = &tensor.shape else {
            return Err(format!("has the input \"{name}\" without a shape"));
        };
        let kind = match tensor.elem_type {
            1 => f32::datum_type(),
            11 => f64::datum_type(),
            10 => f16::datum_type(),
            7 => i64::datum_type(),
            6 => i32::datum_type(),
            other => return Err(format!("has the input \"{name}\" of ONNX type {other}; reals and integers are fed")),
        };
        let length = |dim: &pb::tensor_shape_proto::Dimension| match dim.value {
            Some(pb::tensor_shape_proto::dimension::Value::DimValue(n)) => usize::try_from(n).ok().filter(|&n| n > 0),
            _ => None,
        };
        Ok(Port { name: name.clone(), kind, shape: shape.dim.iter().map(length).collect() })
    };
    graph.input.iter().filter(|input| !is_weight(&input.name)).map(port).collect()
}

fn listed(ports: &[Port]) -> String {
    ports.iter().map(|port| format!("\"{}\"", port.name)).collect::<Vec<_>>().join(", ")
}

/// What each input is for: by the names that the user gives, by names that are known, by their order.
fn roles(ports: &[Port], given: &[Option<String>; 3]) -> std::result::Result<Vec<Role>, String> {
    if !(2..=3).contains(&ports.len()) {
        return Err(format!("has the inputs {}; points, level and, it may be, class are fed", listed(ports)));
    }
    for name in given.iter().flatten() {
        if !ports.iter().any(|port| port.name == *name) {
            return Err(format!("has no input \"{name}\"; its inputs are {}", listed(ports)));
        }
    }
    let by_name = |port: &Port| {
        let own = (0..3).find(|&role| given[role].as_deref() == Some(port.name.as_str()));
        let known = || (0..3).find(|&role| given[role].is_none() && NAMES[role].contains(&port.name.as_str()));
        own.or_else(known)
    };
    let mut found: Vec<Option<usize>> = ports.iter().map(by_name).collect();
    let complete = |found: &[Option<usize>]| (0..ports.len()).all(|role| found.contains(&Some(role)));
    if !complete(&found) {
        if given.iter().any(Option::is_some) {
            return Err(format!("has the inputs {}; name them all with x=, level= and class=", listed(ports)));
        }
        found = (0..ports.len()).map(Some).collect();
    }
    ports
        .iter()
        .zip(found)
        .map(|(port, role)| {
            let (name, axes) = (&port.name, port.shape.len());
            match role {
                Some(0) if axes >= 2 && port.kind.is_float() => Ok(Role::Points),
                Some(0) => Err(format!("takes points at \"{name}\", which is no real array (n, d, …); say x=NAME")),
                Some(1) if port.shape.iter().skip(1).all(|n| n.is_none_or(|n| n == 1)) => Ok(Role::Level(axes)),
                Some(1) => Err(format!("takes the level at \"{name}\", which is no number a row; say level=NAME")),
                _ if axes == 1 => Ok(Role::Class),
                _ if axes == 2 => Ok(Role::OneHot),
                _ => Err(format!("takes the class at \"{name}\", which has {axes} axes, not one or two")),
            }
        })
        .collect()
}

/// The shape of a point: what the file fixes, and the user's where it is open.
fn point_shape(points: &Port, reading: &Reading) -> std::result::Result<Vec<usize>, String> {
    let fixed = &points.shape[1..];
    let Some(given) = &reading.shape else {
        let known: Option<Vec<usize>> = fixed.iter().copied().collect();
        return known
            .ok_or_else(|| format!("leaves the shape of \"{}\" open: say shape=3x32x32 or the like", points.name));
    };
    let fits = given.len() == fixed.len() && given.iter().zip(fixed).all(|(g, f)| f.is_none_or(|f| f == *g));
    if fits { Ok(given.clone()) } else { Err(format!("has points of another shape than shape={given:?}")) }
}
