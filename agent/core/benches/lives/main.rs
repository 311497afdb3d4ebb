//! Whole lives of tasks, from publish to the end of the run, through the whole core: records in, spans out.
//!
//! The records lie in memory as they do in the ring and are read from there, as the agent reads them.
//!
//! Ordinary tasks with results on the prefork pool, as they were recorded: the run is fed once, and then the stretch of it
//! in which the tasks are sent and run is repeated on the same connections and in the same processes, with other ids, later
//! times, and numbers that go on (`repeat.rs`). So it is a worker at work that is measured, not programs that connect. Of
//! RabbitMQ that stretch has one queue.declare too few for its five tasks: the first stands before it.
//!
//! `flat/N` is what the next tasks take when N were done before in the same pipeline. Its records are made on the way;
//! `flat/records` is what that takes by itself.
//!
//! `--instructions BROKER PREPARED FED` measures nothing: it prepares so many tasks, feeds so many of them, and ends. Run
//! twice by a program that counts instructions (`cargo xtask bench` does), the difference is that of the tasks alone.

mod amqp;
mod player;
mod repeat;
mod ring;
#[path = "../../../../tests/support/mod.rs"]
mod support;
mod window;

use std::env;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, SamplingMode, Throughput};
use player::Player;
use repeat::Repeats;
use ring::Ring;
use window::Window;

/// The agent's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tasks prepared for the throughput of each broker.
const LIVES: u64 = 2000;
/// How many tasks were done before.
const DONE: [u64; 4] = [1000, 10_000, 100_000, 1_000_000];
/// Tasks that are measured at once where more were done than ten times as many.
const MOST_AT_ONCE: u64 = 10_000;

fn repeats(broker: &str) -> Repeats {
    Repeats::new(Window::of(&format!("{broker}-simple")))
}

fn lives(c: &mut Criterion) {
    let mut group = c.benchmark_group("lives");
    group.sample_size(20);
    for broker in ["redis", "rabbitmq"] {
        let mut repeats = repeats(broker);
        let records = repeats.prepared(LIVES);
        let start = || Player::after(repeats.before());
        let mut player = start();
        player.play(&records);
        player.check(repeats.so_far());

        group.throughput(Throughput::ElementsAndBytes {
            elements: LIVES,
            bytes: records.payload(),
        });
        group.bench_function(broker, |b| {
            b.iter_batched_ref(start, |player| player.play(&records), BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// All in one pipeline, which is brought to where the next figure begins when its turn comes.
fn flat(c: &mut Criterion, done: &[u64]) {
    let mut repeats = repeats("redis");
    let mut player = Player::after(repeats.before());
    let mut group = c.benchmark_group("lives/flat");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    // One iteration: what warms up also adds to the tasks that were done.
    group.warm_up_time(Duration::from_nanos(1));
    for done in done {
        let tasks = (done / 10).min(MOST_AT_ONCE);
        group.throughput(Throughput::Elements(tasks));
        group.measurement_time(Duration::from_micros(30 * 10) * tasks as u32);
        group.bench_function(done.to_string(), |b| {
            let missing = done.saturating_sub(repeats.so_far());
            player.repeat(&mut repeats, missing);
            b.iter_custom(|iterations| {
                let start = Instant::now();
                player.repeat(&mut repeats, iterations * tasks);
                start.elapsed()
            });
        });
        player.check(repeats.so_far());
    }
    group.throughput(Throughput::Elements(LIVES));
    group.measurement_time(Duration::from_secs(1));
    group.bench_function("records", |b| {
        b.iter(|| {
            for _ in 0..LIVES / repeats.tasks() {
                repeats.next(|record| _ = black_box(record));
            }
        });
    });
    group.finish();
}

/// Work to count the instructions of.
fn instructions(broker: &str, prepared: u64, fed: u64) {
    let mut repeats = repeats(broker);
    let parts: Vec<Ring> = [fed, prepared - fed]
        .into_iter()
        .map(|tasks| repeats.prepared(tasks))
        .collect();
    let mut player = Player::after(repeats.before());
    player.play(&parts[0]);
    player.check(repeats.tasks() + fed);
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [mode, broker, prepared, fed] = &arguments[..]
        && mode == "--instructions"
    {
        let number = |text: &str| text.parse().expect("a number of tasks");
        return instructions(broker, number(prepared), number(fed));
    }
    let mut criterion = Criterion::default().configure_from_args();
    lives(&mut criterion);
    // `cargo test` only tries the benches.
    let measured = arguments.iter().any(|argument| argument == "--bench");
    flat(&mut criterion, if measured { &DONE } else { &DONE[..1] });
    criterion.final_summary();
}
