"""The application with a queue that every worker gets a copy of."""

from kombu import Exchange, Queue
from kombu.common import Broadcast

from app import app

exchange = Exchange("news", type="fanout")
app.conf.task_queues = (Queue("celery"), Broadcast("news", exchange=exchange))
app.conf.task_routes = {"news.announced": {"queue": "news"}}


@app.task(ignore_result=True)
def announced(n):
    """Runs once in each worker."""
