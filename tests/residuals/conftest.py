"""No test fails on a stopwatch: a busy machine is slow at its own times."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
