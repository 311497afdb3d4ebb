"""A client that forks COUNT children, ALIVE of them at a time, while it publishes: `python -m storm COUNT ALIVE`."""

import os
import signal
import sys

import recorder
from app import add
from by_hand import connect, publish

# A publish for so many children.
EVERY = 100


def main():
    count, alive = map(int, sys.argv[1:])
    client = connect()
    children = []
    for n in range(count):
        child = os.fork()
        if not child:
            signal.pause()
        children.append(child)
        if len(children) > alive:
            os.kill(children.pop(0), signal.SIGKILL)
        if n % EVERY == 0:
            publish(client, add, n, n)
    for child in children:
        os.kill(child, signal.SIGKILL)
    for _ in range(count):
        os.wait()
    publish(client, add, count, count)


if __name__ == "__main__":
    recorder.publisher()
    main()
