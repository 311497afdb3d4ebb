//! Native delayed delivery (`kombu/transport/native_delayed_delivery.py`): a message waits in queues of the broker, one for each
//! bit of the seconds it has to wait, and its routing key names them before the key that it was sent with.

/// Bits of the delay (`MAX_NUMBER_OF_BITS_TO_USE`).
const BITS: usize = 28;

/// The routing key that a message was sent with, without its delay.
pub(super) fn undelayed(routing_key: &str) -> &str {
    let mut rest = routing_key;
    for _ in 0..BITS {
        match rest.strip_prefix("0.").or_else(|| rest.strip_prefix("1.")) {
            Some(next) => rest = next,
            None => return routing_key,
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the routing key of a message that is to wait for a second, keys with fewer bits, and none.
    /// Guarantees: only a whole delay is left out.
    #[test]
    fn whole_delays_only() {
        let delay = format!("{}1.", "0.".repeat(BITS - 1));
        assert_eq!(undelayed(&format!("{delay}shop.orders")), "shop.orders");
        assert_eq!(undelayed(&delay), "");
        assert_eq!(undelayed("0.1.orders"), "0.1.orders");
        assert_eq!(undelayed("celery"), "celery");
        assert_eq!(undelayed(""), "");
    }
}
