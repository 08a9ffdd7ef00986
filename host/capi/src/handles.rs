//! Opaque handles: numbers that look like pointers and are never dereferenced, so that any value can be checked.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use bitnet_cuda::ops::{BitLinear, Norm, QuantizedActivations};

use crate::device::OpenDevice;
use crate::error::Error;

/// A type that handles stand for.
pub trait Handled: Send + Sync + Sized + 'static {
    /// What errors call it.
    const NAME: &'static str;

    fn wrap(object: Arc<Self>) -> Object;
    fn unwrap(object: &Object) -> Option<&Arc<Self>>;
}

macro_rules! handled {
    ($($variant:ident($type:ty), $name:literal;)*) => {
        /// What a handle stands for.
        #[derive(Clone)]
        pub enum Object {
            $($variant(Arc<$type>),)*
        }

        impl Object {
            fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }
        }

        $(impl Handled for $type {
            const NAME: &'static str = $name;

            fn wrap(object: Arc<Self>) -> Object {
                Object::$variant(object)
            }

            fn unwrap(object: &Object) -> Option<&Arc<Self>> {
                match object {
                    Object::$variant(object) => Some(object),
                    _ => None,
                }
            }
        })*
    };
}

handled! {
    Device(OpenDevice), "bitnet_device";
    Linear(BitLinear), "bitnet_linear";
    Norm(Norm), "bitnet_norm";
    Activations(RwLock<QuantizedActivations>), "bitnet_activations";
}

/// The first handle, and the distance between two. Page 0 is never mapped, so dereferencing a handle by mistake faults at first;
/// being multiples of 16, they are as aligned as any pointer.
const STEP: usize = 16;

/// No handle is given out twice, so that a freed one stays known as such.
struct Registry {
    last: usize,
    objects: BTreeMap<usize, Object>,
}

static REGISTRY: RwLock<Registry> = RwLock::new(Registry {
    last: 0,
    objects: BTreeMap::new(),
});

/// Makes a handle.
pub fn insert<T: Handled>(object: T) -> usize {
    insert_shared(Arc::new(object))
}

/// Makes a handle of something that may have others.
pub fn insert_shared<T: Handled>(object: Arc<T>) -> usize {
    let mut registry = REGISTRY.write().unwrap_or_else(PoisonError::into_inner);
    registry.last += STEP;
    let handle = registry.last;
    registry.objects.insert(handle, T::wrap(object));
    handle
}

/// What a handle stands for; errors call it `argument`.
pub fn get<T: Handled>(argument: &str, handle: usize) -> Result<Arc<T>, Error> {
    let registry = REGISTRY.read().unwrap_or_else(PoisonError::into_inner);
    registry.check(argument, handle).cloned()
}

/// Ends a handle, and returns what it stood for.
pub fn remove<T: Handled>(argument: &str, handle: usize) -> Result<Arc<T>, Error> {
    let mut registry = REGISTRY.write().unwrap_or_else(PoisonError::into_inner);
    let object = registry.check(argument, handle).cloned()?;
    let removed = registry.objects.remove(&handle);
    // Dropped outside the lock: it can wait for the device, or be the last to hold it.
    drop(registry);
    drop(removed);
    Ok(object)
}

impl Registry {
    fn check<T: Handled>(&self, argument: &str, handle: usize) -> Result<&Arc<T>, Error> {
        let expected = T::NAME;
        let Some(object) = self.objects.get(&handle) else {
            let freed = handle != 0 && handle <= self.last && handle.is_multiple_of(STEP);
            let reason = match handle {
                0 => "is NULL".to_owned(),
                _ if freed => format!("= {handle:#x} has been destroyed"),
                _ => format!("= {handle:#x} is not a handle of this library"),
            };
            return Err(Error::handle(format!(
                "{argument} {reason}; pass a {expected}"
            )));
        };
        T::unwrap(object).ok_or_else(|| {
            let found = object.name();
            Error::handle(format!(
                "{argument} = {handle:#x} is a {found}; pass a {expected}"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;
    use bitnet_cuda::device::Device;

    #[test]
    fn a_handle_is_good_until_it_is_removed_and_never_again() {
        let device = Device::emulated().unwrap();
        let activations = QuantizedActivations::uninit(&device, 1, 4).unwrap();
        let handle = insert(RwLock::new(activations));
        let found: Arc<RwLock<QuantizedActivations>> = get("x", handle).unwrap();
        assert_eq!(found.read().unwrap().k(), 4);
        let message = |result: Result<Arc<BitLinear>, Error>| {
            let error = result.map(drop).unwrap_err();
            assert_eq!(error.status, Status::InvalidHandle);
            error.message
        };
        assert!(
            message(get("x", handle)).contains("is a bitnet_activations; pass a bitnet_linear")
        );
        remove::<RwLock<QuantizedActivations>>("x", handle).unwrap();
        assert!(message(get("x", handle)).contains("has been destroyed"));
        let next = insert(RwLock::new(
            QuantizedActivations::uninit(&device, 1, 4).unwrap(),
        ));
        assert_ne!(next, handle);
        assert!(message(get("x", 0)).contains("is NULL"));
        assert!(message(get("x", handle + 1)).contains("not a handle"));
        assert!(message(get("x", usize::MAX - 15)).contains("not a handle"));
    }
}
