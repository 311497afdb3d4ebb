"""Tasks with uncommon ends and uncommon follow-ups, beside those of the application."""

import os
import signal
import time

from celery import chain, chord, group

import recorder
from app import add, app, total


def _kill(request):
    """SIGKILL to this pool child, after saying when."""
    recorder.write("killing", t=time.time(), id=request.id)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True)
def killed_early(self):
    """Acked when it started: lost."""
    _kill(self.request)


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def killed_once(self):
    """Not yet acked: its message goes back, and the second attempt ends well."""
    if not self.request.delivery_info.get("redelivered"):
        _kill(self.request)
    return "second time"


@app.task(acks_late=True)
def late(seconds):
    time.sleep(seconds)
    return seconds


@app.task(rate_limit="4/s")
def limited(n):
    return n


@app.task
def errback(request, exc, traceback):
    """Called inside the failed task's process: no message."""


@app.task(bind=True)
def replaced_by_chain(self):
    raise self.replace(chain(add.s(1, 1), add.s(2)))


@app.task(bind=True)
def replaced_by_chord(self):
    raise self.replace(chord([add.s(i, 1) for i in range(3)], total.s()))


@app.task
def deep(levels):
    """Calls itself, and another task at each level."""
    add.delay(levels, levels)
    if levels > 1:
        deep.delay(levels - 1)
    return levels


@app.task
def inner_canvas():
    """A group and a chord that are sent by a task."""
    group(add.s(i, 2) for i in range(3)).delay()
    callback = chord([add.s(i, 3) for i in range(3)])(total.s())
    recorder.write("chord", t=time.time(), id=callback.id, header=[part.id for part in callback.parent.results])


@app.task
def broken(*_):
    raise KeyError("broken")
