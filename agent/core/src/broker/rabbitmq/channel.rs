//! One channel: the content that is under way in each direction, and the numbers of what is unconfirmed and unacked.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use super::content::Content;
use crate::bounded::Bounded;

/// Numbers remembered of one channel; beyond it the oldest are forgotten.
const KEPT: usize = 65_536;
/// Channels followed of one connection.
const CHANNELS: usize = 256;
/// Consumers remembered of one connection.
const CONSUMERS: usize = 1024;

/// Numbers or tokens, mostly one.
pub(super) type Few = SmallVec<[u64; 2]>;

/// A channel.
#[derive(Debug, Default)]
pub(super) struct Channel {
    sending: Option<Content>,
    receiving: Option<Content>,
    confirms: Confirms,
    /// Publishes that wait for their confirm: number to token.
    unconfirmed: BTreeMap<u64, u64>,
    /// Deliveries that wait for their ack.
    unacked: BTreeSet<u64>,
    /// Queue of the consumer that the client started without a name, until the broker gives it one.
    unnamed: Option<String>,
    /// Queue that a single message was last asked of.
    pub(super) getting: Option<String>,
}

/// What numbers the publishes of a channel.
#[derive(Clone, Copy, Debug, Default)]
enum Confirms {
    /// Nothing: they are not confirmed.
    #[default]
    Off,
    /// Every one since confirms were selected was seen; the last has this number.
    Counted(u64),
    /// Some may have been missed. Selecting once more does not begin anew.
    Lost,
}

impl Channel {
    /// What is under way in a direction.
    pub(super) fn content(&mut self, sending: bool) -> &mut Option<Content> {
        if sending {
            &mut self.sending
        } else {
            &mut self.receiving
        }
    }

    /// Confirms are on from here.
    pub(super) fn select_confirms(&mut self) {
        if matches!(self.confirms, Confirms::Off) {
            self.confirms = Confirms::Counted(0);
        }
    }

    /// The next publish's number, where the broker will confirm it.
    pub(super) fn next_confirm(&mut self) -> Option<u64> {
        let Confirms::Counted(last) = &mut self.confirms else {
            return None;
        };
        *last = last.saturating_add(1);
        Some(*last)
    }

    /// Publishes may have been missed: which number the next has is not known any more. Gives the tokens of those whose
    /// confirm could now be taken for another's.
    pub(super) fn lose_count(&mut self) -> Vec<u64> {
        if matches!(self.confirms, Confirms::Counted(_)) {
            self.confirms = Confirms::Lost;
        }
        self.unconfirmed()
    }

    /// Gives the token of the publish that had to be forgotten for this one.
    pub(super) fn await_confirm(&mut self, number: u64, token: u64) -> Option<u64> {
        self.unconfirmed.insert(number, token);
        if self.unconfirmed.len() > KEPT {
            return self.unconfirmed.pop_first().map(|(_, token)| token);
        }
        None
    }

    /// Tokens of the publishes that a confirm answers.
    pub(super) fn confirmed(&mut self, number: u64, multiple: bool) -> Few {
        if !multiple {
            return self.unconfirmed.remove(&number).into_iter().collect();
        }
        let numbers: Vec<u64> = self
            .unconfirmed
            .range(..=up_to(number))
            .map(|(number, _)| *number)
            .collect();
        numbers
            .iter()
            .filter_map(|number| self.unconfirmed.remove(number))
            .collect()
    }

    /// Tokens of all publishes that no confirm will answer any more.
    pub(super) fn unconfirmed(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.unconfirmed).into_values().collect()
    }

    /// Tells whether another had to be forgotten for it.
    pub(super) fn await_ack(&mut self, number: u64) -> bool {
        self.unacked.insert(number);
        self.unacked.len() > KEPT && self.unacked.pop_first().is_some()
    }

    /// Forgets the messages whose frames are coming in; tells how many.
    pub(super) fn drop_contents(&mut self) -> u64 {
        let contents = [self.sending.take(), self.receiving.take()];
        contents.iter().flatten().count() as u64
    }

    /// Numbers of the deliveries that an ack or reject is about.
    pub(super) fn acked(&mut self, number: u64, multiple: bool) -> Few {
        let numbers: Few = if multiple {
            self.unacked.range(..=up_to(number)).copied().collect()
        } else {
            Few::from_iter([number])
        };
        for number in &numbers {
            self.unacked.remove(number);
        }
        numbers
    }

    /// Numbers of all deliveries that were not acked; they are forgotten.
    pub(super) fn recovered(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.unacked)
    }
}

