//! The rig against itself: are its brokers as closed as these tests take them to be?

use crate::rig::agent::run_once;
use crate::rig::loopback::answers;
use crate::rig::{Broker, Scene, Tls};

/// Says which version of TLS a server on a port speaks with one who trusts an authority.
const VERSION: &str = "\
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2] if sys.argv[2:] else None)
plain = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
print(context.wrap_socket(plain, server_hostname='127.0.0.1').version())";

/// Scenario: RabbitMQ and the Redis beside it with one version of TLS; a client that knows the authority, one that doesn't, one that speaks in clear.
/// Guarantees: the first gets that very version, the others nothing: what works in these tests works over TLS.
#[test]
fn servers_speak_tls_only() {
    for (tls, version) in [(Tls::V12, "TLSv1.2"), (Tls::V13, "TLSv1.3")] {
        let Some(scene) = Scene::set_over(tls, Broker::RabbitMq, "closed", "celery57") else {
            return;
        };
        let authority = &scene.identity().expect("a stage with TLS").authority;
        for port in scene.ports() {
            let client = || {
                let mut client = scene.python();
                client.args(["-c", VERSION, &port.to_string()]);
                client
            };
            let (_, said, complaint) = run_once(client().arg(authority));
            assert_eq!(said.trim(), version, "{complaint}");
            let (_, said, complaint) = run_once(&mut client());
            assert!(
                said.is_empty() && complaint.contains("CERTIFICATE_VERIFY_FAILED"),
                "{complaint}"
            );
            for (question, answer) in [(&b"PING\r\n"[..], &b"+"[..]), (b"AMQP\x00\x00\x09\x01", &[1])] {
                assert!(answers(port, None, question, answer).is_err());
            }
        }
    }
}
