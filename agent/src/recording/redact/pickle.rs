//! Masks the frames on a prefork pool's pipes: pickles of known shape, of which the capture holds the beginning.
//!
//! The walk reads opcodes (CPython's pickletools, protocols 4 and 5) and keeps what it knows to be harmless. From the
//! first thing it does not know, or that is cut, it masks everything.

#[cfg(test)]
mod tests;

use super::MASK;
use super::names::{HEADERS, PROPERTIES, Word};

/// Dictionaries and lists inside each other that are followed.
const DEEPEST: usize = 16;

/// Keys of the request's dictionary, besides the headers and properties, whose values are harmless.
const REQUEST: [&str; 2] = ["hostname", "reply_to"];
/// Keys whose dictionaries are looked into.
const NESTED: [&str; 3] = ["properties", "delivery_info", "headers"];

/// Masks a frame from the main process to a child (`TASK`, see `celery.app.trace`): the listed headers stay, arguments
/// and the message's body go. `start` tells whether `frame` begins where the frame begins.
pub(super) fn mask_task(frame: &mut [u8], start: bool) {
    let kept = if start { Walk::new(frame).task() } else { 0 };
    frame[kept..].fill(MASK);
}

/// Masks a frame from a child (`ACK`, `READY`, …), or its last bytes: outcome, exception class and runtime stay.
pub(super) fn mask_answer(frame: &mut [u8], start: bool, end: bool) {
    let kept = if start { Walk::new(frame).answer() } else { 0 };
    let tail = if end { runtime_tail(&frame[kept..]) } else { 0 };
    let end = frame.len() - tail;
    frame[kept..end].fill(MASK);
}

/// Length of what ends a successful `READY`: `G <f64> 87 94 86 94 <int> t 94 86 94 .`, the runtime and a descriptor.
fn runtime_tail(frame: &[u8]) -> usize {
    [(b'K', 1), (b'M', 2), (b'J', 4)]
        .into_iter()
        .find_map(|(opcode, width)| {
            let length = 1 + 8 + 4 + 1 + width + 5;
            let tail = &frame[frame.len().checked_sub(length)?..];
            let fits = tail[0] == b'G'
                && tail[9..13] == [0x87, 0x94, 0x86, 0x94]
                && tail[13] == opcode
                && tail[length - 5..] == [b't', 0x94, 0x86, 0x94, b'.'];
            fits.then_some(length)
        })
        .unwrap_or(0)
}

/// What an opcode puts on the machine's stack, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Item {
    /// A string: where its bytes lie in the frame.
    Text(usize, usize),
    /// An int, float, bool, None, empty tuple or memo reference: where its operand lies.
    Scalar(usize, usize),
    Mark,
    /// An empty dictionary, to be filled.
    Dict,
    /// An empty list, to be filled.
    List,
    /// `SETITEMS`, `APPENDS`, `TUPLE`: ends what a mark began.
    Close,
    /// `SETITEM`, `APPEND`: ends a container of one.
    CloseOne,
    Memoize,
    /// Protocol, frame, stop, and what makes objects of what is there.
    Other,
}

/// What may be seen of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    All,
    Nothing,
    /// A dictionary's listed keys.
    Listed,
}

struct Walk<'a> {
    frame: &'a mut [u8],
    at: usize,
    /// Only look ahead: hide nothing.
    dry: bool,
    /// The frame's captured part ended where more was needed.
    cut: bool,
}

impl<'a> Walk<'a> {
    fn new(frame: &'a mut [u8]) -> Self {
        Self {
            frame,
            at: 0,
            dry: false,
            cut: false,
        }
    }

    /// The next opcode; None, without moving, where the frame is cut or says something unknown.
    fn next(&mut self) -> Option<Item> {
        let item = self.opcode();
        // The longest opcode that is not a text has eight bytes of operand.
        self.cut |= item.is_none() && self.at + 9 > self.frame.len();
        item
    }

    fn opcode(&mut self) -> Option<Item> {
        let opcode = *self.frame.get(self.at)?;
        let operand = self.at + 1;
        let text =
            |from: usize, length: usize| Some((Item::Text(from, from.checked_add(length)?), from + length));
        let scalar = |width: usize| Some((Item::Scalar(operand, operand + width), operand + width));
        let plain = |item: Item, width: usize| Some((item, operand + width));
        let (item, end) = match opcode {
            0x8c => text(operand + 1, usize::from(*self.frame.get(operand)?)),
            b'X' => {
                let length = self.frame.get(operand..operand + 4)?.try_into().ok()?;
                text(operand + 4, usize::try_from(u32::from_le_bytes(length)).ok()?)
            }
            b'K' | b'h' => scalar(1),
            b'M' => scalar(2),
            b'J' | b'j' => scalar(4),
            b'G' => scalar(8),
            b'N' | 0x88 | 0x89 | b')' => scalar(0),
            b'(' => plain(Item::Mark, 0),
            b'}' => plain(Item::Dict, 0),
            b']' => plain(Item::List, 0),
            b'u' | b'e' | b't' => plain(Item::Close, 0),
            b's' | b'a' => plain(Item::CloseOne, 0),
            0x94 => plain(Item::Memoize, 0),
            0x80 => plain(Item::Other, 1),
            0x95 => plain(Item::Other, 8),
            0x93 | 0x81 | 0x85 | 0x86 | 0x87 | b'.' => plain(Item::Other, 0),
            _ => None,
        }?;
        match item {
            // A text that is cut is still a text, as far as it goes.
            Item::Text(from, _) if end > self.frame.len() && from <= self.frame.len() => {
                self.at = self.frame.len();
                Some(Item::Text(from, self.at))
            }
            _ if end > self.frame.len() => None,
            _ => {
                self.at = end;
                Some(item)
            }
        }
    }

