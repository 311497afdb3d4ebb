//! Values at random, written in every way the protocol has for them.

use celeryscope_core::Limits;
use celeryscope_core::wire::resp::{Bulk, Command, Item, ReplyDecoder, RequestDecoder, Value};
use proptest::prelude::*;

use crate::support::Feed;

/// How a value is written.
#[derive(Clone, Copy, Debug)]
enum Style {
    /// With its length first.
    Plain,
    /// Aggregates and strings without a length, in pieces.
    Streamed,
    /// With an attribute before each value.
    Attributes,
}

fn write(value: &Value<'_>, style: Style, out: &mut Vec<u8>) {
    if let Style::Attributes = style {
        out.extend_from_slice(b"|1\r\n+ttl\r\n*2\r\n:3600\r\n$3\r\n\r\n$\r\n");
    }
    match value {
        Value::Simple(text) => line(b"+", text, out),
        Value::Error(text) => line(b"-", text, out),
        Value::Int(n) => line(b":", n.to_string().as_bytes(), out),
        Value::Null => line(b"_", b"", out),
        Value::Double(d) => line(b",", d.to_string().as_bytes(), out),
        Value::Bool(b) => line(b"#", if *b { b"t" } else { b"f" }, out),
        Value::Big(digits) => line(b"(", digits, out),
        Value::Bulk(bulk) => string(b"$", bulk.whole().expect("whole"), style, out),
        Value::Verbatim(bulk) => string(b"=", bulk.whole().expect("whole"), Style::Plain, out),
        Value::Array(values) => aggregate(b"*", values, 1, style, out),
        Value::Push(values) => aggregate(b">", values, 1, style, out),
        Value::Set(values) => aggregate(b"~", values, 1, style, out),
        Value::Map(values) => aggregate(b"%", values, 2, style, out),
        Value::TooDeep => unreachable!("is not written"),
    }
}

fn line(mark: &[u8], text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(mark);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn string(mark: &[u8], text: &[u8], style: Style, out: &mut Vec<u8>) {
    if let Style::Streamed = style {
        line(mark, b"?", out);
        for piece in text.chunks(3) {
            string(b";", piece, Style::Plain, out);
        }
        line(b";", b"0", out);
    } else {
        line(mark, text.len().to_string().as_bytes(), out);
        line(b"", text, out);
    }
}

fn aggregate(mark: &[u8], values: &[Value<'_>], per_count: usize, style: Style, out: &mut Vec<u8>) {
    let streamed = matches!(style, Style::Streamed);
    let count = (values.len() / per_count).to_string();
    line(mark, if streamed { b"?" } else { count.as_bytes() }, out);
    for value in values {
        write(value, style, out);
    }
    if streamed {
        line(b".", b"", out);
    }
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(
        any::<u8>().prop_map(|b| if b == b'\r' { b'\n' } else { b }),
        0..20,
    )
}

fn bytes() -> impl Strategy<Value = Bulk<'static>> {
    let chance = prop::collection::vec(any::<u8>(), 0..40);
    let resp = Just(b"*3\r\n$5\r\nLPUSH\r\n$1\r\na\r\n$1\r\nb\r\n".to_vec());
    prop_oneof![4 => chance, 1 => resp].prop_map(|bytes| Bulk::from(&bytes[..]).into_owned())
}

fn tree() -> impl Strategy<Value = Value<'static>> {
    let leaf = prop_oneof![
        text().prop_map(|text| Value::Simple(text.into())),
        text().prop_map(|text| Value::Error(text.into())),
        any::<i64>().prop_map(Value::Int),
        Just(Value::Null),
        (any::<i32>(), 0..9_i32).prop_map(|(n, e)| Value::Double(f64::from(n) / 2_f64.powi(e))),
        any::<bool>().prop_map(Value::Bool),
        "[+-]?[0-9]{1,24}".prop_map(|digits| Value::Big(digits.into_bytes().into())),
        bytes().prop_map(Value::Bulk),
        bytes().prop_map(Value::Verbatim),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let values = prop::collection::vec(inner, 0..6);
        prop_oneof![
            values.clone().prop_map(Value::Array),
            values.clone().prop_map(Value::Push),
            values.clone().prop_map(Value::Set),
            values.prop_map(|mut v| {
                v.truncate(v.len() / 2 * 2);
                Value::Map(v)
            }),
        ]
    })
}

fn style() -> impl Strategy<Value = Style> {
    prop_oneof![Just(Style::Plain), Just(Style::Streamed), Just(Style::Attributes)]
}

