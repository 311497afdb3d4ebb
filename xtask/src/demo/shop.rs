//! The shop: its servers, web app and worker, and the requests of its customers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::broker::{Broker, Servers};
use crate::process::{Interrupt, Service, free_port};
use crate::util;

const START_LIMIT: Duration = Duration::from_secs(30);
const HTTP_LIMIT: Duration = Duration::from_secs(10);

/// The runs that [`Shop::send_requests`] leads to: task, state, how many. Each has a publish of its own.
pub(super) const EXPECTED_RUNS: &[(&str, &str, usize)] = &[
    ("process_order", "SUCCESS", 3),
    ("send_confirmation_email", "SUCCESS", 3),
    ("book_courier", "RETRY", 1),
    ("book_courier", "SUCCESS", 1),
    ("refund_order", "FAILURE", 1),
    ("collect_sales", "SUCCESS", 1),
    ("render_report", "SUCCESS", 1),
    ("send_report", "SUCCESS", 1),
    ("take_stock", "SUCCESS", 1),
    ("count_shelf", "SUCCESS", 3),
    ("sum_stock", "SUCCESS", 1),
];

/// The running shop. Dropping it stops its programs in the reverse order of their start.
pub(super) struct Shop {
    _worker: Service,
    _web: Service,
    servers: Servers,
    web_port: u16,
}

impl Shop {
    /// Starts the servers, the web app and a worker with two children, and waits until each is ready.
    pub(super) fn start(broker: Broker, python: &Path, dir: &Path, interrupt: &Interrupt) -> Result<Self> {
        let servers = Servers::start(broker, dir, interrupt)?;

        let web_port = free_port()?;
        util::say("start", format!("the shop's web app on port {web_port}"));
        let mut command = shop_program(python, "flask", &servers);
        command.args(["--app", "shop.web", "run", "--port", &web_port.to_string()]);
        let mut web = Service::start("web", &mut command, dir)?;

        util::say("start", "the shop's worker (celery, prefork, 2 processes)");
        let mut command = shop_program(python, "celery", &servers);
        command.args([
            "--app",
            "shop",
            "worker",
            "--concurrency",
            "2",
            "--loglevel",
            "INFO",
        ]);
        let mut worker = Service::start("worker", &mut command, dir)?;

        web.wait_ready(interrupt, START_LIMIT, |_| {
            http(web_port, "GET", "/health", None).is_ok()
        })?;
        worker.wait_ready(interrupt, START_LIMIT, |worker| worker.log().contains(" ready."))?;
        Ok(Self {
            _worker: worker,
            _web: web,
            servers,
            web_port,
        })
    }

    /// Every port on which it talks to its servers.
    pub(super) fn broker_ports(&self) -> Vec<u16> {
        self.servers.ports()
    }

    /// Where the web app answers.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.web_port)
    }

    /// Sends what leads to [`EXPECTED_RUNS`]; gives the task ids of the orders.
    pub(super) fn send_requests(&self) -> Result<Vec<String>> {
        let mut orders = Vec::new();
        util::say("request", "POST /orders, three times");
        for (email, items) in [
            ("ada@example.com", json!(["tea", "bread"])),
            ("grace@example.com", json!(["cheese"])),
            ("alan@example.com", json!(["apples", "pears"])),
        ] {
            orders.push(self.post("/orders", Some(&json!({"email": email, "items": items})))?);
        }
        for (path, what) in [
            ("/orders/1/courier", "a task that retries"),
            ("/orders/2/refund", "a task that fails"),
            ("/reports/2026-11-20", "a chain of three tasks"),
            ("/stocktakes", "a task that starts a chord"),
        ] {
            util::say("request", format!("POST {path} ({what})"));
            self.post(path, None)?;
        }
        Ok(orders)
    }

    /// Sends one request; gives the id of the task it published.
    fn post(&self, path: &str, body: Option<&Value>) -> Result<String> {
        let answer = http(self.web_port, "POST", path, body)?;
        let answer: Value = serde_json::from_str(&answer).with_context(|| format!("POST {path}: no JSON"))?;
        let id = answer.get("task_id").and_then(Value::as_str);
        id.map(str::to_owned)
            .with_context(|| format!("POST {path}: the answer names no task: {answer}"))
    }
}

/// A program of the Python environment, started where it finds the package `shop`.
fn shop_program(python: &Path, program: &str, servers: &Servers) -> Command {
    let mut command = Command::new(python.join("bin").join(program));
    command
        .current_dir(util::root().join("xtask/demo"))
        .env("SHOP_BROKER_URL", servers.broker_url())
        .env("SHOP_RESULTS_URL", servers.results_url())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUNBUFFERED", "1");
    command
}

/// One HTTP request to the loopback interface; the body of the answer when its status is 2xx.
fn http(port: u16, method: &str, path: &str, body: Option<&Value>) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(HTTP_LIMIT))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .with_context(|| format!("{method} {path}: no answer"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or("?");
    if !status.starts_with('2') {
        bail!("{method} {path}: the web app answered {status}");
    }
    Ok(body.to_owned())
}
