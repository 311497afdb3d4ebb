"""Celery's messages made by hand, and sent over a bare socket, for clients that are none of Celery's."""

import base64
import json
import socket
import urllib.parse

from celery import signals
from celery.utils import uuid

from app import app


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


def command(*words):
    """A command as Redis takes it."""
    words = [word.encode() for word in words]
    parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    return b"*%d\r\n%s" % (len(words), b"".join(parts))


def broker():
    """Where the broker listens."""
    url = urllib.parse.urlsplit(app.conf.broker_url)
    return url.hostname, url.port


def publish(client, task, *arguments):
    """Sends a message over a socket, waits for the answer, and tells the recorder as Celery does."""
    parts, envelope = message(task, *arguments)
    said = {"headers": parts.headers, "body": parts.body}
    signals.before_task_publish.send(task.name, **said, exchange="", routing_key="celery", properties={})
    client.sendall(command("LPUSH", "celery", envelope))
    assert client.recv(64).startswith(b":")
    signals.after_task_publish.send(task.name, **said)


def connect(**options):
    """A socket that is connected to the broker."""
    return socket.create_connection(broker(), **options)
