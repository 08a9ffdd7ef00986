//! What instructions compute, one lane at a time, as plain functions.

pub(crate) mod bits;
pub(crate) mod byte;
pub(crate) mod convert;
pub(crate) mod float;
pub(crate) mod half;
pub(crate) mod soft;
pub(crate) mod sum;
pub(crate) mod video;
