"""What really happened, by Celery's own signals: the truth that spans are compared with.

Loaded beside the application by the tests (`celery worker --include recorder`, `import recorder` in a publisher). Each
process appends JSON lines to its own file in WORKLOAD_TRUTH_DIR; tests/e2e/truth.rs joins them. Handlers do one
`time.time()` first and one unbuffered write last: nothing is lost when a pool child is killed, and the watched
program is slowed as little as can be.
"""

import ctypes
import json
import os
import threading
import time

import celery
import kombu
import redis
from celery import signals

DIRECTORY = os.environ["WORKLOAD_TRUTH_DIR"]
_file = None
_pending = threading.local()
# gevent and eventlet put greenlets in the place of threads: asked of the C library, a thread is the kernel's.
_libc = ctypes.CDLL(None)


def _reopen():
    global _file
    _file = None


os.register_at_fork(after_in_child=_reopen)


def write(ev, **fields):
    """Appends one line; the first line of a process says who it is and what its clocks show."""
    global _file
    if _file is None:
        path = os.path.join(DIRECTORY, f"{os.getpid()}.jsonl")
        _file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        write("clock", wall=time.time(), monotonic=time.monotonic())
    line = {"ev": ev, "pid": os.getpid(), "tid": _libc.gettid(), **fields}
    os.write(_file, (json.dumps(line) + "\n").encode())


def publisher():
    """Marks this process as one that publishes."""
    write("publisher", t=time.time())


def child():
    """Marks this process as forked by its parent: both are one program."""
    write("child", parent=os.getppid())


def _cut(value):
    return repr(value)[:200]


def _context(headers):
    """The trace context of a message; B3's single or several headers in the form of a traceparent."""
    several = [headers.get(f"X-B3-{name}") for name in ("TraceId", "SpanId", "Sampled")]
    b3 = headers.get("b3") or "-".join(filter(None, several))
    if b3 and not headers.get("traceparent"):
        trace, span, sampled = b3.split("-")[:3]
        return f"00-{trace:0>32}-{span}-{'01' if sampled in ('1', 'd') else '00'}"
    return headers.get("traceparent")


@signals.before_task_publish.connect
def _before_publish(sender=None, body=None, headers=None, routing_key=None, exchange=None, properties=None, **_):
    t = time.time()
    protocol = 2 if "id" in headers else 1
    if protocol == 1:
        # All of it stands in the body, and less of it.
        said = {**body, "root_id": body["id"], "parent_id": None, "origin": None, "group": body["taskset"]}
        headers = {**headers, **said}
    unfinished = getattr(_pending, "publish", None)
    if unfinished:
        write("publish", **unfinished, after=None)
    _pending.publish = {
        "id": headers["id"],
        "name": headers["task"],
        "protocol": protocol,
        "before": t,
        "retries": headers["retries"],
        "replacements": headers.get("replaced_task_nesting") or 0,
        "eta": headers["eta"],
        "expires": headers["expires"],
        "group": headers["group"],
        "root_id": headers["root_id"],
        "parent_id": headers["parent_id"],
        "origin": headers["origin"],
        "traceparent": _context(headers),
        "stamps": headers.get("stamps") or None,
        "routing_key": routing_key,
        "exchange": getattr(exchange, "name", exchange),
        "priority": (properties or {}).get("priority"),
    }


@signals.after_task_publish.connect
def _after_publish(sender=None, headers=None, **_):
    t = time.time()
    finished, _pending.publish = getattr(_pending, "publish", None), None
    if finished:
        # An instrumentation may have put its context there after our handler ran.
        finished["traceparent"] = _context(headers)
        write("publish", **finished, after=t)


@signals.task_received.connect
def _received(sender=None, request=None, **_):
    write("received", t=time.time(), id=request.id)


@signals.task_prerun.connect
def _prerun(sender=None, task_id=None, task=None, **_):
    t = time.time()
    request = task.request
    redelivered = bool((request.delivery_info or {}).get("redelivered"))
    said = {"retries": request.retries, "replacements": getattr(request, "replaced_task_nesting", 0) or 0}
    write("prerun", t=t, id=task_id, name=task.name, redelivered=redelivered, **said)


@signals.task_postrun.connect
def _postrun(sender=None, task_id=None, retval=None, state=None, **_):
    write("postrun", t=time.time(), id=task_id, state=state, retval=_cut(retval))


@signals.task_retry.connect
def _retry(sender=None, request=None, reason=None, **_):
    write("retry", t=time.time(), id=request.id, reason=_cut(reason))


@signals.task_failure.connect
def _failure(sender=None, task_id=None, exception=None, **_):
    write("failure", t=time.time(), id=task_id, exception=_cut(exception))


@signals.task_revoked.connect
def _revoked(sender=None, request=None, terminated=None, signum=None, expired=None, **_):
    t = time.time()
    write("revoked", t=t, id=request.id, terminated=terminated, signum=str(signum), expired=expired)


@signals.task_unknown.connect
def _unknown(sender=None, id=None, **_):
    write("unknown", t=time.time(), id=id)


@signals.task_rejected.connect
def _rejected(sender=None, message=None, **_):
    write("rejected", t=time.time(), id=(message.headers or {}).get("id"))


@signals.worker_ready.connect
def _worker_ready(sender=None, **_):
    write("ready", t=time.time(), hostname=sender.hostname, versions=_versions())


@signals.worker_process_init.connect
def _child(sender=None, **_):
    child()


def _versions():
    import amqp
    import billiard

    return {
        "celery": celery.__version__,
        "kombu": kombu.__version__,
        "redis": redis.__version__,
        "amqp": amqp.__version__,
        "billiard": billiard.__version__,
    }
