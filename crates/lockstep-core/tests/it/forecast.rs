//! The forecast of calls, against hand-made sums and against the schedule itself.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use jiff::Timestamp;
use lockstep_core::{
    forecast::{Backend, Calls, Forecast, Object, Store, Wants, forecast},
    remote::{FindQuery, RemoteRef},
    schedule::{self, BatchKey, RefreshSchedule},
};
use proptest::prelude::*;

use crate::at;

const HOUR: u64 = 3600;

fn store(label: &str, members: usize, batch: usize) -> Store {
    Store {
        label: label.to_owned(),
        members,
        backend: Backend {
            batch,
            versions_in_batches: false,
            page: 100,
        },
    }
}

fn wants(reads: impl IntoIterator<Item = RemoteRef>) -> Wants {
    let reads: BTreeSet<RemoteRef> = reads.into_iter().collect();
    Wants {
        entries: Calls {
            reads: reads.len().try_into().unwrap(),
            ..Calls::default()
        },
        reads,
        ..Wants::default()
    }
}

fn object(
    number: usize,
    seconds: u64,
    primary_store: &'static str,
    reads: &[String],
) -> Object<&'static str> {
    let wants = wants(reads.iter().map(|key| RemoteRef::current(at(key))));
    Object {
        batch_key: BatchKey::of_object(&format!("uid-{number}")),
        interval: Some(Duration::from_secs(seconds)),
        primary_store,
        wants: [(primary_store, wants)].into(),
    }
}

