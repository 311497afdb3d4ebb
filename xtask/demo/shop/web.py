"""The shop's web app. Each request publishes a task and answers 202 with the task's id."""

import itertools

from celery import chain
from flask import Flask, request

from shop import tasks

app = Flask(__name__)
order_ids = itertools.count(1)


def accepted(result, **more):
    """The answer to a request whose work goes on in a worker."""
    return {"task_id": result.id, **more}, 202


@app.get("/health")
def health():
    """Says that the app answers."""
    return {"status": "ok"}


@app.post("/orders")
def create_order():
    """Takes an order: `{"email": …, "items": […]}`."""
    wanted = request.get_json()
    order = {"id": next(order_ids), "email": wanted["email"], "items": wanted["items"]}
    return accepted(tasks.process_order.delay(order), order_id=order["id"])


@app.post("/orders/<int:order_id>/courier")
def courier(order_id):
    """Has a courier booked; the task retries."""
    return accepted(tasks.book_courier.delay(order_id))


@app.post("/orders/<int:order_id>/refund")
def refund(order_id):
    """Gives the money back; the task fails."""
    return accepted(tasks.refund_order.delay(order_id))


@app.post("/reports/<day>")
def report(day):
    """A chain of three tasks."""
    steps = chain(tasks.collect_sales.s(day), tasks.render_report.s(), tasks.send_report.s())
    return accepted(steps.delay())


@app.post("/stocktakes")
def stocktake():
    """A task that starts a chord."""
    return accepted(tasks.take_stock.delay())
