use std::time::Duration;

use proptest::prelude::*;

use super::{super::capacity::receipt_size, *};

const CAPACITY: Capacity = Capacity {
    messages: 10,
    bytes: 100_000,
};

/// Returns the namespace of a store: its name up to a slash.
fn namespace<'a>(store: &'a &'static str) -> Option<&'a str> {
    store.split('/').next()
}

type Plain = PendingMessages<&'static str, &'static str>;

fn pending() -> Plain {
    PendingMessages::new(CAPACITY, namespace)
}

fn set<const N: usize>(objects: [&'static str; N]) -> BTreeSet<&'static str> {
    BTreeSet::from(objects)
}

fn add_message<const N: usize>(pending: &mut Plain, id: &str, objects: [&'static str; N]) {
    let woken = pending.add(&"aws", id, &format!("receipt of {id}"), None, set(objects));
    assert_eq!(woken, set(objects));
}

#[test]
fn message_that_concerns_no_object_is_acknowledged_at_once() {
    let mut pending = pending();
    add_message(&mut pending, "1", []);
    assert_eq!(pending.take_receipts(&"aws", 10), ["receipt of 1"]);
    assert!(pending.take_receipts(&"aws", 10).is_empty() && pending.is_empty());
}

#[test]
fn message_is_acknowledged_when_its_last_object_settles() {
    let mut pending = pending();
    add_message(&mut pending, "1", ["a", "b"]);
    pending.begin(&"a");
    pending.end(&"a", true);
    assert!(pending.take_receipts(&"aws", 10).is_empty());
    pending.begin(&"b");
    pending.end(&"b", false);
    assert!(pending.take_receipts(&"aws", 10).is_empty(), "the write failed");
    pending.begin(&"b");
    pending.end(&"b", true);
    assert_eq!(pending.take_receipts(&"aws", 10), ["receipt of 1"]);
}

#[test]
fn sync_that_began_before_the_message_does_not_settle_it() {
    let mut pending = pending();
    pending.begin(&"a");
    add_message(&mut pending, "1", ["a"]);
    pending.end(&"a", true);
    assert!(pending.take_receipts(&"aws", 10).is_empty());
}

#[test]
fn repeated_message_wakes_no_object_and_replaces_its_receipt() {
    let mut pending = pending();
    add_message(&mut pending, "1", ["a"]);
    assert_eq!(
        pending.add(&"aws", "1", "another", None, set(["a"])),
        BTreeSet::new()
    );
    assert_eq!(
        pending.add(&"gcp", "1", "of another store", None, set(["a"])),
        set(["a"])
    );
    pending.begin(&"a");
    pending.end(&"a", true);
    assert_eq!(pending.take_receipts(&"aws", 10), ["another"]);
    assert_eq!(pending.take_receipts(&"gcp", 10), ["of another store"]);
}

#[test]
fn oldest_message_of_a_full_store_is_forgotten() {
    let capacity = Capacity {
        messages: 2,
        ..CAPACITY
    };
    let mut pending = Plain::new(capacity, namespace);
    pending.add(&"gcp", "0", "of another store", None, set(["a"]));
    for id in ["1", "2", "3"] {
        add_message(&mut pending, id, ["a"]);
    }
    assert_eq!(pending.len(), 3);
    pending.begin(&"a");
    pending.end(&"a", true);
    assert_eq!(
        pending.take_receipts(&"aws", 10),
        ["receipt of 2", "receipt of 3"]
    );
    assert_eq!(pending.take_receipts(&"gcp", 10), ["of another store"]);
}

#[test]
fn size_is_bounded_and_the_newest_message_is_kept() {
    let capacity = Capacity {
        bytes: 2 * MESSAGE_BYTES + 4 * OBJECT_BYTES,
        ..CAPACITY
    };
    let mut pending = Plain::new(capacity, namespace);
    add_message(&mut pending, "1", ["a"]);
    add_message(&mut pending, "2", ["a", "b"]);
    assert_eq!(pending.len(), 2);
    add_message(&mut pending, "3", ["a", "b"]);
    assert_eq!(pending.len(), 1, "both of the older ones went");
    add_message(&mut pending, "4", ["a", "b", "c", "d", "e"]);
    assert_eq!(pending.len(), 1, "larger than everything, and the only one");
    pending.add(&"aws", "4", &"x".repeat(20 * OBJECT_BYTES), None, set(["a"]));
    add_message(&mut pending, "5", ["a"]);
    assert_eq!(
        pending.len(),
        1,
        "a receipt that was replaced counts as it is now"
    );
    assert!(pending.by_id.contains_key(&("aws", "5".into())));
}

#[test]
fn receipts_are_taken_oldest_first_up_to_the_limit() {
    let mut pending = pending();
    for id in ["1", "2", "3"] {
        add_message(&mut pending, id, []);
    }
    assert_eq!(pending.count_receipts(&"aws"), 3);
    assert_eq!(pending.take_receipts(&"aws", 2), ["receipt of 1", "receipt of 2"]);
    assert_eq!(pending.stores_with_receipts(), ["aws"], "there is more");
    assert_eq!(pending.take_receipts(&"aws", 2), ["receipt of 3"]);
    assert!(pending.stores_with_receipts().is_empty() && pending.count_receipts(&"aws") == 0);
}

#[derive(Debug, Clone)]
enum Step {
    TakeIn {
        store: usize,
        id: u8,
        objects: BTreeSet<&'static str>,
        receipt: usize,
    },
    Begin(usize),
    End(usize, bool),
    Settle(usize),
    Acknowledge(usize),
    Forget(usize),
}

const OBJECTS: [&str; 3] = ["a", "b", "c"];

const STORES: [&str; 3] = ["shop/aws", "shop/gcp", "bank/aws"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let object = 0..OBJECTS.len();
    let take_in = (
        0..STORES.len(),
        0..30_u8,
        prop::collection::btree_set(prop::sample::select(&OBJECTS[..]), 0..=3),
        0..400_usize,
    );
    let take_in = take_in.prop_map(|(store, id, objects, receipt)| Step::TakeIn {
        store,
        id,
        objects,
        receipt,
    });
    let step = prop_oneof![
        8 => take_in,
        2 => object.clone().prop_map(Step::Begin),
        2 => (object.clone(), any::<bool>()).prop_map(|(object, settled)| Step::End(object, settled)),
        1 => object.prop_map(Step::Settle),
        1 => (0..STORES.len()).prop_map(Step::Acknowledge),
        1 => (0..STORES.len()).prop_map(Step::Forget),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn capacity_holds_and_no_namespace_takes_the_share_of_another(steps in steps()) {
        let capacity = Capacity { messages: 5, bytes: 6_000 };
        let mut pending = Plain::new(capacity, namespace);
        let used = |pending: &Plain, name: &str| -> (usize, usize) {
            let stores = pending.by_store.iter().filter(|(store, _)| namespace(store) == Some(name));
            let usages = stores.map(|(_, usage)| (usage.numbers.len() + usage.receipts.len(), usage.bytes));
            usages.fold((0, 0), |(count, bytes), (more, size)| (count + more, bytes + size))
        };
        for step in steps {
            let before = ["shop", "bank"].map(|name| (name, used(&pending, name)));
            let taken_in = match &step {
                Step::TakeIn { store, .. } => namespace(&STORES[*store]),
                _ => None,
            };
            match step {
                Step::TakeIn { store, id, objects, receipt } => {
                    pending.add(&STORES[store], &id.to_string(), &"r".repeat(receipt), None, objects);
                }
                Step::Begin(object) => pending.begin(&OBJECTS[object]),
                Step::End(object, settled) => pending.end(&OBJECTS[object], settled),
                Step::Settle(object) => pending.settle(&OBJECTS[object]),
                Step::Acknowledge(store) => drop(pending.take_receipts(&STORES[store], 3)),
                Step::Forget(store) => pending.forget(&STORES[store]),
            }
            for store in STORES {
                let of_store = || pending.messages.values().filter(|message| message.store == store);
                let (count, bytes) = (of_store().count(), of_store().map(Message::size).sum::<usize>());
                prop_assert!(count <= capacity.messages);
                if let Some(usage) = pending.by_store.get(store) {
                    let receipts: usize = usage.receipts.iter().map(|receipt| receipt_size(receipt)).sum();
                    prop_assert_eq!((usage.numbers.len(), usage.bytes), (count, bytes + receipts));
                } else {
                    prop_assert_eq!(count, 0);
                }
            }
            let all: usize = pending.by_store.values().map(|usage| usage.bytes).sum();
            prop_assert!(all <= capacity.bytes);
            for (name, (count, bytes)) in before {
                if taken_in.is_some_and(|taken_in| taken_in != name) && bytes <= capacity.bytes / 2 {
                    prop_assert_eq!(used(&pending, name), (count, bytes));
                }
            }
            prop_assert_eq!(pending.by_id.len(), pending.messages.len());
            let linked: usize = pending.by_object.values().map(BTreeSet::len).sum();
            let waiting: usize = pending.messages.values().map(|message| message.waits_for.len()).sum();
            prop_assert_eq!(linked, waiting);
        }
    }
}

#[test]
fn refuted_version_is_dropped_and_its_message_stays_pending() {
    let mut pending = pending();
    let at: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    let hint = |version: &str| VersionHint {
        keys: vec!["key".to_owned()],
        version: version.to_owned(),
        read_version: version.to_owned(),
        at: Some(at),
    };
    for id in ["1", "2"] {
        pending.add(&"aws", id, id, Some(hint(id)), set(["a", "b"]));
    }
    let hints = |pending: &Plain, object| {
        pending.version_hints(&object, at, |store, key| (*store, key) == ("aws", "key"))
    };
    let all = hints(&pending, "a");
    let versions: Vec<&str> = all.iter().map(|(.., hint)| hint.version.as_str()).collect();
    assert_eq!(versions, ["2", "1"]);
    pending.refute(all[1].0);
    for object in ["a", "b"] {
        assert_eq!(hints(&pending, object), [all[0].clone()], "for nobody");
    }
    assert_eq!(pending.len(), 2);
    for object in ["a", "b"] {
        pending.begin(&object);
        pending.end(&object, true);
    }
    assert_eq!(pending.take_receipts(&"aws", 10), ["1", "2"]);
}

#[test]
fn hints_are_shared_and_only_the_newest_of_each_value_read() {
    let capacity = Capacity {
        messages: 1_000,
        bytes: usize::MAX,
    };
    let mut pending = Plain::new(capacity, namespace);
    let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    let hint = |number: i64, seconds| VersionHint {
        keys: vec!["key".to_owned(), format!("other {number}")],
        version: number.to_string(),
        read_version: "t".repeat(2_048),
        at: Some(now + Duration::from_secs(seconds)),
    };
    // messages of another day leave no true message out
    for number in 0..300 {
        let seconds = match number % 3 {
            0 => u64::try_from(number).unwrap(),
            _ => 86_400,
        };
        let id = number.to_string();
        pending.add(&"aws", &id, &id, Some(hint(number, seconds)), set(["a", "b"]));
    }
    let hints = |object| pending.version_hints(&object, now, |store, key| (*store, key) == ("aws", "key"));
    let first = hints("a");
    let versions: Vec<&str> = first.iter().map(|(.., hint)| &*hint.version).collect();
    assert_eq!(versions, ["297", "294", "291", "288", "285"]);
    assert_eq!(versions.len(), MAX_CONFIRMED + 1);
    for ((.., one), (.., other)) in first.iter().zip(&hints("b")) {
        assert!(Arc::ptr_eq(one, other));
    }
    assert!(pending.version_hints(&"a", now, |_, _| false).is_empty());
}

#[test]
fn wake_time_is_known_until_a_later_sync_settles() {
    let mut pending = pending();
    let first = Instant::now();
    let second = first + Duration::from_secs(1);
    assert_eq!(pending.woken_at(&"a"), None);
    pending.begin(&"a");
    pending.wake(&set(["a", "b"]), first);
    pending.end(&"a", true);
    assert_eq!(pending.woken_at(&"a"), Some(first), "that sync began before");
    pending.begin(&"a");
    pending.end(&"a", false);
    assert_eq!(pending.woken_at(&"a"), Some(first), "it is tried again");
    pending.begin(&"a");
    pending.wake(&set(["a"]), second);
    pending.end(&"a", true);
    assert_eq!(pending.woken_at(&"a"), Some(second), "it was woken meanwhile");
    pending.begin(&"a");
    pending.end(&"a", true);
    assert_eq!(pending.woken_at(&"a"), None);
    pending.settle(&"b");
    assert!(pending.woken.is_empty());
}

#[test]
fn deleted_objects_and_stores_hold_no_message() {
    let mut pending = pending();
    add_message(&mut pending, "1", ["a"]);
    pending.settle(&"a");
    assert_eq!(pending.stores_with_receipts(), ["aws"]);
    add_message(&mut pending, "2", ["a"]);
    pending.forget(&"aws");
    assert!(pending.is_empty() && pending.take_receipts(&"aws", 10).is_empty());
    assert!(pending.by_object.is_empty() && pending.by_id.is_empty());
}
