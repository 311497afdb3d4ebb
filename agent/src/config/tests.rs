use std::time::Duration;

use super::*;

fn file(text: &str) -> File {
    File {
        path: "agent.toml".into(),
        table: toml::from_str(text).unwrap(),
    }
}

/// Scenario: a value stands in the file, another on the command line.
/// Guarantees: the command line wins, the file fills what it leaves, defaults the rest.
#[test]
fn flags_outrank_the_file() {
    let flags = CaptureArgs {
        broker_port: Some(vec![7000]),
        ..CaptureArgs::default()
    };
    let file = file(
        "broker-port = [1, 2]\nring-size = \"1M\"\nprobes = \"kprobe\"\nnetns = \"own\"\nlock-down = \"strict\"\noutput = \"tree\"",
    );
    let options = flags.or_file(&file).unwrap().options();
    assert_eq!(options.ports, [7000]);
    assert_eq!(options.ring_bytes, 1 << 20);
    assert_eq!(options.probes, capture::Probes::Kprobe);
    assert!(options.own_netns);
    assert_eq!(options.lock_down, lock_down::Mode::Strict);
    assert!(!options.kernel_log);
    let output = OutputArgs::default().or_file(&file).unwrap();
    assert_eq!(output.output, Some(vec![OutputSpec::Tree]));
}

/// Scenario: ports of either kind, both, none, and one that is named as both.
/// Guarantees: named ports are all that are watched, each once; the defaults hold where none is named.
#[test]
fn named_ports_replace_the_defaults() {
    assert_eq!(
        ports(None, None),
        (vec![6379, 5672, 6380, 5671], vec![6380, 5671])
    );
    assert_eq!(ports(Some(&[6380]), None), (vec![6380], vec![]));
    assert_eq!(ports(None, Some(&[7000])), (vec![7000], vec![7000]));
    assert_eq!(
        ports(Some(&[1, 2, 1]), Some(&[2, 3])),
        (vec![1, 2, 3], vec![2, 3])
    );
}

/// Scenario: processes in the file by number and by name; a list with something else in it.
/// Guarantees: both forms are read; the error names the key and says what it takes.
#[test]
fn processes_by_id_or_name() {
    let read = |text| CaptureArgs::default().or_file(&file(text));
    let options = read("tls-process = [17, \"18\", \"celery\"]\ntls-port = 7000")
        .unwrap()
        .options();
    assert_eq!(
        options.tls_processes,
        [
            TlsProcess::Pid(17),
            TlsProcess::Pid(18),
            TlsProcess::Named("celery".to_owned())
        ]
    );
    assert_eq!((options.ports, options.tls_ports), (vec![7000], vec![7000]));
    let error = read("tls-process = [true]").unwrap_err().to_string();
    assert!(error.contains("key `tls-process`: give a process id"), "{error}");
}

/// Scenario: a key of the file has a value it can't take.
/// Guarantees: the error names the file and the key.
#[test]
fn bad_values_name_their_key() {
    let file = file("kernel-log = true\nring-size = \"3M\"");
    let error = CaptureArgs::default().or_file(&file).unwrap_err().to_string();
    assert!(
        error.starts_with("config file agent.toml, key `ring-size`: give a power of two"),
        "{error}"
    );
}

/// Scenario: a list with a wrong element, and one where a single value stands for it.
/// Guarantees: the error says what the element may be; the single value is a list of one.
#[test]
fn lists_of_one_need_no_brackets() {
    let error = OutputArgs::default()
        .or_file(&file("output = [\"tree\", \"paper\"]"))
        .unwrap_err();
    assert!(
        error.to_string().contains("key `output`: give otlp, tree"),
        "{error}"
    );
    let one = CaptureArgs::default()
        .or_file(&file("broker-port = 6390"))
        .unwrap();
    assert_eq!(one.broker_port, Some(vec![6390]));
}

/// Scenario: sizes and times as people write them, right and wrong.
/// Guarantees: right ones are read exactly, wrong ones refused.
#[test]
fn sizes_and_times() {
    assert_eq!("64K".parse(), Ok(RingSize(65_536)));
    assert_eq!("1G".parse(), Ok(RingSize(1 << 30)));
    for wrong in ["", "M", "3M", "32K", "2G", "99999999999999999999", "8Mé"] {
        assert!(wrong.parse::<RingSize>().is_err(), "{wrong}");
    }
    assert_eq!("64k".parse(), Ok(FileSize(65_536)));
    assert_eq!("300M".parse(), Ok(FileSize(300 << 20)));
    for wrong in ["", "M", "63K", "-1G", "99999999999999999999", "8Mé"] {
        assert!(wrong.parse::<FileSize>().is_err(), "{wrong}");
    }
    assert_eq!("500ms".parse(), Ok(Period(Duration::from_millis(500))));
    assert_eq!("2h".parse(), Ok(Period(Duration::from_secs(7200))));
    for wrong in ["", "5", "0s", "-1s", "1d", "s", "99999999999999999999s"] {
        assert!(wrong.parse::<Period>().is_err(), "{wrong}");
    }
}
