"""A client that uses one descriptor and one local port again and again: `python -m reusing COUNT`.

Between two publishes the descriptor is a file's, and then that of a connection to somebody else. What goes there looks like a publish
and is none.
"""

import os
import socket
import struct
import sys

import recorder
from app import add
from by_hand import broker, command, message, publish

# The connection's end is a reset, so that its port can be used again at once.
RESET = struct.pack("ii", 1, 0)


def main():
    listener = socket.create_server(("127.0.0.1", 0))
    local = ("127.0.0.1", 0)
    number = None
    for n in range(int(sys.argv[1])):
        client = socket.socket()
        number = number or client.fileno()
        assert client.fileno() == number
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.bind(local)
        local = client.getsockname()
        client.connect(broker())
        publish(client, add, n, n)
        client.close()

        decoy = command("LPUSH", "celery", message(add, n, n)[1])
        file = os.open("decoys", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        assert file == number
        os.write(file, decoy)
        os.close(file)
        with socket.create_connection(listener.getsockname()) as elsewhere:
            assert elsewhere.fileno() == number
            elsewhere.sendall(decoy)
            listener.accept()[0].close()


if __name__ == "__main__":
    recorder.publisher()
    main()