    /// As [`Self::next`], memoize opcodes left out.
    fn item(&mut self) -> Option<Item> {
        loop {
            match self.next()? {
                Item::Memoize => {}
                item => return Some(item),
            }
        }
    }

    fn hide(&mut self, from: usize, to: usize) {
        if !self.dry
            && let Some(bytes) = self.frame.get_mut(from..to)
        {
            bytes.fill(MASK);
        }
    }

    /// Walks `(2, (job, None, fun, (name, id, {request}, body, …)))` to the end of the request; returns how far it
    /// understood what it saw.
    fn task(mut self) -> usize {
        // Module, function, name and id come before the request, nothing else.
        let mut texts = 0;
        let found = loop {
            let before = self.at;
            match self.next() {
                Some(Item::Text(..)) if texts < 4 => texts += 1,
                Some(Item::Mark | Item::Scalar(..) | Item::Memoize | Item::Other) => {}
                item => {
                    self.at = before;
                    break item == Some(Item::Dict);
                }
            }
        };
        if !self
            .frame
            .windows(16)
            .take(64)
            .any(|window| window == b"celery.app.trace")
        {
            return 0;
        }
        if !found {
            return self.at;
        }
        let _ = self.value(Show::Listed, 0);
        self.at
    }

    /// Walks one value; None where it can't be followed to its end.
    fn value(&mut self, show: Show, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        let before = self.at;
        match self.item()? {
            Item::Text(from, to) | Item::Scalar(from, to) => {
                if show != Show::All {
                    self.hide(from, to);
                }
                Some(())
            }
            Item::Dict => self.container(true, show, depth),
            Item::List => self.container(false, show, depth),
            Item::Mark => self.elements(false, show, depth),
            _ => {
                self.at = before;
                None
            }
        }
    }

    /// What follows an empty dictionary or list: nothing, one element, or a mark and many.
    fn container(&mut self, dict: bool, show: Show, depth: usize) -> Option<()> {
        let start = self.at;
        match self.item() {
            Some(Item::Mark) => return self.elements(dict, show, depth),
            _ => self.at = start,
        }
        let was_dry = std::mem::replace(&mut self.dry, true);
        let one = self.element(dict, show, depth).and_then(|()| self.item()) == Some(Item::CloseOne);
        self.dry = was_dry;
        self.at = start;
        if one {
            self.element(dict, show, depth)?;
            self.item()?;
        }
        // Cut, it can't be told from an empty one.
        (one || !self.cut).then_some(())
    }

    /// Elements up to what closes them.
    fn elements(&mut self, dict: bool, show: Show, depth: usize) -> Option<()> {
        loop {
            let before = self.at;
            if self.item() == Some(Item::Close) {
                return Some(());
            }
            self.at = before;
            self.element(dict, show, depth)?;
        }
    }

    fn element(&mut self, dict: bool, show: Show, depth: usize) -> Option<()> {
        if !dict {
            let show = if show == Show::All {
                Show::All
            } else {
                Show::Nothing
            };
            return self.value(show, depth + 1);
        }
        let before = self.at;
        let Some(Item::Text(from, to)) = self.item() else {
            // Keys are strings; a memo reference can't be read here.
            self.at = before;
            return None;
        };
        let mut key = Word::default();
        for byte in self.frame.get(from..to).unwrap_or_default() {
            key.push(*byte);
        }
        let name = key
            .text()
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(byte));
        // Of a header's own dictionary the keys are its value.
        let inside = show == Show::Nothing;
        let show = match show {
            Show::Listed if NESTED.iter().any(|nested| key.is(nested)) => Show::Listed,
            Show::Listed if key.is_in(&HEADERS) || key.is_in(&PROPERTIES) || key.is_in(&REQUEST) => Show::All,
            _ => Show::Nothing,
        };
        if inside || (show == Show::Nothing && !name) {
            self.hide(from, to);
        }
        self.value(show, depth + 1)
    }

    /// Walks a child's frame; returns how far it is harmless.
    fn answer(mut self) -> usize {
        let mut texts = 0;
        let mut ready = false;
        let mut scalars = 0;
        loop {
            let before = self.at;
            match self.next() {
                None => return before,
                // `READY` is type 1; the others hold no text.
                Some(Item::Scalar(from, _)) => {
                    scalars += 1;
                    if scalars == 1 {
                        ready = self.frame.get(from) == Some(&1);
                    }
                }
                Some(Item::Text(from, to)) => {
                    if !ready {
                        return before;
                    }
                    texts += 1;
                    let failure = self
                        .frame
                        .windows(14)
                        .take(64)
                        .any(|window| window == b"billiard.einfo");
                    if !failure {
                        // The representation of the result; its end is known, what follows holds no text.
                        self.hide(from, to);
                        return to;
                    }
                    // "billiard.einfo", "ExceptionInfo", "type", module, class; then message and traceback.
                    if texts == 5 {
                        return to;
                    }
                }
                Some(_) => {}
            }
        }
    }
}
