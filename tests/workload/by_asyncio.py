"""A client that sends Celery's messages by hand, with redis.asyncio: `python -m by_asyncio COUNT BYTES`.

COUNT small tasks, then one whose argument has BYTES. Under TLS asyncio gives OpenSSL memory to work on, and moves what comes out of
it to the socket itself.

It connects some time before its first message, as a service does that connects when it starts: from its connection on an agent
prepares to read it, and a handshake in memory is over before the kernel is done with that.
"""

import asyncio
import base64
import json
import sys

import redis.asyncio
from celery import signals
from celery.utils import uuid

import recorder
from app import add, app, size

# Seconds.
SETTLED = 0.5


def message(task, *arguments):
    """What Celery would send, and its envelope on a list of Redis."""
    parts = app.amqp.as_task_v2(uuid(), task.name, args=arguments)
    properties = {
        "correlation_id": parts.headers["id"],
        "reply_to": "",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "celery"},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": uuid(),
    }
    envelope = {
        "body": base64.b64encode(json.dumps(parts.body).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": parts.headers,
        "properties": properties,
    }
    return parts, json.dumps(envelope)


async def publish(client, task, *arguments):
    parts, envelope = message(task, *arguments)
    said = {"headers": parts.headers, "body": parts.body}
    signals.before_task_publish.send(task.name, **said, exchange="", routing_key="celery", properties={})
    await client.lpush("celery", envelope)
    signals.after_task_publish.send(task.name, **said)


async def main():
    count, length = map(int, sys.argv[1:])
    async with redis.asyncio.from_url(app.conf.broker_url, **app.conf.broker_use_ssl or {}) as client:
        await client.ping()
        await asyncio.sleep(SETTLED)
        for n in range(count):
            await publish(client, add, n, n)
        await publish(client, size, "x" * length)


if __name__ == "__main__":
    recorder.publisher()
    asyncio.run(main())
