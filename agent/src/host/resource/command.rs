//! What a command line says about the service, without its secrets.
//!
//! Arguments may hold passwords (`--broker redis://:pw@host`), so only values that name code are taken: the app, the
//! module, the script, the subcommand, the worker's name.

/// A command line, understood as far as it is useful.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    /// The program with its module or subcommand.
    pub(super) shown: Option<String>,
    /// The app, module or script that names the service.
    pub(super) service: Option<String>,
    /// The script's name says nothing (`manage.py`): the directory it runs in does.
    pub(super) by_directory: bool,
    /// `FLASK_APP` names the service where no option does.
    pub(super) flask: bool,
    /// Celery's `-n`, unexpanded.
    node: Option<String>,
    /// Celery's `-P`: the pool, where the command line names one that Celery has.
    pub(super) pool: Option<&'static str>,
}

/// Pools that Celery brings (`celery/concurrency/__init__.py`); `processes` is another word for prefork.
const POOLS: [&str; 6] = ["prefork", "processes", "threads", "gevent", "eventlet", "solo"];
/// Interpreter options of python that take the next argument.
const PYTHON_VALUES: [&str; 3] = ["-W", "-X", "--check-hash-based-pycs"];
/// Commands of celery that are worth showing.
const CELERY_COMMANDS: [&str; 4] = ["worker", "beat", "events", "flower"];
/// Servers that are told which module to serve, as `module:callable`.
const SERVERS: [&str; 6] = ["gunicorn", "uvicorn", "uwsgi", "hypercorn", "daphne", "granian"];

impl Command {
    /// Reads the bytes of /proc/PID/cmdline.
    pub(super) fn parse(cmdline: &[u8]) -> Self {
        let text = String::from_utf8_lossy(cmdline);
        if let Some(title) = Title::parse(&text) {
            return title.command();
        }
        let args: Vec<&str> = text.trim_end_matches('\0').split('\0').collect();
        let Some((program, rest)) = args.split_first() else {
            return Self::default();
        };
        // A process that rewrote its title has everything in one string, arguments too.
        let program = program.split_ascii_whitespace().next().unwrap_or_default();
        if program.is_empty() || program.contains("://") {
            return Self::default();
        }
        let name = base(program);
        if name.starts_with("python") || name.starts_with("pypy") {
            Self::python(program, rest)
        } else {
            Self::known(program, name, rest).unwrap_or_else(|| Self {
                shown: Some(program.to_owned()),
                ..Self::default()
            })
        }
    }

    /// Celery's name of this worker, where the command line gives one; `host` fills its `%h`.
    pub(super) fn worker_name(&self, host: &str) -> Option<String> {
        let node = self.node.as_deref()?;
        // What stands alone is the host (`celery/utils/nodenames.py: default_nodename`).
        let (name, at) = node.split_once('@').unwrap_or(("", node));
        let name = if name.is_empty() { "celery" } else { name };
        let node = format!("{name}@{}", if at.is_empty() { "%h" } else { at });
        let (short, domain) = host.split_once('.').unwrap_or((host, ""));
        let mut name = String::new();
        let mut chars = node.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' => match chars.next() {
                    Some('h') => name.push_str(host),
                    Some('n') => name.push_str(short),
                    Some('d') => name.push_str(domain),
                    Some('%') => name.push('%'),
                    // The pool process's index: the main process is 0.
                    Some('i' | 'I') => name.push('0'),
                    _ => {}
                },
                _ => name.push(c),
            }
        }
        Some(name)
    }

    /// `args` are those of a python interpreter.
    fn python(interpreter: &str, args: &[&str]) -> Self {
        let mut at = 0;
        while let Some(&arg) = args.get(at) {
            at += 1;
            let options = arg.strip_prefix('-').filter(|options| !options.starts_with('-'));
            if PYTHON_VALUES.contains(&arg) {
                at += 1;
            } else if options.is_some_and(|options| options.ends_with('m')) {
                let module = args.get(at).copied().unwrap_or_default();
                let rest = args.get(at + 1..).unwrap_or_default();
                return Self::module(interpreter, module, rest);
            } else if let Some(module) = arg.strip_prefix("-m") {
                return Self::module(interpreter, module, &args[at..]);
            } else if options.is_some_and(|options| options.ends_with('c')) {
                break;
            } else if !arg.starts_with('-') {
                return Self::script(interpreter, arg, &args[at..]);
            }
        }
        Self {
            shown: Some(interpreter.to_owned()),
            ..Self::default()
        }
    }

    fn module(interpreter: &str, module: &str, rest: &[&str]) -> Self {
        let Some(module) = code_name(module) else {
            return Self::default();
        };
        let shown = format!("{interpreter} -m {module}");
        Self::known(&shown, module, rest).unwrap_or_else(|| Self {
            service: Some(module.trim_end_matches(".__main__").to_owned()),
            shown: Some(shown.clone()),
            ..Self::default()
        })
    }

    fn script(interpreter: &str, script: &str, rest: &[&str]) -> Self {
        if script.contains("://") {
            return Self::default();
        }
        let name = base(script);
        if let Some(known) = Self::known(script, name, rest) {
            return known;
        }
        let stem = name.strip_suffix(".py").unwrap_or(name);
        let speaks = !["manage", "__main__", "main", "wsgi", "asgi"].contains(&stem);
        Self {
            shown: Some(format!("{interpreter} {script}")),
            service: speaks.then(|| stem.to_owned()),
            by_directory: !speaks,
            ..Self::default()
        }
    }

    /// Programs whose arguments name the service.
    fn known(shown: &str, name: &str, args: &[&str]) -> Option<Self> {
        if name == "celery" {
            let command = args.iter().find(|arg| CELERY_COMMANDS.contains(arg));
            return Some(Self {
                shown: Some(command.map_or_else(|| shown.to_owned(), |command| format!("{shown} {command}"))),
                service: option(args, &["-A", "--app"])
                    .and_then(code_name)
                    .map(without_attribute),
                node: option(args, &["-n", "--hostname"])
                    .and_then(code_name)
                    .map(str::to_owned),
                pool: pool(args),
                ..Self::default()
            });
        }
        if name == "flask" {
            return Some(Self {
                shown: Some(shown.to_owned()),
                service: option(args, &["-A", "--app"])
                    .and_then(code_name)
                    .map(without_attribute),
                flask: true,
                ..Self::default()
            });
        }
        SERVERS.contains(&name).then(|| Self {
            shown: Some(shown.to_owned()),
            service: args.iter().find_map(|arg| served_module(arg)).or_else(|| {
                Some(
                    base(option(args, &["--wsgi-file"])?)
                        .trim_end_matches(".py")
                        .to_owned(),
                )
            }),
            ..Self::default()
        })
    }
}

