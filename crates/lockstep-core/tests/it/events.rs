//! No change is lost, in whatever order messages, syncs, failures and restarts happen.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_core::events::{Capacity, MESSAGE_BYTES, OBJECT_BYTES, PendingMessages};
use proptest::prelude::*;

const OBJECTS: u8 = 4;

#[derive(Debug, Clone)]
enum Step {
    /// A value changes at its source, and the queue holds a message of it.
    Change { object: u8, also: Option<u8> },
    /// The queue delivers a message, possibly again.
    Deliver(usize),
    /// The object's sync begins, if it was woken and none is running.
    Begin(u8),
    /// The sync ends. Its values are written, or the write fails.
    End { object: u8, written: bool },
    /// The operator restarts without its memory.
    Restart,
    /// The operator acknowledges messages. The queue may lose the acknowledgement.
    Acknowledge { arrives: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let object = 0..OBJECTS;
    prop_oneof![
        (object.clone(), proptest::option::of(object.clone()))
            .prop_map(|(object, also)| Step::Change { object, also }),
        (0..64_usize).prop_map(Step::Deliver),
        object.clone().prop_map(Step::Begin),
        (object, any::<bool>()).prop_map(|(object, written)| Step::End { object, written }),
        Just(Step::Restart),
        any::<bool>().prop_map(|arrives| Step::Acknowledge { arrives }),
    ]
}

/// A queue, a source and the operator's pending messages.
struct World {
    pending: PendingMessages<(), u8>,
    /// The objects that each message concerns, by number.
    queue: BTreeMap<usize, BTreeSet<u8>>,
    sent: usize,
    /// The value of each object at the source, and in its Secret.
    source: [u32; OBJECTS as usize],
    written: [u32; OBJECTS as usize],
    /// The objects that were woken.
    woken: BTreeSet<u8>,
    /// The value that each running sync has read.
    running: BTreeMap<u8, u32>,
    delivered: usize,
}

/// Room for this many messages about one object each.
fn capacity(most: usize) -> Capacity {
    Capacity {
        messages: most,
        bytes: most * (MESSAGE_BYTES + OBJECT_BYTES + 8),
    }
}

impl World {
    fn new(most: usize) -> Self {
        Self {
            pending: PendingMessages::new(capacity(most), |()| None),
            queue: BTreeMap::new(),
            sent: 0,
            source: [0; OBJECTS as usize],
            written: [0; OBJECTS as usize],
            woken: BTreeSet::new(),
            running: BTreeMap::new(),
            delivered: 0,
        }
    }

    fn deliver(&mut self, number: usize) {
        let objects = self.queue[&number].clone();
        self.delivered += 1;
        let receipt = format!("{number} {}", self.delivered);
        let woken = self
            .pending
            .add(&(), &number.to_string(), &receipt, None, objects);
        self.woken.extend(woken);
    }

    fn begin(&mut self, object: u8) {
        if !self.running.contains_key(&object) && self.woken.remove(&object) {
            self.pending.begin(&object);
            self.running.insert(object, self.source[usize::from(object)]);
        }
    }

    fn end(&mut self, object: u8, written: bool) {
        let Some(read) = self.running.remove(&object) else {
            return;
        };
        if written {
            self.written[usize::from(object)] = read;
        } else {
            self.woken.insert(object);
        }
        self.pending.end(&object, written);
    }

    fn acknowledge(&mut self, arrives: bool) {
        for receipt in self.pending.take_receipts(&(), usize::MAX) {
            if arrives {
                let number = receipt.split(' ').next().unwrap().parse().unwrap();
                self.queue.remove(&number);
            }
        }
    }

    fn restart(&mut self, most: usize) {
        self.pending = PendingMessages::new(capacity(most), |()| None);
        self.woken.clear();
        self.running.clear();
    }

    fn run(&mut self, step: &Step, most: usize) {
        match *step {
            Step::Change { object, also } => {
                let objects: BTreeSet<u8> = [Some(object), also].into_iter().flatten().collect();
                for object in &objects {
                    self.source[usize::from(*object)] += 1;
                }
                self.queue.insert(self.sent, objects);
                self.sent += 1;
            }
            Step::Deliver(which) => {
                let waiting: Vec<usize> = self.queue.keys().copied().collect();
                if let Some(number) = waiting.get(which % waiting.len().max(1)) {
                    self.deliver(*number);
                }
            }
            Step::Begin(object) => self.begin(object),
            Step::End { object, written } => self.end(object, written),
            Step::Restart => self.restart(most),
            Step::Acknowledge { arrives } => self.acknowledge(arrives),
        }
    }

    /// Checks that a message is left for every value that is not written.
    fn check(&self) {
        for object in 0..OBJECTS {
            let index = usize::from(object);
            let is_queued = self.queue.values().any(|objects| objects.contains(&object));
            assert!(
                self.written[index] == self.source[index] || is_queued,
                "object {object} holds {} of {}, and no message is left",
                self.written[index],
                self.source[index]
            );
        }
    }

    /// Runs until everything is written, without failures.
    fn settle(&mut self) {
        for object in 0..OBJECTS {
            self.end(object, true);
        }
        for _ in 0..2 {
            for number in self.queue.keys().copied().collect::<Vec<_>>() {
                if self.queue.contains_key(&number) {
                    self.deliver(number);
                }
                for object in 0..OBJECTS {
                    self.begin(object);
                    self.end(object, true);
                }
                self.acknowledge(true);
            }
        }
    }
}

proptest! {
    #[test]
    fn message_is_acknowledged_after_its_value_is_written(
        steps in proptest::collection::vec(step(), 0..120),
        most in 1..6_usize,
    ) {
        let mut world = World::new(most);
        for step in &steps {
            world.run(step, most);
            world.check();
        }
        world.settle();
        prop_assert_eq!(world.source, world.written);
        prop_assert!(world.queue.is_empty(), "{:?} not acknowledged", world.queue);
        prop_assert!(world.pending.is_empty());
    }
}
