"""The watched application: ordinary Celery tasks without a line of tracing.

Broker and result backend come from the environment, so that one module serves every test.
"""

import json
import os
import signal
import time

from celery import Celery, chain
from celery.exceptions import Ignore, Reject

app = Celery("app", broker=os.environ["WORKLOAD_BROKER"], backend=os.environ["WORKLOAD_BACKEND"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    result_expires=600,
    task_send_sent_event=os.environ.get("WORKLOAD_EVENTS") == "1",
    worker_hijack_root_logger=False,
    **json.loads(os.environ.get("WORKLOAD_CONFIG", "{}")),
)


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def slow(seconds):
    time.sleep(seconds)
    return seconds


@app.task
def size(blob):
    return len(blob)


@app.task(ignore_result=True)
def quiet(n):
    """No result is ever written for it."""


@app.task(ignore_result=True)
def noop():
    """The least a task can be: what the load tests publish by the thousand."""


@app.task
def boom(n):
    raise ValueError(f"bad {n}")


@app.task
def ignored():
    raise Ignore


@app.task(bind=True, max_retries=3)
def flaky(self, failures):
    if self.request.retries < failures:
        raise self.retry(exc=KeyError(f"attempt {self.request.retries}"), countdown=0.2)
    return self.request.retries


@app.task(bind=True, autoretry_for=(RuntimeError,), max_retries=1, default_retry_delay=0)
def hopeless(self):
    raise RuntimeError("never")


@app.task(bind=True, acks_late=True)
def requeued(self):
    """Sends its message back once: one publish, two runs."""
    if not self.request.delivery_info.get("redelivered"):
        raise Reject("once more", requeue=True)
    return "second time"


@app.task(bind=True, acks_late=True)
def rejected(self):
    raise Reject("not wanted", requeue=False)


@app.task
def killed():
    """What the kernel does to a pool child that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(soft_time_limit=0.2)
def soft_limited():
    time.sleep(5)


@app.task(time_limit=0.4)
def hard_limited():
    time.sleep(5)


@app.task
def nested(children):
    for n in range(children):
        add.delay(n, n)
    return children


@app.task
def nested_chain():
    chain(add.s(1, 1), add.s(2)).delay()


@app.task(bind=True)
def replaced(self):
    raise self.replace(add.s(3, 4))
