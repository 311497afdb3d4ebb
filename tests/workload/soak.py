"""A publisher and a worker in one program, made by hand, for more tasks than Celery runs in a reasonable time.

Told on standard input: `hold N` (so many tasks published, delivered and not yet run) or `run N` (so many more, to the end, with as many
held as are held). Says `ok` after each. What goes over the wire is what Celery's own programs send, several tasks in a piece.
"""

import json
import socket
import sys
import time

from app import noop
from by_hand import command, connect, message

# Tasks of a piece.
PIECE = 50
# What stands for a task's id and its message's tag in the pattern.
ID, TAG = "00000000-1111-4000-8000-000000000000", "00000000-2222-4000-8000-000000000000"


def pattern():
    """A task's messages, with ID and TAG where those of a task are."""
    parts, envelope = message(noop)
    tag = json.loads(envelope)["properties"]["delivery_tag"]
    envelope = envelope.replace(parts.headers["id"], ID).replace(tag, TAG)
    result = {"status": "SUCCESS", "result": None, "traceback": None, "children": [], "task_id": ID}
    meta = f"celery-task-meta-{ID}"
    held = json.dumps([json.loads(envelope), "", "celery"])
    publish = command("LPUSH", "celery", envelope)
    note = [
        command("MULTI"),
        command("ZADD", "unacked_index", str(time.time()), TAG),
        command("HSET", "unacked", TAG, held),
        command("EXEC"),
    ]
    store = [
        command("MULTI"),
        command("SETEX", meta, "60", json.dumps(result)),
        command("PUBLISH", meta, json.dumps(result)),
        command("EXEC"),
    ]
    ack = [
        command("MULTI"),
        command("ZREM", "unacked_index", TAG),
        command("HDEL", "unacked", TAG),
        command("EXEC"),
    ]
    return publish, b"".join(note), b"".join(store + ack)


class Connection:
    """Commands and as many answers."""

    def __init__(self):
        self.socket = connect()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def ask(self, commands, answers):
        self.socket.sendall(commands)
        for _ in range(answers):
            self.answer()

    def answer(self):
        line = self.file.readline()
        if line[:1] == b"$" and line != b"$-1\r\n":
            self.file.read(int(line[1:]) + 2)
        elif line[:1] == b"*":
            for _ in range(int(line[1:])):
                self.answer()
        elif line[:1] == b"-":
            sys.exit(line.decode())


class Soak:
    def __init__(self):
        self.client, self.consumer, self.results = Connection(), Connection(), Connection()
        self.publish, self.note, self.finish = pattern()
        self.begun = self.ended = 0

    def of(self, pattern, n):
        return pattern.replace(ID.encode(), b"%08x%s" % (n, ID[8:].encode())).replace(
            TAG.encode(), b"%08x%s" % (n, TAG[8:].encode())
        )

    def begin(self, count):
        tasks = range(self.begun, self.begun + count)
        self.client.ask(b"".join(self.of(self.publish, n) for n in tasks), count)
        for _ in tasks:
            self.consumer.ask(command("BRPOP", "celery", "1"), 1)
        self.consumer.ask(b"".join(self.of(self.note, n) for n in tasks), 4 * count)
        self.begun += count

    def end(self, count):
        tasks = range(self.ended, self.ended + count)
        self.results.ask(b"".join(self.of(self.finish, n) for n in tasks), 8 * count)
        self.ended += count

    def hold(self, count):
        while self.begun - self.ended < count:
            self.begin(PIECE)
        while self.begun - self.ended > count:
            self.end(PIECE)

    def run(self, count):
        for _ in range(0, count, PIECE):
            self.begin(PIECE)
            self.end(PIECE)


if __name__ == "__main__":
    soak = Soak()
    print("up", flush=True)
    for line in sys.stdin:
        what, count = line.split()
        {"hold": soak.hold, "run": soak.run}[what](int(count))
        print("ok", flush=True)
