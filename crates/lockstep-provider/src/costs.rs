//! Published prices and quotas of backends. Every figure includes its source.

use std::fmt;

pub use lockstep_core::forecast::{Backend, Calls};

/// Millionths of a US dollar. One call costs a few of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MicroUsd(pub u64);

impl MicroUsd {
    /// Multiplies the amount, saturating on overflow.
    #[must_use]
    pub const fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }
}

impl std::ops::Add for MicroUsd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::iter::Sum for MicroUsd {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| sum + one)
    }
}

/// Formats the exact amount in dollars, with at least two decimal places.
impl fmt::Display for MicroUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        let ends = text.trim_end_matches('0').len();
        let cents = text.len() - 4;
        f.write_str(text.get(..ends.max(cents)).unwrap_or(&text))
    }
}

/// A published figure and its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published<T> {
    /// The figure.
    pub value: T,
    /// The page that publishes the figure.
    pub source: &'static str,
}

/// The number of calls that a backend allows, for everyone it counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The operations that are counted together.
    pub operations: &'static str,
    /// The number of calls.
    pub calls: u64,
    /// The period, in seconds.
    pub seconds: u64,
    /// What each quota applies to, such as `account and region`.
    pub of_each: &'static str,
}

/// One kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The service's own name for the operation.
    pub operation: &'static str,
    /// The price of one call, or `None` if it is free of charge.
    pub price: Option<Published<MicroUsd>>,
    /// The quota, or `None` if no number is published.
    pub quota: Option<Published<Quota>>,
}

impl Call {
    /// A call that is free of charge and has no published quota.
    pub const fn uncharged(operation: &'static str) -> Self {
        Self {
            operation,
            price: None,
            quota: None,
        }
    }
}

/// The price of keeping a value, independent of reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// What the price applies to, such as `secret`.
    pub unit: &'static str,
    /// The price of one unit per month.
    pub price: Published<MicroUsd>,
}

/// The cost model of one store: which calls a request causes, and what they cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Costs {
    /// The operator's name for the service.
    pub service: &'static str,
    /// How the backend accepts requests.
    pub backend: Backend,
    /// The call that reads values.
    pub read: Call,
    /// The call that reads metadata of a value.
    pub metadata: Call,
    /// The call that reads one page of a search.
    pub find: Call,
    /// The call that decrypts a ciphertext.
    pub decrypt: Call,
    /// The price of keeping a value.
    pub kept: Option<Kept>,
    /// The month in which the figures were looked up, or `None` if there are no figures.
    pub as_of: Option<&'static str>,
    /// Remarks that are needed to interpret the figures, as sentences.
    pub notes: Vec<&'static str>,
}

impl Costs {
    /// The costs of a backend that is free of charge and returns one value per call.
    pub fn uncharged(service: &'static str) -> Self {
        Self {
            service,
            backend: Backend {
                batch: 1,
                versions_in_batches: false,
                page: usize::MAX,
            },
            read: Call::uncharged("read"),
            metadata: Call::uncharged("metadata"),
            find: Call::uncharged("find"),
            decrypt: Call::uncharged("decrypt"),
            kept: None,
            as_of: None,
            notes: Vec::new(),
        }
    }

    /// Returns each kind of call with its share of these calls.
    pub fn kinds(&self, calls: Calls) -> [(&Call, u64); 4] {
        [
            (&self.read, calls.reads),
            (&self.metadata, calls.metadata),
            (&self.find, calls.finds),
            (&self.decrypt, calls.decryptions),
        ]
    }

    /// Returns the price of these calls, or `None` if the backend is free of charge.
    pub fn price(&self, calls: Calls) -> Option<MicroUsd> {
        self.kinds(calls)
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .filter_map(|(call, count)| Some(call.price?.value.times(count)))
            .reduce(std::ops::Add::add)
            .or_else(|| self.charges().then(MicroUsd::default))
    }

    /// Returns whether the backend charges for anything.
    fn charges(&self) -> bool {
        self.kinds(Calls::default())
            .iter()
            .any(|(call, _)| call.price.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_and_show_at_least_cents() {
        for (amount, text) in [
            (0, "0.00"),
            (5, "0.000005"),
            (50_000, "0.05"),
            (400_000, "0.40"),
            (1_000_000, "1.00"),
            (12_345_600, "12.3456"),
            (u64::MAX, "18446744073709.551615"),
        ] {
            assert_eq!(MicroUsd(amount).to_string(), text);
        }
    }

    #[test]
    fn uncharged_calls_have_no_price_and_free_calls_cost_zero() {
        let mut costs = Costs::uncharged("Vault");
        let calls = Calls {
            reads: 3,
            finds: 2,
            ..Calls::default()
        };
        assert_eq!(costs.price(calls), None);
        costs.read.price = Some(Published {
            value: MicroUsd(5),
            source: "the page",
        });
        assert_eq!(costs.price(calls), Some(MicroUsd(15)));
        assert_eq!(costs.price(Calls::default()), Some(MicroUsd(0)));
    }
}
