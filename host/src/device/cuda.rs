use super::{DeviceError, driver::Driver};

pub(super) struct CudaDriver;

impl CudaDriver {
    pub(super) fn count() -> Result<usize, DeviceError> {
        Err(DeviceError::NoDriver {
            reason: "not yet connected".to_owned(),
        })
    }

    pub(super) fn open(
        ordinal: usize,
        reset: bool,
    ) -> Result<(Box<dyn Driver>, String), DeviceError> {
        let _ = (ordinal, reset);
        Err(DeviceError::NoDriver {
            reason: "not yet connected".to_owned(),
        })
    }
}
