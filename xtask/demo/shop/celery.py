"""The shop's Celery application. `celery -A shop worker` finds it here."""

import os

from celery import Celery

BROKER_URL = os.environ.get("SHOP_BROKER_URL", "redis://127.0.0.1:6379/0")
RESULTS_URL = os.environ.get("SHOP_RESULTS_URL", "redis://127.0.0.1:6379/0")

app = Celery("shop", broker=BROKER_URL, backend=RESULTS_URL, include=["shop.tasks"])
app.conf.task_default_queue = "shop"
app.conf.broker_connection_retry_on_startup = True
