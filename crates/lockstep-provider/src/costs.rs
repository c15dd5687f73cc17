//! What a backend charges and allows, as far as it publishes it. Every figure has its source beside it.

use std::fmt;

pub use lockstep_core::forecast::{Backend, Calls};

/// Millionths of a US dollar: a call costs a few of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MicroUsd(pub u64);

impl MicroUsd {
    /// The same so many times.
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

/// In dollars, exactly: at least two digits after the point, and as many as it takes.
impl fmt::Display for MicroUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        let ends = text.trim_end_matches('0').len();
        let cents = text.len() - 4;
        f.write_str(text.get(..ends.max(cents)).unwrap_or(&text))
    }
}

/// What a published figure is, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published<T> {
    /// The figure.
    pub value: T,
    /// The page that says so.
    pub source: &'static str,
}

/// How many calls a backend takes, from everybody whom it counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The operations that are counted together.
    pub operations: &'static str,
    /// Calls.
    pub calls: u64,
    /// In so many seconds.
    pub seconds: u64,
    /// Who is counted together, such as `account and region`.
    pub of_each: &'static str,
}

/// One kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// What the service calls it.
    pub operation: &'static str,
    /// What one costs; `None` where nobody charges for it.
    pub price: Option<Published<MicroUsd>>,
    /// What is allowed; `None` where no number is published.
    pub quota: Option<Published<Quota>>,
}

impl Call {
    /// A call that nobody charges for, and that has no published limit.
    pub const fn uncharged(operation: &'static str) -> Self {
        Self {
            operation,
            price: None,
            quota: None,
        }
    }
}

/// What is charged for a value that is kept, whoever reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// What is counted, such as `secret`.
    pub unit: &'static str,
    /// What one costs in a month.
    pub price: Published<MicroUsd>,
}

/// The cost model of one store: what a request becomes there, and what that costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Costs {
    /// The service, as whoever runs it calls it.
    pub service: &'static str,
    /// How it takes requests.
    pub backend: Backend,
    /// Reading values.
    pub read: Call,
    /// Reading what is kept beside a value.
    pub metadata: Call,
    /// One page of a search.
    pub find: Call,
    /// Decrypting a ciphertext.
    pub decrypt: Call,
    /// What keeping a value costs.
    pub kept: Option<Kept>,
    /// The month in which the figures were looked up; `None` where there are none.
    pub as_of: Option<&'static str>,
    /// What else has to be known to read the figures, as sentences.
    pub notes: Vec<&'static str>,
}

impl Costs {
    /// Of a backend that nobody charges for, and that answers one value with one call.
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

    /// Each kind of call, with how many of these it is.
    pub fn kinds(&self, calls: Calls) -> [(&Call, u64); 4] {
        [
            (&self.read, calls.reads),
            (&self.metadata, calls.metadata),
            (&self.find, calls.finds),
            (&self.decrypt, calls.decryptions),
        ]
    }

    /// What these calls cost; `None` where nobody charges for any of them.
    pub fn price(&self, calls: Calls) -> Option<MicroUsd> {
        self.kinds(calls)
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .filter_map(|(call, count)| Some(call.price?.value.times(count)))
            .reduce(std::ops::Add::add)
            .or_else(|| self.charges().then(MicroUsd::default))
    }

    /// Whether anything is charged for.
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
    fn an_amount_is_told_exactly_and_with_its_cents() {
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
    fn what_is_not_charged_for_has_no_price_and_what_is_free_costs_nothing() {
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
