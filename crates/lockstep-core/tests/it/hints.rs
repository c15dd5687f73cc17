//! Messages of queues: in whatever order messages, syncs, failures and restarts come, no hint is lost.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_core::hints::{Hints, Most, PER_MESSAGE, PER_OBJECT};
use proptest::prelude::*;

const OBJECTS: u8 = 4;

#[derive(Debug, Clone)]
enum Step {
    /// A value changes at its source, and the queue holds a message of it.
    Change { object: u8, also: Option<u8> },
    /// The queue gives out the message, which it may have given out before.
    Deliver(usize),
    /// The object's sync begins, if it was woken and none is under way.
    Begin(u8),
    /// It ends; what it read is written, or not.
    End { object: u8, written: bool },
    /// The operator is gone, and with it all that it remembered.
    Restart,
    /// What is dealt with is acknowledged; the queue may lose the word of it.
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

/// A queue, a source and an operator, as far as hints are concerned.
struct World {
    hints: Hints<(), u8>,
    /// Messages by number: whom each concerns.
    queue: BTreeMap<usize, BTreeSet<u8>>,
    sent: usize,
    /// What the source holds, and what is written.
    source: [u32; OBJECTS as usize],
    written: [u32; OBJECTS as usize],
    /// Whom a wake has reached.
    woken: BTreeSet<u8>,
    /// What the sync under way has read.
    running: BTreeMap<u8, u32>,
    delivered: usize,
}

/// So many messages, or what they take where each is for one object.
fn bounds(most: usize) -> Most {
    Most {
        messages: most,
        bytes: most * (PER_MESSAGE + PER_OBJECT + 8),
    }
}

impl World {
    fn new(most: usize) -> Self {
        Self {
            hints: Hints::new(bounds(most), |()| None),
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
            .hints
            .take_in(&(), &number.to_string(), &receipt, None, objects);
        self.woken.extend(woken);
    }

    fn begin(&mut self, object: u8) {
        if !self.running.contains_key(&object) && self.woken.remove(&object) {
            self.hints.begin(&object);
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
            // it is tried again
            self.woken.insert(object);
        }
        self.hints.end(&object, written);
    }

    fn acknowledge(&mut self, arrives: bool) {
        for receipt in self.hints.take_done(&(), usize::MAX) {
            if arrives {
                let number = receipt.split(' ').next().unwrap().parse().unwrap();
                self.queue.remove(&number);
            }
        }
    }

    fn restart(&mut self, most: usize) {
        self.hints = Hints::new(bounds(most), |()| None);
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

    /// What is not written yet is still in the queue: nothing but it would tell.
    fn check(&self) {
        for object in 0..OBJECTS {
            let index = usize::from(object);
            let told = self.queue.values().any(|objects| objects.contains(&object));
            assert!(
                self.written[index] == self.source[index] || told,
                "object {object} holds {} of {}, and no message is left",
                self.written[index],
                self.source[index]
            );
        }
    }

    /// Everything works from here on.
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
    fn no_message_is_acknowledged_before_what_it_told_of_is_written(
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
        prop_assert!(world.queue.is_empty(), "{:?} never went", world.queue);
        prop_assert!(world.hints.is_empty());
    }
}
