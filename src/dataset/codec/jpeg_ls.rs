use super::{Fault, FrameFormat};
pub(super) fn decode(_: &[u8], _: &FrameFormat<'_>) -> Result<Vec<u16>, Fault> {
    Err(Fault::Unsupported("JPEG-LS is".into()))
}
