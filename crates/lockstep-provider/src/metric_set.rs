//! Declares metrics. An entry of [`metric_set!`](crate::metric_set!) contains everything about a
//! metric: its registration, the metrics reference and the removal of its series are derived from
//! it.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A value that only increases.
    Counter,
    /// A value that can increase and decrease.
    Gauge,
    /// Observations counted in buckets.
    Histogram,
}

/// Name, type, labels and help text of one metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricInfo {
    /// Full name of the metric.
    pub name: &'static str,
    /// Type of the metric.
    pub kind: MetricKind,
    /// Labels that identify the object or store with which a series ends.
    pub owner: &'static [&'static str],
    /// The other labels.
    pub labels: &'static [&'static str],
    /// Help text: what the metric measures, and its unit.
    pub help: &'static str,
}

/// A Rust type that an entry of [`metric_set!`](crate::metric_set!) can have.
pub trait Metric: Collector + Sized {
    /// Type of the metric.
    const KIND: MetricKind;

    /// Creates the metric. Only histograms use `buckets`.
    ///
    /// # Errors
    /// Fails if the name, a label or the help text is invalid.
    fn create(opts: Opts, labels: &[&str], buckets: Vec<f64>) -> prometheus::Result<Self>;
}

macro_rules! metric_types {
    ($($kind:ident $type:ident: $create:expr;)*) => {$(
        impl Metric for $type {
            const KIND: MetricKind = MetricKind::$kind;

            fn create(opts: Opts, labels: &[&str], buckets: Vec<f64>) -> prometheus::Result<Self> {
                let create: fn(Opts, &[&str], Vec<f64>) -> prometheus::Result<Self> = $create;
                create(opts, labels, buckets)
            }
        }
    )*};
}

metric_types! {
    Counter Counter: |opts, _, _| Self::with_opts(opts);
    Counter IntCounter: |opts, _, _| Self::with_opts(opts);
    Counter IntCounterVec: |opts, labels, _| Self::new(opts, labels);
    Gauge Gauge: |opts, _, _| Self::with_opts(opts);
    Gauge IntGauge: |opts, _, _| Self::with_opts(opts);
    Gauge IntGaugeVec: |opts, labels, _| Self::new(opts, labels);
    Histogram Histogram: |opts, _, buckets| Self::with_opts(HistogramOpts::from(opts).buckets(buckets));
    Histogram HistogramVec: |opts, labels, buckets| {
        Self::new(HistogramOpts::from(opts).buckets(buckets), labels)
    };
}

/// A struct that [`metric_set!`](crate::metric_set!) declared.
pub trait MetricSet: Collector + Clone + Sized + 'static {
    /// Labels that identify the owner of the set. Empty if the series end with the process.
    const OWNER: &'static [&'static str];
    /// The metrics of the set.
    const METRICS: &'static [MetricInfo];

    /// Creates the metrics of the owner with these values of [`Self::OWNER`].
    ///
    /// # Errors
    /// Fails if a name, a label or a help text is invalid.
    fn create(owner: &[&str]) -> prometheus::Result<Self>;

    /// Creates and registers the metrics of the process.
    ///
    /// # Errors
    /// Fails if one of them is already registered.
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let set = Self::create(&[])?;
        registry.register(Box::new(set.clone()))?;
        Ok(set)
    }
}

/// Declares a struct of metrics, and [`MetricSet`] for it. The list after the name of the struct
/// holds the labels of the owner; the doc comment of a field is the help text of its metric.
#[macro_export]
macro_rules! metric_set {
    (
        $(#[$doc:meta])*
        $vis:vis struct $set:ident $owner:tt {
            $(
                $(#[doc = $help:literal])+
                $field_vis:vis $field:ident: $type:ident $labels:tt = $name:literal $(, $buckets:expr)?;
            )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        $vis struct $set {
            $($(#[doc = $help])+ $field_vis $field: ::prometheus::$type,)*
        }

        impl $crate::metric_set::MetricSet for $set {
            const OWNER: &'static [&'static str] = &$owner;
            const METRICS: &'static [$crate::metric_set::MetricInfo] = &[$(
                $crate::metric_set::MetricInfo {
                    name: $name,
                    kind: <::prometheus::$type as $crate::metric_set::Metric>::KIND,
                    owner: &$owner,
                    labels: &$labels,
                    help: concat!($($help),+).trim_ascii(),
                },
            )*];

            fn create(owner: &[&str]) -> ::prometheus::Result<Self> {
                let owner: ::std::collections::HashMap<String, String> = Self::OWNER
                    .iter()
                    .zip(owner)
                    .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
                    .collect();
                Ok(Self {
                    $($field: $crate::metric_set::Metric::create(
                        ::prometheus::Opts::new($name, concat!($($help),+).trim_ascii())
                            .const_labels(owner.clone()),
                        &$labels,
                        [&[][..] $(, $buckets)?].concat(),
                    )?,)*
                })
            }
        }

        impl ::prometheus::core::Collector for $set {
            fn desc(&self) -> Vec<&::prometheus::core::Desc> {
                [$(self.$field.desc()),*].concat()
            }

            fn collect(&self) -> Vec<::prometheus::proto::MetricFamily> {
                let mut families = Vec::new();
                $(families.extend(self.$field.collect());)*
                families
            }
        }
    };
}

/// One set of metrics for each store. Clones share the sets.
///
/// Only sets in the map are exposed. A client that outlives its store counts into a set that is not
/// exposed.
#[derive(Debug, Clone)]
pub struct PerStore<S> {
    /// Describes the metrics. Never exposed.
    template: S,
    /// The sets by the values of their owner's labels. The label of the store is the last one.
    sets: Arc<Mutex<BTreeMap<Vec<String>, S>>>,
}

impl<S: MetricSet> PerStore<S> {
    /// Registers the metrics.
    ///
    /// # Errors
    /// Fails if one of them is already registered.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let stores = Self {
            template: S::create(S::OWNER)?,
            sets: Arc::default(),
        };
        registry.register(Box::new(stores.clone()))?;
        Ok(stores)
    }

    /// Returns the set of a store. `owner` holds the values of [`MetricSet::OWNER`].
    pub fn get(&self, owner: &[&str]) -> S {
        let key = owner.iter().map(|&value| value.to_owned()).collect();
        // The template was created with the same names and help texts, so this does not fail.
        let create = || S::create(owner).unwrap_or_else(|_| self.template.clone());
        self.sets.lock().entry(key).or_insert_with(create).clone()
    }

    /// Removes every series of a store.
    pub fn remove(&self, store: &str) {
        self.sets
            .lock()
            .retain(|owner, _| owner.last().is_none_or(|label| label != store));
    }
}

impl<S: MetricSet> Collector for PerStore<S> {
    fn desc(&self) -> Vec<&Desc> {
        self.template.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.sets.lock().values().flat_map(Collector::collect).collect()
    }
}
