//! Processes that come and go in any order.

use celeryscope_common::{Header, Kind};
use proptest::prelude::*;

use super::*;

fn described(processes: &mut Processes, pid: u32, leader: u32) -> bool {
    let header = Header {
        pid,
        conn: u64::from(leader),
        ..Header::default()
    };
    processes.describe(&Record::new(Kind::Process, header, &[]))
}

/// What happens to a process, and to which; pids share places.
fn step() -> impl Strategy<Value = (u8, u32, u32)> {
    let pid = || prop_oneof![0..6u32, 64..70u32];
    (0..6u8, pid(), pid())
}

fn take(processes: &mut Processes, (what, one, other): (u8, u32, u32)) -> Option<bool> {
    match what {
        0 => return Some(processes.fork(one, other)),
        1 => processes.exec(one),
        2 => processes.exit(one),
        3 => return Some(described(processes, one, other)),
        _ => return Some(processes.entry(one).1),
    }
    None
}

/// Who leads whom, as the rules have it.
struct Rules {
    table: Bounded<u32, u32>,
    forks: Bounded<u32, u32>,
}

impl Rules {
    fn new() -> Self {
        Self {
            table: Bounded::new(5),
            forks: Bounded::new(5),
        }
    }

    fn leader_of(&self, pid: u32) -> u32 {
        let parent = || self.table.get(self.forks.get(&pid)?);
        *self.table.get(&pid).or_else(parent).unwrap_or(&pid)
    }

    fn take(&mut self, (what, one, other): (u8, u32, u32)) -> Option<bool> {
        match what {
            0 => return Some(self.forks.insert(other, one).is_some()),
            1 => {
                self.forks.remove(&one);
                if let Some(leader) = self.table.get_mut(&one) {
                    *leader = one;
                }
            }
            2 => {
                self.table.remove(&one);
                self.forks.remove(&one);
            }
            _ => {
                let parent = self.forks.remove(&one);
                let led_by = parent.and_then(|parent| self.table.get(&parent)).copied();
                let (leader, evicted) = self.table.get_or_insert_with(one, || led_by.unwrap_or(one));
                if what == 3 {
                    *leader = other;
                }
                return Some(evicted.is_some());
            }
        }
        None
    }
}

/// Nothing is remembered apart any more.
fn forget(processes: &Processes) {
    for recent in &processes.recent {
        recent.set(usize::MAX);
    }
}

proptest! {
    /// Scenario: processes that are forked, told of, heard of, replaced and gone in any order, in tables that are too small.
    /// Guarantees: who leads whom, what is evicted and what is held are the same as without places remembered apart and as by
    /// the rules; places are used again.
    #[test]
    fn remembered_places_change_nothing(steps in prop::collection::vec(step(), 0..80)) {
        let (mut with, mut without) = (Processes::new(5), Processes::new(5));
        let mut rules = Rules::new();
        for step in steps {
            forget(&without);
            let evicted = take(&mut with, step);
            prop_assert_eq!(evicted, take(&mut without, step));
            prop_assert_eq!(evicted, rules.take(step));
            for pid in (0..6).chain(64..70) {
                forget(&without);
                prop_assert_eq!(with.leader_of(pid), without.leader_of(pid));
                prop_assert_eq!(with.leader_of(pid), rules.leader_of(pid));
                prop_assert_eq!(with.get(pid).is_some(), rules.table.contains(&pid));
            }
            prop_assert_eq!(with.held(), without.held());
            prop_assert_eq!(with.held(), (rules.table.len(), rules.forks.len()));
            prop_assert!(with.procs.len() <= 6);
        }
    }
}
