"""The application with a schedule for `celery beat`, its publishes recorded."""

import recorder  # noqa: F401  (connects its handlers)
from app import app

app.conf.beat_schedule = {"tick": {"task": "app.add", "schedule": 1.0, "args": (1, 1)}}
