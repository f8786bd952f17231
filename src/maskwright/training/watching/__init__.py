"""What looks after a run from the side: flight recorder, heartbeats, watchdog, stragglers."""

from .flight import Flight, describe_flight, read_flight
from .outside import tell_of_lost_ranks
from .run_watch import RunWatch
from .summary import summarize_flight

__all__ = [
    "Flight",
    "RunWatch",
    "describe_flight",
    "read_flight",
    "summarize_flight",
    "tell_of_lost_ranks",
]
