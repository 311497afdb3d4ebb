"""A client that publishes one task and ends."""

import recorder
from app import add

if __name__ == "__main__":
    recorder.publisher()
    add.delay(1, 1)
