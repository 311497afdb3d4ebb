//! TLS: what is sealed, what is inside, and where neither is known of the other.

use celeryscope_common::{Kind, flags};

use super::rig::{Capture, Program, Server, free_port, wanted};

/// `server(port)` answers one client with what it gets; `client(sock)` is a session on a socket. No certificates: both sides agree
/// on a cipher that needs none.
const SESSIONS: &str = "
import ssl
def context(side):
    c = ssl.SSLContext(side)
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    c.maximum_version = ssl.TLSVersion.TLSv1_2
    c.set_ciphers('AECDH:@SECLEVEL=0')
    return c
def serve(listener):
    s = context(ssl.PROTOCOL_TLS_SERVER).wrap_socket(listener.accept()[0], server_side=True)
    while True:
        got = s.recv(1 << 20)
        if not got: return
        s.sendall(got)
def server(port):
    listener = socket.create_server(('127.0.0.1', port))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
def client(sock):
    return context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(sock)
";

/// Runs a program that pauses once it is connected; it goes on when its TLS library is read.
fn run_covered(capture: &mut Capture, port: u16, script: &str) {
    let mut program = Program::start(port, script);
    program.paused();
    capture.drain();
    capture.live.settle_tls();
    program.go_on();
    capture.finish(program);
}

/// Scenario: a client sends small and large pieces by TLS and reads them back, in pieces of other sizes; the server is in the same
/// process, on a socket that is not watched.
/// Guarantees: the connection is told to speak TLS before anything of it; sent and received is what is inside, in full; nothing is
/// told of the server's side; the handshake's bytes are counted.
#[test]
fn what_is_inside() {
    if !wanted() {
        return;
    }
    let port = free_port();
    let mut capture = Capture::with_tls(port);
    let script = format!(
        "{SESSIONS}
server(port)
sock = connect()
pause()
s = client(sock)
for i in range(26):
    sent, got = bytes([65 + i]) * (i * i * 37), b''
    s.sendall(sent)
    while len(got) < len(sent): got += s.recv(len(got) % 7000 + 100)
    assert got == sent
s.close()
"
    );
    run_covered(&mut capture, port, &script);
    let conn = capture.only_conn();
    let of_conn = capture.records.iter().filter(|kept| kept.header.conn == conn);
    let order: Vec<Kind> = of_conn.map(|kept| kept.kind).take(3).collect();
    assert_eq!(order, [Kind::Open, Kind::Tls, Kind::Send]);
    let tls = capture.of(Kind::Tls).next().unwrap();
    assert_eq!(tls.header.flags & flags::MIDSTREAM, 0);
    let sent: Vec<u8> = (0..26_usize)
        .flat_map(|i| vec![65 + i as u8; i * i * 37])
        .collect();
    capture.stream(conn, Kind::Send).check(&sent, &[]);
    capture.stream(conn, Kind::Recv).check(&sent, &[]);
    assert!(capture.counter("tls_sealed_bytes") > 100);
    assert_eq!(capture.counter("tls_unread_bytes"), 0);
}

/// Scenario: a client whose process is not covered sends what looks like TLS from its first byte: a handshake, then data.
/// Guarantees: no byte of it is told; the data counts as unread.
#[test]
fn sealed_and_unread() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    capture.run(
        server.port,
        "
s = connect()
s.sendall(b'\\x16\\x03\\x01\\x00\\x20' + bytes(32))
s.sendall(b'\\x17\\x03\\x03\\x00\\x10' + bytes(16))
s.close()
",
    );
    assert_eq!(server.exchange(0).received.len(), 58);
    assert_eq!(capture.of(Kind::Tls).count(), 1);
    assert_eq!(capture.of(Kind::Send).count(), 0);
    assert_eq!(capture.counter("tls_sealed_bytes"), 58);
    assert_eq!(capture.counter("tls_unread_bytes"), 21);
}

/// Scenario: a connection that is older than the capture: first the rest of some message passes, then a TLS record begins.
/// Guarantees: it is told to speak TLS and to be joined in the middle; from there on nothing of it is told.
#[test]
fn joined_in_the_middle() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let (mut capture, mut program) = Capture::joining(
        server.port,
        "
s = connect()
s.sendall(b'S')
pause()
s.sendall(b'the rest of something')
s.sendall(b'\\x17\\x03\\x03\\x00\\x10' + bytes(16))
s.sendall(bytes(100))
s.close()
",
    );
    program.go_on();
    capture.finish(program);
    let tls: Vec<u16> = capture.of(Kind::Tls).map(|kept| kept.header.flags).collect();
    assert_eq!(tls, [flags::MIDSTREAM]);
    let sent: usize = capture.of(Kind::Send).map(|kept| kept.payload.len()).sum();
    assert_eq!(sent, b"the rest of something".len());
    assert_eq!(capture.counter("tls_unread_bytes"), 121);
}

/// Scenario: two sessions that keep their bytes in memory and move them by hand; the clients' ends sooner or later write what a client of Redis does;
/// the process is covered because it is connected to a TLS port.
/// Guarantees: each is a connection of its own with an unknown address, in both directions, from where it begins so; of what goes
/// before, and of the other ends, nothing is told.
#[test]
fn sessions_without_a_socket() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::with_tls(server.port);
    let script = format!(
        "{SESSIONS}
s = connect()
pause()
def talk(*sent):
    bios = [ssl.MemoryBIO() for _ in range(2)]
    c = context(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(bios[0], bios[1])
    s = context(ssl.PROTOCOL_TLS_SERVER).wrap_bio(bios[1], bios[0], server_side=True)
    done = 0
    while done < 2:
        done = 0
        for side in (c, s):
            try:
                side.do_handshake()
                done += 1
            except ssl.SSLWantReadError: pass
    for text in sent:
        c.write(text)
        assert s.read(1000) == text
        s.write(b'+OK\\r\\n')
        assert c.read(1000) == b'+OK\\r\\n'
    return c, s
first = talk(b'GET / HTTP/1.1', b'*1\\r\\n$4\\r\\nPING')
second = talk(b'*1\\r\\n$4\\r\\nPING\\r\\n', b'what follows')
s.close()
"
    );
    run_covered(&mut capture, server.port, &script);
    let opened: Vec<u64> = capture.conns();
    assert_eq!(
        opened.len(),
        3,
        "the socket's, and those of the ends that begin so"
    );
    let texts = |kind| -> Vec<Vec<u8>> { capture.of(kind).map(|kept| kept.payload.clone()).collect() };
    assert_eq!(
        texts(Kind::Send),
        [&b"*1\r\n$4\r\nPING"[..], b"*1\r\n$4\r\nPING\r\n", b"what follows"]
    );
    assert_eq!(texts(Kind::Recv), [b"+OK\r\n", b"+OK\r\n", b"+OK\r\n"]);
    let addresses: Vec<&[u8]> = capture
        .of(Kind::Open)
        .skip(1)
        .map(|kept| &kept.payload[..18])
        .collect();
    assert_eq!(addresses, [&[0; 18][..]; 2]);
}
