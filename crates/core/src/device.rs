//! Where a tensor lives.

use crate::{Result, bail, err};
use std::fmt;

/// A device: the CPU or one GPU by its index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Device {
    Cpu,
    Cuda(u8),
}

impl Device {
    /// Reads `cpu`, `cuda`, `cuda:1`.
    pub fn parse(s: &str) -> Result<Device> {
        let (kind, index) = match s.split_once(':') {
            Some((k, i)) => {
                let i: u8 = i.parse().map_err(|_| {
                    err!(Runtime, "Invalid device string: '{s}': the part after ':' must be a device index")
                })?;
                (k, Some(i))
            }
            None => (s, None),
        };
        match kind {
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(index.unwrap_or(0))),
            _ => bail!(Runtime, "Expected one of cpu, cuda device type at start of device string: {s}"),
        }
    }
    pub fn is_cuda(self) -> bool {
        matches!(self, Device::Cuda(_))
    }
    pub fn kind(self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            Device::Cuda(_) => "cuda",
        }
    }
    pub fn index(self) -> Option<u8> {
        match self {
            Device::Cpu => None,
            Device::Cuda(i) => Some(i),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(i) => write!(f, "cuda:{i}"),
        }
    }
}
