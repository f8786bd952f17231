"""What looks after a run from the side: flight recorder, heartbeats, watchdog, stragglers."""

from .flight import Flight, describe_flight, read_flight
from .run_watch import RunWatch

__all__ = ["Flight", "RunWatch", "describe_flight", "read_flight"]
