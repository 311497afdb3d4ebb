"""What the shop does behind the web app's back. The sleeps stand for databases and other people's APIs."""

import time

from celery import chord

from shop.celery import app

SHELVES = ("fruit", "bread", "cheese")


class CourierBusy(Exception):
    """The courier takes no bookings just now."""


class CardDeclined(Exception):
    """The bank says no."""


@app.task(name="process_order")
def process_order(order):
    """Validates and pays an order, then has the customer told."""
    validate(order)
    receipt = pay(order)
    send_confirmation_email.delay(order["email"], order["id"], receipt)
    return {"order": order["id"], "receipt": receipt}


def validate(order):
    """Refuses an empty order."""
    time.sleep(0.01)
    if not order["items"]:
        raise ValueError(f"order {order['id']} is empty")


def pay(order):
    """Charges the card and returns the receipt's number."""
    time.sleep(0.06)
    return f"receipt-{order['id']}"


@app.task(name="send_confirmation_email")
def send_confirmation_email(email, order_id, receipt):
    """Sends the mail that the order is paid."""
    time.sleep(0.03)


@app.task(name="book_courier", bind=True, max_retries=3)
def book_courier(self, order_id):
    """Books a courier, who is always busy at the first call."""
    time.sleep(0.02)
    if self.request.retries == 0:
        raise self.retry(exc=CourierBusy("try again in a second"), countdown=1)
    return f"courier-{order_id}"


@app.task(name="refund_order")
def refund_order(order_id):
    """Fails: the card is gone."""
    time.sleep(0.01)
    raise CardDeclined(f"no refund for order {order_id}: the card has expired")


@app.task(name="collect_sales")
def collect_sales(day):
    """The report's first step."""
    time.sleep(0.02)
    return {"day": day, "orders": 3, "total": 87.5}


@app.task(name="render_report")
def render_report(sales):
    """The report's second step."""
    time.sleep(0.04)
    return f"{sales['day']}: {sales['orders']} orders, {sales['total']} EUR"


@app.task(name="send_report")
def send_report(report):
    """The report's last step."""
    time.sleep(0.02)
    return report


@app.task(name="take_stock", ignore_result=True)
def take_stock():
    """Counts all shelves at once and adds the counts up when the last is done."""
    chord(count_shelf.s(shelf) for shelf in SHELVES)(sum_stock.s())


@app.task(name="count_shelf")
def count_shelf(shelf):
    """Counts one shelf."""
    time.sleep(0.02)
    return len(shelf)


@app.task(name="sum_stock")
def sum_stock(counts):
    """The chord's callback."""
    return sum(counts)
