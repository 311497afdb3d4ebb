"""What publisher.py can be told beyond plain calls: workflows, uncommon ends, and a great many of them at once."""

import time

from celery import chain, chord, group
from celery.utils import uuid

import lives
import recorder
from app import add, app, boom, flaky, hard_limited, ignored, noop, quiet, rejected, requeued, slow, soft_limited, total


def _chord(header, callback, send=lambda header, callback: chord(header)(callback)):
    """Sends a chord and records which messages its callback follows."""
    result = send(header, callback)
    recorder.write("chord", t=time.time(), id=result.id, header=[part.id for part in result.parent.results])


def chords(n="3"):
    for _ in range(int(n)):
        _chord([add.s(i, i) for i in range(4)], total.s())
    _chord(group(add.s(i, 1) for i in range(3)), total.s(), lambda header, callback: (header | callback).delay())
    _chord([chain(add.s(i, 1), add.s(1)) for i in range(2)], total.s())


def maps():
    total.map([[1], [2, 3]]).delay()
    add.starmap([(1, 2), (3, 4)]).delay()
    add.chunks([(i, i) for i in range(10)], 4).group().delay()


def linked():
    add.apply_async((1, 2), link=[add.s(10), add.s(20)])
    boom.apply_async((1,), link_error=quiet.s())
    boom.apply_async((2,), link_error=lives.errback.s())


def replacing():
    lives.replaced_by_chain.delay()
    lives.replaced_by_chord.delay()


def deepening(n="4"):
    lives.deep.delay(int(n))
    lives.inner_canvas.delay()


def stamped():
    single = add.s(1, 2)
    single.stamp(tenant="acme")
    single.delay()
    links = chain(add.s(1, 2), add.s(3))
    links.stamp(tenant="acme")
    links.delay()


def by_name():
    app.send_task("app.add", args=(5, 6))


def rated(n="6"):
    for i in range(int(n)):
        lives.limited.delay(i)


def broken_chain():
    chain(add.s(1, 2), lives.broken.s(), add.s(3)).delay()


def flaking(n="1"):
    for _ in range(int(n)):
        flaky.delay(2)


def disposed():
    """Messages that no pool ever gets, and runs that end in their own way."""
    for _ in range(3):
        known = uuid()
        app.control.revoke(known)
        time.sleep(0.2)
        add.apply_async((1, 2), task_id=known)
        add.apply_async((1, 2), countdown=0.6, expires=0.1)
        app.send_task("app.nowhere")
        ignored.delay()
        rejected.delay()
        requeued.delay()


def limits():
    for _ in range(3):
        soft_limited.delay()
        hard_limited.delay()


def terminating(n="3"):
    """Each is revoked with a signal while it runs."""
    for _ in range(int(n)):
        running = slow.delay(20)
        time.sleep(0.8)
        app.control.revoke(running.id, terminate=True)
        time.sleep(0.4)


def killing(n="3"):
    for _ in range(int(n)):
        lives.killed_early.delay()
        lives.killed_once.delay()


def lasting(n="6", seconds="1"):
    for _ in range(int(n)):
        lives.late.delay(float(seconds))


def recycling(n="120"):
    for i in range(int(n)):
        add.delay(i, 1)


def mixed(n="3000"):
    """About `n` tasks: a third in chords, a third in groups, the rest in chains and nested calls."""
    third = int(n) // 3
    for _ in range(third // 51):
        _chord([add.s(i, 1) for i in range(50)], total.s())
    for _ in range(third // 100):
        group(noop.s() for _ in range(100)).delay()
    for _ in range(third // 10):
        chain(add.s(i, 1) if i == 0 else add.s(1) for i in range(5)).delay()
        lives.deep.delay(2)


def announcing(n="5"):
    import news

    # A client that has not declared a fanout exchange on the connection it sends with sends nothing.
    for i in range(int(n)):
        news.announced.apply_async((i,), declare=[news.exchange])


def parked(n="3"):
    """Through a queue without consumers, whose messages the broker passes on when they have waited."""
    from kombu import Exchange, Queue

    passed, waiting = Exchange("passed"), Exchange("waiting")
    with app.connection_for_write() as connection:
        Queue("celery", passed, routing_key="celery").bind(connection).declare()
    lay_by = Queue(
        "parked",
        waiting,
        routing_key="parked",
        queue_arguments={
            "x-message-ttl": 300,
            "x-dead-letter-exchange": "passed",
            "x-dead-letter-routing-key": "celery",
        },
    )
    for i in range(int(n)):
        add.apply_async((i, 1), queue=lay_by)


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def contexts():
    """Trace contexts that a client sends without being instrumented."""
    for headers in (
        {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "tracestate": "acme=hidden", "baggage": "user=hidden"},
        {"b3": "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"},
        {"X-B3-TraceId": "463ac35c9f6413ad48485a3953bb6124", "X-B3-SpanId": "a2fb4a1d1a96d312", "X-B3-Sampled": "1"},
    ):
        add.apply_async((1, 2), headers=headers)
        flaky.apply_async((1,), headers=headers)


def unsampled():
    add.apply_async((1, 2), headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-00"})


def scenarios():
    return {
        name: value
        for name, value in globals().items()
        if getattr(value, "__module__", "") == __name__ and name[0] != "_" and name != "scenarios"
    }
