"""A long-lived client of the application, driven line by line over stdin.

Each line is `SCENARIO [ARGUMENT]`; when all its messages are sent, `ok SCENARIO` is answered on stdout. The process
keeps its broker connections between lines, as a web server does.
"""

import os
import sys
import threading
import time

from celery import chain, chord, group

import canvas
import recorder
from app import (
    add,
    app,
    boom,
    flaky,
    hard_limited,
    hopeless,
    ignored,
    killed,
    nested,
    nested_chain,
    noop,
    quiet,
    rejected,
    replaced,
    requeued,
    size,
    slow,
    soft_limited,
    total,
)

MIB = 1024 * 1024
# How much longer than on a usual machine things may take.
PATIENCE = float(os.environ.get("CELERYSCOPE_PATIENCE", "1"))
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def connecting():
    """A connection that nothing is published on."""
    with app.connection_for_write() as connection:
        connection.ensure_connection()


def simple(n="1"):
    for i in range(int(n)):
        add.delay(i, i)


def paced(n="100"):
    """One at a time, waiting for each: runs that never queue, for the table of times."""
    for i in range(int(n)):
        add.delay(i, 1).get(timeout=10 * PATIENCE)


def chained():
    chain(add.s(1, 2), add.s(3), add.s(4)).delay()


def grouped(n="5"):
    group(add.s(i, i) for i in range(int(n))).delay()


def chorded(n="4"):
    chord([add.s(i, i) for i in range(int(n))])(total.s())


def group_then_task():
    (group(add.s(i, 1) for i in range(3)) | total.s()).delay()


def nesting(n="3"):
    nested.delay(int(n))
    nested_chain.delay()


def retries():
    flaky.delay(2)
    hopeless.delay()


def failures(n="2"):
    for i in range(int(n)):
        boom.delay(i)


def losses():
    """Runs that do not end by themselves; each costs the worker a pool child, so one at a time."""
    for task in (soft_limited, hard_limited, killed):
        task.delay().get(timeout=20 * PATIENCE, propagate=False)


def revokes():
    """One before it starts, one while it runs."""
    held = add.apply_async((1, 2), countdown=1)
    app.control.revoke(held.id)
    running = slow.delay(10)
    time.sleep(1)
    app.control.revoke(running.id, terminate=True)


def eta():
    add.apply_async((1, 2), countdown=1)
    add.apply_async((3, 4), countdown=0.5)


def countdown(n="3"):
    for i in range(int(n)):
        add.apply_async((i, 2), countdown=1)


def expiry():
    add.apply_async((1, 2), countdown=1, expires=0.2)
    add.apply_async((1, 2), expires=60)


def priorities():
    for priority in (0, 3, 5, 9):
        add.apply_async((priority, 0), priority=priority)


def ignoring():
    for n in range(3):
        quiet.delay(n)
    ignored.delay()


def large(mib="1"):
    size.delay("x" * (int(mib) * MIB))


def channels(n="12"):
    """Through three channels of one connection in turn."""
    with app.connection_for_write() as connection:
        producers = [app.amqp.Producer(connection.channel()) for _ in range(3)]
        for i in range(int(n)):
            add.apply_async((i, 1), producer=producers[i % 3])


def weighing(text):
    size.delay(text)


def threaded(threads="4", n="5"):
    """Publishes from several threads at a time."""
    several = [threading.Thread(target=simple, args=(n,)) for _ in range(int(threads))]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()


def requeues():
    requeued.delay()
    rejected.delay()


def replaces():
    replaced.delay()


def traced():
    add.apply_async((1, 2), headers={"traceparent": TRACEPARENT})


def control():
    """Remote control: pidbox messages and their replies, none of them a task."""
    app.control.ping(timeout=0.5)
    app.control.inspect(timeout=0.5).active_queues()


def callbacks():
    add.apply_async((1, 2), link=add.s(10), link_error=quiet.s())


def sleeping(n="6", seconds="1"):
    for _ in range(int(n)):
        slow.delay(float(seconds))


def forking(processes="2", n="5"):
    """Publishes from children of this process, which inherit its descriptors."""
    children = []
    for _ in range(int(processes)):
        pid = os.fork()
        if pid == 0:
            recorder.child()
            simple(n)
            os._exit(0)
        children.append(pid)
    for pid in children:
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError("a forked publisher failed")


def load(n="5000", rate="500"):
    """`n` messages at `rate` a second; catches up when it was held up."""
    step, begin = 1 / float(rate), time.monotonic()
    for i in range(int(n)):
        ahead = begin + i * step - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        noop.delay()
    print(f"rate {int(n) / (time.monotonic() - begin):.0f}", flush=True)


def scenarios():
    skipped = ("scenarios", "main")
    return {k: v for k, v in globals().items() if getattr(v, "__module__", "") == __name__ and k not in skipped}


def main():
    recorder.publisher()
    known = {**scenarios(), **canvas.scenarios()}
    print("up", flush=True)
    for line in sys.stdin:
        name, *arguments = line.split()
        known[name](*arguments)
        print(f"ok {name}", flush=True)


if __name__ == "__main__":
    main()