/// Whether both are titles that setproctitle gave to a celery worker, and the second is its main process.
pub(super) fn same_celery_title(child: &[u8], parent: &[u8]) -> bool {
    let (child, parent) = (String::from_utf8_lossy(child), String::from_utf8_lossy(parent));
    match (Title::parse(&child), Title::parse(&parent)) {
        (Some(child), Some(parent)) => {
            child.node.is_some() && child.node == parent.node && parent.process == "MainProcess"
        }
        _ => false,
    }
}

/// A title as celery sets it where setproctitle is installed:
/// `[celeryd: w1@host:MainProcess] -active- (-A app worker -l INFO)`, `[celeryd: w1@host:ForkPoolWorker-1]`,
/// `[celery beat] …` (celery/platforms.py, `set_process_title`).
struct Title<'a> {
    command: &'static str,
    node: Option<&'a str>,
    process: &'a str,
    args: Vec<&'a str>,
}

impl<'a> Title<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (title, rest) = text.strip_prefix("[celery")?.split_once(']')?;
        let (command, name) = match title.strip_prefix("d:") {
            Some(name) => ("worker", name.trim()),
            None if title.trim() == "beat" => ("beat", ""),
            None => return None,
        };
        let (node, process) = name.rsplit_once(':').unwrap_or((name, ""));
        let args = rest
            .split_once('(')
            .map_or("", |(_, args)| args.trim_end_matches(['\0', ')']));
        Some(Self {
            command,
            node: code_name(node).filter(|node| !node.is_empty()),
            process,
            args: args.split_ascii_whitespace().collect(),
        })
    }

    fn command(&self) -> Command {
        Command {
            shown: Some(format!("celery {}", self.command)),
            service: option(&self.args, &["-A", "--app"])
                .and_then(code_name)
                .map(without_attribute),
            node: self.node.map(str::to_owned),
            pool: pool(&self.args),
            ..Command::default()
        }
    }
}

fn pool(args: &[&str]) -> Option<&'static str> {
    let named = option(args, &["-P", "--pool"])?;
    let known = POOLS.into_iter().find(|pool| *pool == named)?;
    Some(if known == "processes" { "prefork" } else { known })
}

/// The value of the last of these options, which counts: `-A x`, `-Ax`, `--app x`, `--app=x`.
fn option<'a>(args: &[&'a str], names: &[&str]) -> Option<&'a str> {
    args.iter().enumerate().rev().find_map(|(at, arg)| {
        names.iter().find_map(|name| {
            let value = arg.strip_prefix(name)?;
            match value {
                "" => args.get(at + 1).copied(),
                _ if name.starts_with("--") => value.strip_prefix('='),
                _ => Some(value),
            }
        })
    })
}

/// The text, if it can be the name of code or of a node: nothing that a URL or a password would need.
fn code_name(text: &str) -> Option<&str> {
    let fits = |c: char| c.is_alphanumeric() || "_.-:/@%".contains(c);
    (text.len() <= 255 && !text.contains("://") && text.chars().all(fits)).then_some(text)
}

