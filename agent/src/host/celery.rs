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
    let Some(celery) = arguments.iter().position(|argument| is_celery(argument)) else {
        return false;
    };
    arguments
        .iter()
        .skip(celery + 1)
        .any(|argument| argument == "worker")
}

/// `celery` as a program, a path to it, or the module after `-m`.
fn is_celery(argument: &str) -> bool {
    argument.rsplit('/').next() == Some("celery") || argument == "celery.__main__"
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
        assert!(is_worker(&["celeryd: w1@host:MainProcess".to_owned()]));
        assert!(is_worker(&["[celeryd: w1@host:ForkPoolWorker-1]".to_owned()]));
        assert!(!worker("celery -A shop beat"));
        assert!(!worker("celery -A shop flower"));
        assert!(!worker("python worker celery"));
        assert!(!worker("python manage.py runserver"));
        assert!(!is_worker(&[]));
    }
}
