"""Python loads this at its start: the functions that vine 1.3 imports (Celery 4.4) and never calls, gone since Python 3.11."""

import inspect

for name in ("formatargspec", "getargspec"):
    if not hasattr(inspect, name):
        setattr(inspect, name, inspect.getfullargspec)