/// The forecast of the only store.
fn only(store: Store, objects: &[Object<&'static str>]) -> Forecast {
    forecast(&[("s", store)].into(), objects, 10)["s"]
}

#[test]
fn objects_in_one_slot_share_calls() {
    // 50 objects are one turn: 50 names of 25 keys, each wanted twice, are two batches of 20, every hour
    let objects: Vec<_> = (0..50)
        .map(|n| object(n, HOUR, "s", &[format!("key-{}", n / 2)]))
        .collect();
    let all = only(store("s", 50, 20), &objects);
    assert_eq!((all.objects, all.references, all.keys), (50, 50, 25));
    assert_eq!(all.round.all(), 2);
    assert_eq!(all.first_sync.all(), 2);
    assert_eq!(all.month.a_day().all(), 48);
    assert_eq!(all.month_by_entry.a_day().all(), 50 * 24);
}

#[test]
fn every_object_reads_alone_without_batches() {
    // 63 minutes from one refresh to the next on average: 720 / 1.05 = 685.7 in a month for each key of each object
    let objects: Vec<_> = (0..4).map(|n| object(n, HOUR, "s", &["key".into()])).collect();
    let all = only(store("s", 4, 1), &objects);
    assert_eq!(all.keys, 1);
    assert_eq!(all.first_sync.all(), 1);
    assert_eq!(all.round.all(), 4);
    assert_eq!(all.month.all(), 2743); // 4 × 685.71, rounded up
    assert_eq!(all.month_by_entry.all(), 4 * 720);
}

#[test]
fn different_intervals_share_no_calls() {
    let objects = [
        object(0, HOUR, "s", &["key".into()]),
        object(1, 2 * HOUR, "s", &["key".into()]),
    ];
    let all = only(store("s", 2, 20), &objects);
    assert_eq!((all.round.all(), all.first_sync.all()), (2, 1));
    assert_eq!(all.month.a_day().all(), 24 + 12);
}

#[test]
fn object_without_refresh_is_read_once() {
    let mut once = object(0, HOUR, "s", &["key".into()]);
    once.interval = None;
    let all = only(store("s", 1, 20), &[once]);
    assert_eq!(all.first_sync.all(), 1);
    assert_eq!((all.round, all.month, all.month_by_entry), Default::default());
}

#[test]
fn every_kind_of_request_is_counted_separately() {
    let mut one = object(0, HOUR, "s", &[]);
    one.wants = [(
        "s",
        Wants {
            reads: BTreeSet::from([
                RemoteRef::current(at("a")),
                RemoteRef::current(at("b")),
                RemoteRef::current(at("a")).metadata(),
                RemoteRef::version(at("a"), "AWSPREVIOUS"),
            ]),
            searches: HashSet::from([FindQuery::default()]),
            decryptions: 3,
            entries: Calls {
                reads: 5,
                metadata: 1,
                finds: 1,
                decryptions: 0,
            },
        },
    )]
    .into();
    let mut store = store("s", 1, 20);
    let all = only(store.clone(), &[one.clone()]);
    // a batch with a, b and ten keys that were found; the version alone; one page
    let round = Calls {
        reads: 2,
        metadata: 1,
        finds: 1,
        decryptions: 0,
    };
    assert_eq!(all.round, round);
    assert_eq!(
        all.first_sync,
        Calls {
            decryptions: 3,
            ..round
        }
    );
    assert_eq!((all.references, all.keys), (10, 2));
    let by_entry = Calls {
        reads: 15,
        metadata: 1,
        finds: 1,
        decryptions: 0,
    };
    assert_eq!(
        all.month_by_entry.a_day(),
        Calls {
            reads: 15 * 24,
            metadata: 24,
            finds: 24,
            decryptions: 0
        }
    );
    assert_eq!(by_entry.all() * 720, all.month_by_entry.all());
    store.backend = Backend {
        versions_in_batches: true,
        page: 5,
        ..store.backend
    };
    let all = only(store, &[one]);
    assert_eq!((all.round.reads, all.round.finds), (1, 2));
}

#[test]
fn unbatchable_reads_take_no_space_in_a_batch() {
    let mut one = object(0, HOUR, "s", &[]);
    let values = (0..20).map(|n| RemoteRef::current(at(format!("key-{n}"))));
    let versions = (0..3).map(|n| RemoteRef::version(at(format!("key-{n}")), "AWSPREVIOUS"));
    let tags = (0..4).map(|n| RemoteRef::current(at(format!("key-{n}"))).metadata());
    one.wants = [("s", wants(values.chain(versions).chain(tags)))].into();
    let all = only(store("s", 1, 20), &[one]);
    assert_eq!((all.round.reads, all.round.metadata), (1 + 3, 4));
}

#[test]
fn secondary_store_follows_the_schedule_of_the_primary() {
    let reads = |primary_store| {
        let mut object = object(0, HOUR, primary_store, &[]);
        object.wants = [
            ("batches", wants([RemoteRef::current(at("a"))])),
            (
                "single",
                wants([RemoteRef::current(at("b")), RemoteRef::current(at("c"))]),
            ),
        ]
        .into();
        let stores = [("batches", store("x", 1, 20)), ("single", store("y", 1, 1))].into();
        let all = forecast(&stores, &[object], 10);
        (all["batches"].month.all(), all["single"].month.all())
    };
    assert_eq!(reads("batches"), (720, 1440));
    assert_eq!(reads("single"), (686, 1372));
}

/// The calls of a day by the schedule itself: each refresh of each object, gathered by the moment in which it is due.
fn simulated(store: &Store, objects: &[Object<&'static str>]) -> u64 {
    let at = |seconds: u64| Timestamp::from_second(1_790_000_000 + i64::try_from(seconds).unwrap()).unwrap();
    // everybody has been synced, and the longest interval is over
    let (begin, end) = (at(12 * HOUR), at(36 * HOUR));
    let mut due: BTreeMap<(Timestamp, usize), BTreeSet<&RemoteRef>> = BTreeMap::new();
    for (number, object) in objects.iter().enumerate() {
        let interval = object.interval.unwrap();
        let refresh_schedule =
            RefreshSchedule::new(&store.label, store.members, store.backend.batch, object.batch_key);
        let mut now = at(u64::try_from(number).unwrap());
        for round in 0.. {
            now = schedule::next_refresh(interval, &number.to_string(), round, refresh_schedule, now);
            if now >= end {
                break;
            }
            if now >= begin {
                // who goes by itself meets nobody, even when a clock of milliseconds says so
                let alone = if refresh_schedule == RefreshSchedule::Free {
                    number
                } else {
                    0
                };
                due.entry((now, alone))
                    .or_default()
                    .extend(&object.wants["s"].reads);
            }
        }
    }
    let calls = |reads: &BTreeSet<&RemoteRef>| reads.len().div_ceil(store.backend.batch);
    due.values().map(calls).sum::<usize>().try_into().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn forecast_matches_the_simulated_slots_of_a_day(
        count in 1_usize..600, keys in 1_usize..700, batch in 2_usize..21,
        hours in prop::collection::vec(prop::sample::select(vec![1_u64, 2, 3, 4, 6]), 1..3),
    ) {
        let objects: Vec<_> = (0..count)
            .map(|n| {
                let reads = [format!("key-{}", (n * 7) % keys), format!("key-{}", (n * 13) % keys)];
                object(n, hours[n % hours.len()] * HOUR, "s", &reads)
            })
            .collect();
        let store = store("SecretStore/shop/aws", count, batch);
        let foretold = only(store.clone(), &objects).month.a_day().all();
        prop_assert_eq!(foretold, simulated(&store, &objects));
    }

    #[test]
    fn forecast_with_jitter_is_off_by_few_calls(count in 100_usize..300, minutes in 5_u64..61) {
        let objects: Vec<_> = (0..count).map(|n| object(n, minutes * 60, "s", &["key".into()])).collect();
        let store = store("SecretStore/shop/vault", count, 1);
        let foretold = only(store.clone(), &objects).month.a_day().all();
        let simulated = simulated(&store, &objects);
        // the day begins and ends somewhere in the interval of each object
        let slack = u64::try_from(count).unwrap() / 4 + foretold / 100;
        prop_assert!(foretold.abs_diff(simulated) <= slack, "{foretold} and {simulated}");
    }
}

#[test]
fn forecast_depends_little_on_uids() {
    // the uid is the cluster's to give: whichever it gives, a thousand objects need about as many calls
    let calls: Vec<u64> = (0..20)
        .map(|seed| {
            let objects: Vec<_> = (0..1000)
                .map(|n| object(n + seed * 1000, HOUR, "s", &[format!("key-{n}")]))
                .collect();
            only(store("s", 1000, 20), &objects).round.all()
        })
        .collect();
    // 1,000 keys in 10 turns: 50 calls at least, and one that is not full in each turn at most
    assert!(calls.iter().all(|calls| (50..=60).contains(calls)), "{calls:?}");
}
