//! Is this command line a Celery worker's?
//!
//! A guess made early, so that a worker's pool is watched before its first task; what the core learns from the
//! wire comes on top. A worker started in some other way (an application's own script) is only known by the latter.

/// Does the process with these arguments run `celery worker`?
pub(crate) fn is_worker(arguments: &[String]) -> bool {
    // setproctitle: `celeryd: w1@host:MainProcess`, the whole title in the first argument
    if arguments
        .first()
        .is_some_and(|title| title.starts_with("[celeryd:") || title.starts_with("celeryd:"))
    {
        return true;
    }
    after_celery(arguments).is_some_and(|rest| rest.iter().any(|argument| argument == "worker"))
}

/// The arguments of `celery`, when that is what runs: by its own name, or in a Python by path or with `-m`. A program
/// that only starts it (`timeout`, `sudo`, `tini`) is not it.
fn after_celery(arguments: &[String]) -> Option<&[String]> {
    let (program, rest) = arguments.split_first()?;
    if is_celery(program) {
        return Some(rest);
    }
    let name = base_name(program);
    if !name.starts_with("python") && !name.starts_with("pypy") {
        return None;
    }
    let mut at = 0;
    while let Some(argument) = rest.get(at) {
        at += match argument.as_str() {
            "-m" => 1,
            // with a value of their own
            "-W" | "-X" => 2,
            option if option.starts_with('-') => 1,
            script => return is_celery(script).then(|| &rest[at + 1..]),
        };
    }
    None
}

fn is_celery(argument: &str) -> bool {
    base_name(argument) == "celery" || argument == "celery.__main__"
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(line: &str) -> bool {
        is_worker(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    /// Scenario: the ways in which workers are started, and their neighbours.
    /// Guarantees: workers are known whatever starts them; beat, flower and clients are not workers.
    #[test]
    fn workers_and_their_neighbours() {
        assert!(worker("/usr/bin/python3 -m celery -A shop worker -l INFO"));
        assert!(worker("/venv/bin/python /venv/bin/celery --app shop worker"));
        assert!(worker("celery worker"));
        assert!(worker("python3.11 -u -X dev -W ignore -m celery worker"));
        assert!(!worker("timeout 20 /venv/bin/celery -A shop worker"));
        assert!(!worker("sudo -u shop celery worker"));
        assert!(!worker("python"));
        assert!(is_worker(&["celeryd: w1@host:MainProcess".to_owned()]));
        assert!(is_worker(&["[celeryd: w1@host:ForkPoolWorker-1]".to_owned()]));
        assert!(!worker("celery -A shop beat"));
        assert!(!worker("celery -A shop flower"));
        assert!(!worker("python worker celery"));
        assert!(!worker("python manage.py runserver"));
        assert!(!is_worker(&[]));
    }
}