/// Feeds `stream` in pieces whose sizes are taken from `cuts` in turn.
fn feed_cut(stream: &[u8], cuts: &[usize], limits: &Limits) -> Feed<ReplyDecoder> {
    let mut feed = Feed::new(limits);
    let mut rest = stream;
    for size in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*size).min(rest.len()));
        feed.bytes(piece, rest.len() == stream.len());
        rest = after;
    }
    feed.check_balance();
    feed
}

proptest! {
    /// Scenario: replies of random trees, in every style, cut at random.
    /// Guarantees: the same trees come out, and nothing else.
    #[test]
    fn round_trip(
        values in prop::collection::vec((tree(), style()), 1..5),
        cuts in prop::collection::vec(1..50_usize, 1..10),
    ) {
        let mut stream = Vec::new();
        for (value, style) in &values {
            write(value, *style, &mut stream);
        }
        let feed = feed_cut(&stream, &cuts, &Limits::default());
        let got: Vec<Value<'_>> = feed.items.into_iter().map(|(_, item)| item.value).collect();
        let want: Vec<Value<'_>> = values.into_iter().map(|(value, _)| value).collect();
        prop_assert_eq!(got, want);
        prop_assert_eq!(feed.decoder.pending(), 0);
    }

    /// Scenario: the same with limits that the trees exceed.
    /// Guarantees: as many replies, each with its true length; what is kept is a prefix of what there was, and a reply that
    /// is not flagged is whole.
    #[test]
    fn limits_only_take_away(
        values in prop::collection::vec(tree(), 1..5),
        cuts in prop::collection::vec(1..50_usize, 1..10),
        elements in 0..12_usize,
        depth in 0..4_usize,
        bulk in 0..30_usize,
    ) {
        let limits = Limits { elements, depth, bulk: bulk.max(25), bulk_edge: bulk / 3, ..Limits::default() };
        let mut stream = Vec::new();
        let mut ends = Vec::new();
        for value in &values {
            write(value, Style::Attributes, &mut stream);
            ends.push(stream.len() as u64);
        }
        let feed = feed_cut(&stream, &cuts, &limits);
        prop_assert_eq!(feed.items.iter().map(|(end, _)| *end).collect::<Vec<_>>(), ends);
        for ((_, item), want) in feed.items.iter().zip(&values) {
            prop_assert!(is_less(&item.value, want), "{:?} is not less than {:?}", item.value, want);
            prop_assert!(item.truncated || item.value == *want);
        }
    }

    /// Scenario: commands with arguments of any bytes, cut at random.
    /// Guarantees: the same commands come out.
    #[test]
    fn commands(
        commands in prop::collection::vec(prop::collection::vec(bytes(), 1..8), 1..6),
        size in 1..60_usize,
    ) {
        let mut stream = Vec::new();
        for args in &commands {
            line(b"*", args.len().to_string().as_bytes(), &mut stream);
            for arg in args {
                string(b"$", arg.whole().expect("whole"), Style::Plain, &mut stream);
            }
        }
        let mut feed = Feed::<RequestDecoder>::new(&Limits::default());
        for (i, piece) in stream.chunks(size).enumerate() {
            feed.bytes(piece, i == 0);
        }
        feed.check_balance();
        let args = |item: Item<Command<'static>>| item.value.args.into_vec();
        let got: Vec<Vec<Bulk<'_>>> = feed.items.into_iter().map(|(_, item)| args(item)).collect();
        prop_assert_eq!(got, commands);
    }
}

/// `a` is `b` with something left out at the places where limits may.
fn is_less(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::TooDeep, b) => b.elements().is_some(),
        (Value::Bulk(a), Value::Bulk(b)) | (Value::Verbatim(a), Value::Verbatim(b)) => {
            let all = b.whole().expect("whole");
            a.len() == b.len() && all.starts_with(a.head()) && all.ends_with(a.tail())
        }
        (Value::Simple(a), Value::Simple(b))
        | (Value::Error(a), Value::Error(b))
        | (Value::Big(a), Value::Big(b)) => b.starts_with(a),
        _ => match (a.elements(), b.elements()) {
            (Some(x), Some(y)) => {
                std::mem::discriminant(a) == std::mem::discriminant(b)
                    && x.len() <= y.len()
                    && x.iter().zip(y).all(|(x, y)| is_less(x, y))
            }
            _ => a == b,
        },
    }
}
