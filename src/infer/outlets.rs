//! A graph's tensors held against what the manifest says of them.

use ort::value::{Outlet, TensorElementType, ValueType};

use super::InferError;
use crate::model::Dtype;

/// The shape of a tensor of this element type among those that a graph takes or gives, -1 where it leaves an axis open.
///
/// # Errors
/// [`InferError::Contract`] with what differs.
pub(super) fn shape_of<'a>(outlets: &'a [Outlet], name: &str, wanted: TensorElementType) -> Result<&'a [i64], InferError> {
    let Some(outlet) = outlets.iter().find(|o| o.name() == name) else {
        let names: Vec<_> = outlets.iter().map(Outlet::name).collect();
        return broken(format!("no tensor `{name}`, the graph has {names:?}"));
    };
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } if *ty == wanted => Ok(shape),
        ValueType::Tensor { ty, .. } => {
            let wanted = match wanted {
                TensorElementType::Int64 => "int64",
                TensorElementType::Float16 => "float16",
                _ => "float32",
            };
            broken(format!("`{name}` has element type {ty}, and is read as {wanted}"))
        }
        _ => broken(format!("`{name}` is no tensor")),
    }
}

/// ONNX Runtime's word for it.
pub(super) fn element_type(dtype: Dtype) -> TensorElementType {
    match dtype {
        Dtype::Float32 => TensorElementType::Float32,
        Dtype::Float16 => TensorElementType::Float16,
    }
}

/// Whether a tensor has this shape; `None`: any number along that axis.
pub(super) fn has_shape(found: &[i64], expected: &[Option<usize>]) -> bool {
    found.len() == expected.len() && found.iter().zip(expected).all(|(&n, wanted)| wanted.is_none_or(|wanted| n == wanted as i64))
}

/// Whether an axis is that long, or left open.
pub(super) fn open_or(found: i64, wanted: usize) -> bool {
    found == -1 || found == wanted as i64
}

pub(super) fn broken<T>(what: String) -> Result<T, InferError> {
    Err(InferError::Contract { what })
}
