//! `cargo xtask demo`: a small shop without tracing code, and the traces celeryscope makes of it.
//!
//! The broker, the web app and a prefork worker are up *before* the agent: nothing of the application is restarted for it.
//! Everything runs on free ports of the loopback interface in a temporary directory, and is stopped on every way out.

mod agent;
mod broker;
mod shop;
mod traces;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::process::{Interrupt, Interrupted};
use crate::{privilege, setup, util};
use agent::Agent;
use broker::Broker;
use shop::Shop;
use traces::Traces;

/// How long after the last request the spans may take. The slowest task retries after one second.
const SPANS_LIMIT: Duration = Duration::from_secs(20);

/// What the user chose.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What carries the shop's messages; its results are in Redis either way
    #[arg(long, value_enum, default_value_t = Broker::Redis)]
    broker: Broker,
    /// Leave shop and agent running, the tree growing as you send more requests, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Send the spans on to an OTLP endpoint too, for instance http://127.0.0.1:4317
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
}

/// Runs the demo.
///
/// # Errors
/// What could not be started, or that spans are missing: with what was expected and what came.
pub(crate) fn run(args: &Args) -> Result<()> {
    let python = setup::for_demo(args.broker == Broker::Rabbitmq)?;
    privilege::obtain("the agent (it loads BPF programs)")?;
    let binary = agent::build()?;
    let interrupt = Interrupt::install()?;
    let dir = tempfile::Builder::new().prefix("celeryscope-demo-").tempdir()?;

    let shop = Shop::start(args.broker, &python, dir.path(), &interrupt)?;
    let ports = shop.broker_ports();
    let mut agent = Agent::start(&binary, &ports, args.otlp.as_deref(), dir.path(), &interrupt)?;
    let orders = shop.send_requests()?;
    println!();
    let complete = |agent: &mut Agent| -> Result<bool> {
        agent.check_alive()?;
        let traces = Traces::read(agent.spans_file())?;
        Ok(traces.missing(shop::EXPECTED_RUNS).is_empty())
    };
    interrupt.wait(SPANS_LIMIT, || complete(&mut agent))?;
    if args.keep {
        invite(&shop);
        until_interrupted(&interrupt, &mut agent)?;
    }
    let end = agent.stop();
    drop(shop);

    report(&end, &orders)?;
    next_steps(&binary, args);
    Ok(())
}

fn until_interrupted(interrupt: &Interrupt, agent: &mut Agent) -> Result<()> {
    match interrupt.wait(Duration::MAX, || agent.check_alive().map(|()| false)) {
        Err(error) if !error.is::<Interrupted>() => Err(error),
        _ => Ok(()),
    }
}

/// Prints the summary line and fails when the traces are not what the requests must lead to.
fn report(end: &agent::End, orders: &[String]) -> Result<()> {
    let traces = Traces::read(&end.spans_file)?;
    let drops = match &end.losses {
        Some(losses) => format!("{} records and {} spans dropped", losses.records, losses.spans),
        None => "drops unknown".to_owned(),
    };
    println!();
    println!(
        "{} tasks seen, {} spans in {} traces, {drops}",
        traces.tasks(),
        traces.spans(),
        traces.traces()
    );
    if traces.spans() == 0 {
        bail!(
            "no spans came: `celeryscope doctor` tells what this kernel allows{}",
            end.log_end
        );
    }
    let missing = traces.missing(shop::EXPECTED_RUNS);
    if !missing.is_empty() {
        bail!("spans are missing: {}{}", missing.join(", "), end.log_end);
    }
    let undelivered = end
        .losses
        .as_ref()
        .map_or(0, |losses| losses.spans + losses.undelivered);
    if undelivered > 0 {
        bail!("{undelivered} spans could not be delivered{}", end.log_end);
    }
    orders.iter().try_for_each(|order| traces.check_order(order))
}

fn invite(shop: &Shop) {
    println!();
    util::say(
        "running",
        format!("the shop takes orders at {}; Ctrl-C stops everything", shop.url()),
    );
    println!(
        "  curl -X POST {}/orders --json '{{\"email\": \"you@example.com\", \"items\": [\"tea\"]}}'",
        shop.url()
    );
}

fn next_steps(binary: &Path, args: &Args) {
    println!();
    println!("The shop has no tracing code (see xtask/demo/shop/) and none of it was restarted. Try next:");
    if !args.keep {
        println!(
            "  cargo xtask demo --keep                            leave it running and send it orders yourself"
        );
    }
    if args.broker == Broker::Redis {
        println!(
            "  cargo xtask demo --broker rabbitmq                 the same shop with its messages in RabbitMQ"
        );
    }
    if args.otlp.is_none() {
        println!(
            "  cargo xtask demo --otlp http://127.0.0.1:4317      see the same traces in your own backend"
        );
    }
    println!(
        "  sudo {} run --output tree     watch the Celery of this host",
        binary.display()
    );
}
