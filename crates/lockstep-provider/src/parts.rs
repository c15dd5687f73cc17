use crate::{ErrorKind, Operation, Part, ProviderError, RemoteRef};

/// Splits references into values and metadata, because most services read these in different ways.
///
/// ```
/// use lockstep_provider::{Location, Parts, RemoteRef};
///
/// let (a, b) = (Location::new("a")?, Location::new("b")?);
/// let parts = Parts::of(&[RemoteRef::current(a).metadata(), RemoteRef::current(b.clone())]);
/// assert_eq!(parts.values, [RemoteRef::current(b)]);
/// assert_eq!(parts.join(vec!["value of b"], vec!["tags of a"]), ["tags of a", "value of b"]);
/// # Ok::<(), lockstep_provider::LocationError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// The requested values, in order.
    pub values: Vec<RemoteRef>,
    /// The requested metadata, in order.
    pub metadata: Vec<RemoteRef>,
    order: Vec<Part>,
}

impl Parts {
    /// Splits references into values and metadata.
    pub fn of(refs: &[RemoteRef]) -> Self {
        let (values, metadata) = refs
            .iter()
            .cloned()
            .partition(|reference| reference.part == Part::Value);
        Self {
            values,
            metadata,
            order: refs.iter().map(|reference| reference.part).collect(),
        }
    }

    /// Merges the results in the order of the references. If one list is too short, so is the
    /// result, which callers detect.
    pub fn join<T>(self, values: Vec<T>, metadata: Vec<T>) -> Vec<T> {
        let (mut values, mut metadata) = (values.into_iter(), metadata.into_iter());
        let next = |part| match part {
            Part::Value => values.next(),
            Part::Metadata => metadata.next(),
        };
        self.order.into_iter().map_while(next).collect()
    }

    /// Merges the results of values in order, for a service without metadata.
    pub fn join_values<T>(
        self,
        values: Vec<Result<T, ProviderError>>,
        service: &str,
    ) -> Vec<Result<T, ProviderError>> {
        let refused = self
            .metadata
            .iter()
            .map(|reference| Err(no_metadata(reference, service)));
        let refused = refused.collect();
        self.join(values, refused)
    }
}

fn no_metadata(reference: &RemoteRef, service: &str) -> ProviderError {
    let message = format!(
        "metadataPolicy of key \"{}\": {service} keeps no metadata beside a value",
        reference.key.escape_debug()
    );
    ProviderError::new(ErrorKind::Unsupported, Operation::Read, message).with_hint("Leave metadataPolicy out")
}
