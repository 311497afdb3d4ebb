"""Programs that have TLS of their own and nothing to do with Celery: an HTTPS server and a client that never tires.

`python -m bystander serve CERTIFICATE KEY` prints its port; `python -m bystander fetch PORT AUTHORITY` prints a line when the first
answer is there.
"""

import http.client
import http.server
import ssl
import sys
import time


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_):
        """Nothing: the log is for what goes wrong."""


def serve(certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    print("port", server.server_port, flush=True)
    server.serve_forever()


def fetch(port, authority):
    context = ssl.create_default_context(cafile=authority)
    connection = http.client.HTTPSConnection("127.0.0.1", int(port), context=context)
    fetched = 0
    while True:
        connection.request("GET", "/")
        if connection.getresponse().read() != b"hello":
            raise RuntimeError("another answer")
        fetched += 1
        if fetched == 1:
            print("fetched", flush=True)
        # Old connections and new ones.
        if fetched % 20 == 0:
            connection.close()
        time.sleep(0.01)


if __name__ == "__main__":
    {"serve": serve, "fetch": fetch}[sys.argv[1]](*sys.argv[2:])
