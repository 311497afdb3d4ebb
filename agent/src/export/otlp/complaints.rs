//! What the `OTEL_EXPORTER_OTLP_*` variables say that means nothing here and is passed over, as the specification asks (OpenTelemetry
//! environment variables, "Numeric" and "Enum"). That somebody meant something by it is worth a line in the log.

use hyper::header::HeaderName;

use super::settings::Signal;

/// A timeout in ms. In no time nothing is exported.
pub(super) fn millis(value: &str) -> Option<u64> {
    value.trim().parse().ok().filter(|millis| *millis > 0)
}

/// One line for each. A header's value is not shown.
pub(super) fn of(signal: Signal, env: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    // What holds for all signals is complained of once.
    let given = |what: &str| {
        let [own, general] = signal.variables(what);
        let names = [Some(own), (signal == Signal::Traces).then_some(general)];
        let given = |name: String| env(&name).map(|value| (name, value));
        let given: Vec<_> = names.into_iter().flatten().filter_map(given).collect();
        given.into_iter().filter(|(_, value)| !value.trim().is_empty())
    };
    let timeouts = given("TIMEOUT").filter(|(_, value)| millis(value).is_none());
    let timeouts = timeouts
        .map(|(name, value)| format!("{name}={value} is passed over: give milliseconds, more than 0"));
    let encodings = given("COMPRESSION").filter(|(_, value)| !["gzip", "none"].contains(&value.trim()));
    let encodings =
        encodings.map(|(name, value)| format!("{name}={value} is passed over: gzip and none are known"));
    let headers = given("HEADERS").flat_map(|(name, value)| {
        let entries = value.split(',').filter(|entry| !entry.trim().is_empty());
        let complaints = entries.filter_map(header);
        let complaints = complaints
            .map(|what| format!("{name}: {what} is passed over: give key=value, with commas between them"));
        complaints.collect::<Vec<_>>()
    });
    timeouts.chain(encodings).chain(headers).collect()
}

/// How an entry that is no header may be called, if it is none.
fn header(entry: &str) -> Option<String> {
    let Some((key, value)) = entry.split_once('=') else {
        return Some("an entry without =".to_owned());
    };
    let key = key.trim();
    let sound = HeaderName::from_bytes(key.as_bytes()).is_ok() && !value.trim().is_empty();
    (!sound).then(|| format!("{:?}", key))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: variables for traces, for metrics and for both, sound and not.
    /// Guarantees: each that means nothing is named, once for both signals, without a header's value; the others are not.
    #[test]
    fn what_means_nothing_is_named() {
        let complaints = |signal, vars: &[(&str, &str)]| {
            let env = |name: &str| {
                let found = vars.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            of(signal, &env)
        };
        let sound = [
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=hunter2=, b = 2 ,"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", ""),
        ];
        assert_eq!(complaints(Signal::Traces, &sound), [""; 0]);
        for value in ["0", "-1", "abc", "1.5"] {
            let vars = [("OTEL_EXPORTER_OTLP_TIMEOUT", value)];
            assert_eq!(complaints(Signal::Traces, &vars).len(), 1, "{value}");
            assert_eq!(complaints(Signal::Metrics, &vars), [""; 0]);
            let vars = [("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", value)];
            assert_eq!(complaints(Signal::Metrics, &vars).len(), 1, "{value}");
        }
        let vars = [
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2,b d=hunter2,ok=1,x="),
        ];
        let told = complaints(Signal::Traces, &vars);
        assert_eq!(told.len(), 4, "{told:?}");
        for (line, part) in told
            .iter()
            .zip(["COMPRESSION=zip", "without =", "\"b d\"", "\"x\""])
        {
            assert!(line.contains(part) && !line.contains("hunter2"), "{line}");
        }
    }
}