/// The last number that one with `multiple` is about: 0 stands for all.
fn up_to(number: u64) -> u64 {
    if number == 0 { u64::MAX } else { number }
}

/// The channels of a connection, capped.
#[derive(Debug)]
pub(super) struct Channels {
    open: Bounded<u16, Channel>,
    /// Queue of each consumer, by channel and consumer tag.
    consumers: Bounded<(u16, String), String>,
    /// Some message's frames may be coming in.
    pub(super) content: bool,
    /// Channels forgotten to make room.
    pub(super) evicted: u64,
    /// Consumers forgotten to make room.
    pub(super) consumers_evicted: u64,
}

impl Default for Channels {
    fn default() -> Self {
        Self {
            open: Bounded::new(CHANNELS),
            consumers: Bounded::new(CONSUMERS),
            content: false,
            evicted: 0,
            consumers_evicted: 0,
        }
    }
}

impl Channels {
    /// The channel, and the one that had to be forgotten for it.
    pub(super) fn get(&mut self, number: u16) -> (&mut Channel, Option<Channel>) {
        let (channel, evicted) = self.open.get_or_insert_with(number, Channel::default);
        self.evicted += u64::from(evicted.is_some());
        (channel, evicted.map(|(_, channel)| channel))
    }

    /// The channel, if anything is known of it.
    pub(super) fn known(&mut self, number: u16) -> Option<&mut Channel> {
        self.open.get_mut(&number)
    }

    pub(super) fn remove(&mut self, number: u16) -> Option<Channel> {
        self.open.remove(&number)
    }

    /// All are closed.
    pub(super) fn forget(&mut self) {
        *self = Self {
            evicted: self.evicted,
            consumers_evicted: self.consumers_evicted,
            ..Self::default()
        };
    }

    /// The client consumes from a queue under this tag, or under one that the broker is about to give.
    pub(super) fn consumes(&mut self, number: u16, consumer_tag: &str, queue: &str) {
        if consumer_tag.is_empty() {
            if let Some(channel) = self.known(number) {
                channel.unnamed = Some(queue.to_owned());
            }
        } else {
            let evicted = self
                .consumers
                .insert((number, consumer_tag.to_owned()), queue.to_owned());
            self.consumers_evicted += u64::from(evicted.is_some());
        }
    }

    /// The broker has named a consumer.
    pub(super) fn named(&mut self, number: u16, consumer_tag: &str) {
        let unnamed = self.known(number).and_then(|channel| channel.unnamed.take());
        if let Some(queue) = unnamed {
            self.consumes(number, consumer_tag, &queue);
        }
    }

    /// Queue of a delivery to this consumer; an empty tag is that of a single message.
    pub(super) fn queue_of(&self, number: u16, consumer_tag: &str) -> Option<&str> {
        let queue = if consumer_tag.is_empty() {
            self.open.get(&number)?.getting.as_ref()
        } else {
            self.consumers.get(&(number, consumer_tag.to_owned()))
        };
        queue.map(String::as_str)
    }

    /// Whether a queue is consumed over the connection.
    pub(super) fn consume(&self) -> bool {
        self.consumers.len() > 0
    }

    /// Channel and number of every delivery that was not acked; they are forgotten.
    pub(super) fn given_back(&mut self) -> Vec<(u16, u64)> {
        let mut numbers: Vec<u16> = self.open.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        let mut all = Vec::new();
        for number in numbers {
            let unacked = self.known(number).map(Channel::recovered).unwrap_or_default();
            all.extend(unacked.into_iter().map(|tag| (number, tag)));
        }
        all
    }

    /// Bytes of memory behind the messages whose frames are coming in.
    pub(super) fn held(&mut self) -> usize {
        if !self.content {
            return 0;
        }
        self.content = false;
        let mut held = 0_usize;
        for (_, channel) in self.open.iter() {
            for content in [&channel.sending, &channel.receiving].into_iter().flatten() {
                self.content = true;
                held = held.saturating_add(content.held());
            }
        }
        held
    }

    /// All channels, by number.
    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Channel> {
        let mut all: Vec<(&u16, &mut Channel)> = self.open.iter_mut().collect();
        all.sort_unstable_by_key(|(number, _)| **number);
        all.into_iter().map(|(_, channel)| channel)
    }
}