/// `package.module` of `package.module:app` or of a path.
fn without_attribute(app: &str) -> String {
    let module = app.split(':').next().unwrap_or_default();
    base(module).trim_end_matches(".py").to_owned()
}

/// `package.module` of `package.module:callable`, if the argument is one. Addresses are not: a port is no name.
fn served_module(arg: &str) -> Option<String> {
    let (module, callable) = arg.split_once(':')?;
    let name = |text: &str| text.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let module_fits = name(module)
        && module
            .chars()
            .all(|c| c.is_alphanumeric() || c == '_' || c == '.');
    (module_fits && name(callable) && !callable.contains(['/', '@'])).then(|| module.to_owned())
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Command {
        Command::parse(line.replace(' ', "\0").as_bytes())
    }

    /// Scenario: the ways in which services are started.
    /// Guarantees: the service is named after the app, module or script; the command shows program and subcommand.
    #[test]
    fn services_of_command_lines() {
        for (line, service, shown) in [
            (
                "python -m celery -A capapp worker -l INFO -n w1@%h",
                "capapp",
                "python -m celery worker",
            ),
            (
                "/usr/bin/python3 /venv/bin/celery --app=shop.celery:app beat",
                "shop.celery",
                "/venv/bin/celery beat",
            ),
            (
                "/venv/bin/celery worker -Ashop",
                "shop",
                "/venv/bin/celery worker",
            ),
            (
                "python3.11 -u -W ignore app.py --port 80",
                "app",
                "python3.11 app.py",
            ),
            ("python -Im x.y arg", "x.y", "python -m x.y"),
            ("python -m x.__main__", "x", "python -m x.__main__"),
            (
                "/usr/bin/python3 /venv/bin/gunicorn -b 0.0.0.0:80 -w 4 shop.wsgi:application",
                "shop.wsgi",
                "/venv/bin/gunicorn",
            ),
            ("uvicorn --host localhost shop.asgi:app", "shop.asgi", "uvicorn"),
            ("uwsgi --http :80 --wsgi-file /srv/shop.py", "shop", "uwsgi"),
            ("flask --app shop run", "shop", "flask"),
        ] {
            let command = parse(line);
            assert_eq!(command.service.as_deref(), Some(service), "{line}");
            assert_eq!(command.shown.as_deref(), Some(shown), "{line}");
        }
        assert!(parse("python manage.py runserver").by_directory);
        assert_eq!(parse("nginx -g daemon").service, None);
        assert_eq!(parse("").shown, None);
    }

    /// Scenario: command lines that carry passwords in every place.
    /// Guarantees: none is in anything that is passed on.
    #[test]
    fn passwords_stay_behind() {
        for line in [
            "celery -b redis://:hunter2@h/0 -A shop worker",
            "celery -A redis://:hunter2@h/0 worker -n redis://:hunter2@h",
            "python -c print('hunter2')",
            "redis://:hunter2@h/0",
            "gunicorn --env DB=x:hunter2://y redis://u:hunter2@h",
            "python -m redis://:hunter2@h",
            "python redis://:hunter2@h/0/hunter2",
        ] {
            assert!(!format!("{:?}", parse(line)).contains("hunter2"), "{line}");
        }
        let title = "[celeryd: w1@h:MainProcess] -active- (-b redis://:hunter2@h -A shop worker)";
        let command = Command::parse(title.as_bytes());
        assert!(!format!("{command:?}").contains("hunter2"));
        assert_eq!(command.service.as_deref(), Some("shop"));
    }

    /// Scenario: `-P` in its forms, a pool of one's own, none.
    /// Guarantees: Celery's own pools are named, nothing else is passed on.
    #[test]
    fn pools() {
        assert_eq!(parse("celery worker -P solo").pool, Some("solo"));
        assert_eq!(parse("celery -A x worker --pool=processes").pool, Some("prefork"));
        assert_eq!(parse("python -m celery worker -Pgevent").pool, Some("gevent"));
        assert_eq!(parse("celery worker -P my.pool:Pool").pool, None);
        assert_eq!(parse("celery worker").pool, None);
    }

    /// Scenario: worker names with celery's placeholders, and none at all.
    /// Guarantees: they are expanded as celery does; without -n there is no name.
    #[test]
    fn worker_names() {
        for (node, name) in [
            ("w1@%h", "w1@a.b"),
            ("w2", "celery@w2"),
            ("@h", "celery@h"),
            ("w3@", "w3@a.b"),
            ("w4@x -n w5@%h", "w5@a.b"),
            ("%n@%d", "a@b"),
            ("w%i@x%%", "w0@x%"),
        ] {
            assert_eq!(
                parse(&format!("celery worker -n {node}"))
                    .worker_name("a.b")
                    .as_deref(),
                Some(name)
            );
        }
        assert_eq!(parse("celery worker").worker_name("a"), None);
    }
}
