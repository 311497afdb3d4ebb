//! `cargo xtask demo`: a small shop without tracing code, and the traces celeryscope makes of it.
//!
//! Redis, the web app and a prefork worker are up *before* the agent: nothing of the application is restarted for it.
//! Everything runs on free ports of the loopback interface in a temporary directory, and is stopped on every way out.

mod agent;
mod shop;
mod traces;

use std::time::Duration;

use anyhow::{Result, bail};

use crate::process::Interrupt;
use crate::{privilege, setup, util};
use agent::Agent;
use shop::Shop;
use traces::Traces;

/// How long after the last request the spans may take. The slowest task retries after one second.
const SPANS_LIMIT: Duration = Duration::from_secs(20);

/// What the user chose.
#[derive(clap::Args)]
pub(crate) struct Args {
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
    let python = setup::for_demo()?;
    privilege::obtain("the agent (it loads BPF programs)")?;
    let binary = agent::build()?;
    let interrupt = Interrupt::install()?;
    let dir = tempfile::Builder::new().prefix("celeryscope-demo-").tempdir()?;

    let shop = Shop::start(&python, dir.path(), &interrupt)?;
    let mut agent = Agent::start(
        &binary,
        shop.broker_port(),
        args.otlp.as_deref(),
        dir.path(),
        &interrupt,
    )?;
    let order_ids = shop.send_requests()?;
    util::say("traces", "");

    let complete = interrupt.wait(SPANS_LIMIT, || {
        agent.check_alive()?;
        Ok(Traces::read(agent.spans_file())?
            .missing(shop::EXPECTED_RUNS)
            .is_empty())
    })?;
    if args.keep {
        invite(&shop);
        let kept = interrupt.wait(Duration::MAX, || agent.check_alive().map(|()| false));
        kept.or_else(|error| {
            if error.is::<crate::process::Interrupted>() {
                Ok(true)
            } else {
                Err(error)
            }
        })?;
    }
    let end = agent.stop();
    drop(shop);

    let traces = Traces::read(&end.spans_file)?;
    println!();
    println!(
        "{} tasks seen, {} spans in {} traces, {} records dropped",
        traces.tasks(),
        traces.spans(),
        traces.traces(),
        end.dropped
            .map_or_else(|| "unknown".to_owned(), |count| count.to_string()),
    );
    if traces.spans() == 0 {
        bail!(
            "no spans came: run `celeryscope doctor` as root to see what this kernel allows{}",
            end.log_end
        );
    }
    if !complete {
        bail!(
            "spans are missing: {}{}",
            traces.missing(shop::EXPECTED_RUNS).join(", "),
            end.log_end
        );
    }
    for id in &order_ids {
        traces.check_order(id)?;
    }
    next_steps(&binary, args);
    Ok(())
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

fn next_steps(binary: &std::path::Path, args: &Args) {
    println!();
    println!("The shop has no tracing code (see xtask/demo/shop/) and none of it was restarted. Try next:");
    if !args.keep {
        println!(
            "  cargo xtask demo --keep                            leave it running and send it orders yourself"
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
