"""Work like a worker's, without a system call: JSON, pickle, dictionaries. Counts its rounds in the first 8 bytes of a file.

What a machine's moods (a busy neighbour, a slower clock) do to a worker, they do to this; what is hooked into system calls does nothing to it.
"""

import json
import mmap
import pickle
import struct
import sys
import uuid

HEADERS = "lang task id shadow eta expires group group_index retries timelimit root_id parent_id argsrepr kwargsrepr origin"
MESSAGE = {
    "body": "W1sxLDJdLHt9LHsiY2FsbGJhY2tzIjpudWxsLCJlcnJiYWNrcyI6bnVsbCwiY2hhaW4iOm51bGwsImNob3JkIjpudWxsfV0=",
    "headers": {name: str(place) for place, name in enumerate(HEADERS.split())},
    "properties": {"correlation_id": "x" * 36, "delivery_info": {"exchange": "", "routing_key": "celery"}},
}
# More than the nearest caches hold.
TABLES = [{place: str(place * n) for place in range(20)} for n in range(400)]


class Request:
    def __init__(self, names):
        self.names = names

    def get(self, name):
        return self.names.get(name, 0)


def once(n):
    message = json.loads(json.dumps(MESSAGE))
    message = pickle.loads(pickle.dumps(message))
    table = TABLES[n * 7 % len(TABLES)]
    names = {value: key for key, value in sorted(table.items())}
    Request(names).get("3")
    return f"{message['headers']} {uuid.UUID(int=n + 1 << 64)}"


def main():
    with open(sys.argv[1], "r+b") as file, mmap.mmap(file.fileno(), 8) as counter:
        n = 0
        while True:
            for _ in range(4):
                once(n)
            n += 1
            counter[:] = struct.pack("<Q", n)


if __name__ == "__main__":
    main()
