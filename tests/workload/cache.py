"""A cache on the broker's Redis: GET and SET of 1 KiB values on connections of their own.

Run as a program it is another process of the host (a web server's cache); loaded into a worker (`--include cache`) it
is a thread in every pool child, so that cache and Celery share one process. `WORKLOAD_CACHE_RATE` commands a second, in
pipelines of 50 that are packed once: the load falls on sockets, not on the packer.
"""

import os
import signal
import threading
import time
from urllib.parse import urlparse

import redis
from celery.signals import worker_process_init

DEPTH = 50
VALUE = b"v" * 1024


class Cache:
    def __init__(self, rate):
        url = urlparse(os.environ["WORKLOAD_BROKER"])
        client = redis.Redis(host=url.hostname, port=url.port)
        # redis-py's handshake first, as any application's cache does it.
        client.set("cache:warm", VALUE)
        pool = client.connection_pool
        self.connection = pool.get_connection()
        self.interval = DEPTH / rate
        commands = []
        for n in range(DEPTH // 2):
            commands += [("SET", f"cache:{n}", VALUE), ("GET", f"cache:{n}")]
        self.packed = b"".join(self.connection.pack_commands(commands))
        self.done = 0

    def step(self):
        self.connection.send_packed_command([self.packed])
        for _ in range(DEPTH):
            self.connection.read_response()
        self.done += DEPTH

    def run(self, stop):
        begin, steps = time.monotonic(), 0
        while not stop.is_set():
            self.step()
            steps += 1
            ahead = begin + steps * self.interval - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
        return self.done / (time.monotonic() - begin)


@worker_process_init.connect
def _in_child(**_):
    rate = os.environ.get("WORKLOAD_CACHE_RATE")
    if rate:
        cache = Cache(float(rate))
        threading.Thread(target=cache.run, args=(threading.Event(),), daemon=True).start()


if __name__ == "__main__":
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    own = Cache(float(os.environ["WORKLOAD_CACHE_RATE"]))
    print("up", flush=True)
    print(f"rate {own.run(ended):.0f}", flush=True)
