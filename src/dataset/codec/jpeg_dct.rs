use super::{Fault, FrameFormat, Samples};
use crate::dataset::colour::Photometric;
pub(super) fn decode(_: &[u8], _: &FrameFormat<'_>, _: Photometric) -> Result<Samples, Fault> {
    Err(Fault::Unsupported("JPEG (DCT) is".into()))
}
