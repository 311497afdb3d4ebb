"""A client that sends Celery's messages by hand, with redis.asyncio: `python -m by_asyncio COUNT BYTES`.

COUNT small tasks, then one whose argument has BYTES. Under TLS asyncio gives OpenSSL memory to work on, and moves what comes out of
it to the socket itself.

It connects some time before its first message, as a service does that connects when it starts: from its connection on an agent
prepares to read it, and a handshake in memory is over before the kernel is done with that.
"""

import asyncio
import sys

import redis.asyncio
from celery import signals

import recorder
from app import add, app, size
from by_hand import message

# Seconds.
SETTLED = 0.5


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
