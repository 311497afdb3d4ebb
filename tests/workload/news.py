"""The application with a queue that every worker gets a copy of."""

from kombu import Queue
from kombu.common import Broadcast

from app import app

app.conf.task_queues = (Queue("celery"), Broadcast("news"))
app.conf.task_routes = {"news.announced": {"queue": "news"}}


@app.task(ignore_result=True)
def announced(n):
    """Runs once in each worker."""
