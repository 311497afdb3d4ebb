"""The shop's Celery application. `celery -A shop worker` finds it here."""

import os

from celery import Celery

REDIS_URL = os.environ.get("SHOP_REDIS_URL", "redis://127.0.0.1:6379/0")

app = Celery("shop", broker=REDIS_URL, backend=REDIS_URL, include=["shop.tasks"])
app.conf.task_default_queue = "shop"
app.conf.broker_connection_retry_on_startup = True
