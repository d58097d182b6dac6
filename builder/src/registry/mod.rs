//! Registries: what images are called.

pub(crate) mod reference;
