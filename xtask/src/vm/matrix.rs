//! What runs on every kernel: one workload for each broker, seen by an agent of each back end at once.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::guest::{self, Programs};
use super::kernels::{Image, Kernel};
use super::table::{self, Row};
use crate::process::{Interrupt, Interrupted};
use crate::util;

/// What every kernel of the matrix must have.
pub(super) const BACK_ENDS: [&str; 3] = ["fentry", "kprobe", "tracepoint"];
/// The tests, by broker: `backends::same_spans::<broker>`.
pub(super) const BROKERS: [&str; 3] = ["redis", "rabbitmq", "rediss"];
const TEST: &str = "backends::same_spans";

/// How many guests run at a time, and with how many processors each.
const AT_ONCE: usize = 2;
const PROCESSORS: u32 = 1;
/// For one guest; what all may take is 20 minutes.
const LIMIT: Duration = Duration::from_mins(20);

/// Runs the tests on `kernels` and prints the table; gives a closing line.
///
/// # Errors
/// What failed; `Interrupted`.
pub(super) fn run(kernels: &[Kernel], programs: &Programs, interrupt: &Interrupt) -> Result<String> {
    let start = Instant::now();
    // All are got before the first starts: what the archive lacks is known at once, and the network disturbs no test.
    let images: Vec<(Kernel, Result<Image>)> =
        kernels.iter().map(|kernel| (*kernel, kernel.obtain())).collect();
    let waiting: Mutex<VecDeque<_>> = Mutex::new(images.into_iter().enumerate().collect());
    let done = Mutex::new(Vec::new());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while interrupt.check().is_ok()
                    && let Some((place, (kernel, image))) = next()
                {
                    let row = on_kernel(kernel, image, programs, interrupt);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((place, row));
                }
            });
        }
    });
    if interrupt.check().is_err() {
        return Err(Interrupted.into());
    }
    let mut rows = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|(place, _)| *place);
    let mut rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
    let unsteady = try_again(&mut rows, kernels, programs, interrupt);
    println!("\n{}", table::show(&rows));
    let failed: Vec<&str> = rows
        .iter()
        .filter(|row| !row.is_green())
        .map(|row| row.kernel)
        .collect();
    if !failed.is_empty() {
        bail!("not everything passed on {}", failed.join(", "));
    }
    let second = if unsteady.is_empty() {
        String::new()
    } else {
        format!("; at the second try only: {}", unsteady.join(", "))
    };
    Ok(format!(
        "{} kernels × {} back ends × {} brokers in {:.0} s{second}",
        rows.len(),
        BACK_ENDS.len(),
        BROKERS.len(),
        start.elapsed().as_secs_f64()
    ))
}

/// So many kernels that fail are tried once more: an emulated machine on one that others use misses a moment now and then; more
/// fail for another reason.
const DOUBTFUL: usize = 1;

/// Runs what failed a second time, alone, if that is little; gives the kernels that passed then.
fn try_again(
    rows: &mut [Row],
    kernels: &[Kernel],
    programs: &Programs,
    interrupt: &Interrupt,
) -> Vec<&'static str> {
    let failed: Vec<&mut Row> = rows.iter_mut().filter(|row| !row.is_green()).collect();
    let mut passed = Vec::new();
    if failed.len() > DOUBTFUL {
        return passed;
    }
    for row in failed {
        let Some(kernel) = kernels.iter().find(|kernel| kernel.name == row.kernel) else {
            continue;
        };
        println!("\n{}", table::show(std::slice::from_ref(row)));
        util::say("once more", row.kernel);
        *row = on_kernel(*kernel, kernel.obtain(), programs, interrupt);
        if row.is_green() {
            passed.push(row.kernel);
        }
    }
    passed
}

fn on_kernel(kernel: Kernel, image: Result<Image>, programs: &Programs, interrupt: &Interrupt) -> Row {
    let mut row = Row::new(kernel.name);
    let image = match image {
        Ok(image) => image,
        Err(error) => {
            row.error = Some(format!("{error:#}"));
            return row;
        }
    };
    row.release.clone_from(&image.release);
    let script = script();
    let job = guest::Job {
        script: &script,
        clock: guest::Clock::Time(PROCESSORS),
        limit: LIMIT,
    };
    let start = Instant::now();
    let ended = guest::run_image(kernel, &image, programs, &job, interrupt, &mut |line| {
        if row.read(line, start.elapsed()) {
            guest::show(kernel, line);
        }
    });
    match ended {
        Ok(ended) => {
            row.boot = ended.boot;
            row.whole = ended.whole;
            if !row.is_green() {
                for line in &row.doctor {
                    guest::show(kernel, line);
                }
                row.error = Some(format!("all it printed: {}", ended.log.display()));
            }
        }
        Err(error) => {
            guest::show(kernel, &format!("{error:#}"));
            row.whole = start.elapsed();
            row.error = Some(format!("{error:#}"));
        }
    }
    row
}

/// The job: each part between two lines that [`Row::read`] knows.
fn script() -> String {
    let brokers = BROKERS.join(" ");
    let back_ends = BACK_ENDS.join(",");
    format!(
        "export CELERYSCOPE_BACKENDS={back_ends}\n\
         echo 'vm: begin doctor'\n\
         celeryscope doctor\n\
         echo \"vm: end doctor $?\"\n\
         for broker in {brokers}; do\n\
             echo \"vm: begin $broker\"\n\
             \"$LIVE\" --test-threads=1 --exact {TEST}::$broker\n\
             echo \"vm: end $broker $?\"\n\
         done\n"
    )
}
