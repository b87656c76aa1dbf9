//! Placeholder.
pub fn cuda(index: u8) -> pyrite_core::Result<&'static dyn pyrite_core::Backend> {
    pyrite_core::bail!(Runtime, "CUDA device {index} is not available in this build")
}
