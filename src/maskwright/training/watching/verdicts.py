"""Who is to blame when a run stands still: pure functions of what was heard of the ranks.

A rank is **dead** when it no longer beats and did not say that it ends; how long it was silent is measured
up to the last answer of the store, so that a store that is down makes nobody else look dead. It **hangs**
when it beats, but others have gone on and have waited for it for the whole time-out. Where all ranks stand at
the same place nobody can be blamed, and a long evaluation looks the same; so that takes longer to end a run.
"""

from __future__ import annotations

from collections.abc import Sequence

from .beats import Beats, Heard, Place

__all__ = [
    "dead_ranks",
    "failed_ranks",
    "find_stall",
    "find_trouble",
    "name_all",
    "slow_ranks",
    "store_silence",
]

_NAMED = 5
# A rank is certainly alive when one of its last so many beats was heard.
_BEATS_OF_THE_LIVING = 4


def name_all(lines: Sequence[str]) -> str:
    """Some sentences as one, without naming hundreds."""
    more = f"; and {len(lines) - _NAMED} more ranks" if len(lines) > _NAMED else ""
    return "; ".join(lines[:_NAMED]) + more


def _last(beats: Beats, rank: int) -> str:
    place = beats.last_place(rank)
    return f"its last step was {place}" if place.step else "it was still starting"


def _others(beats: Beats) -> list[tuple[int, Heard]]:
    return [(rank, one) for rank, one in enumerate(beats.heard) if rank != beats.rank]


def store_silence(beats: Beats, now: float, limit: float, keeper: str) -> str | None:
    """Whether the store itself has not answered for longer than the limit.

    Args:
        beats: what was heard.
        now: on the clock of `beats`, in seconds.
        limit: in seconds.
        keeper: `rank 0`, or whoever else keeps the store.
    """
    silent = now - beats.answered_at
    if silent <= limit:
        return None
    last = f"; {_last(beats, 0)}" if keeper == "rank 0" else ""
    return f"{keeper}, which keeps the store of the run, has not answered for {silent:.0f} s{last}"


def dead_ranks(beats: Beats, limit: float) -> list[str]:
    """Ranks that no longer beat and did not say that they end."""
    return [
        f"rank {rank} has not been heard of for {beats.answered_at - one.heard_at:.0f} s; "
        f"{_last(beats, rank)}"
        for rank, one in _others(beats)
        if not one.beat.ending and beats.answered_at - one.heard_at > limit
    ]


def failed_ranks(beats: Beats) -> list[str]:
    """Ranks that said that they end with an error of their own."""
    return [
        f"rank {rank} ended with an error at step {one.beat.place}: {one.beat.reason}"
        for rank, one in _others(beats)
        if one.beat.ending == "error"
    ]


def slow_ranks(beats: Beats, now: float, limit: float) -> list[str]:
    """Ranks that are alive and that others have waited for, for longer than the limit; perhaps this one."""
    fresh = _BEATS_OF_THE_LIVING * beats.read_interval
    places = [(rank, _place(beats, rank), one) for rank, one in enumerate(beats.heard) if not one.beat.ending]
    furthest = max((place.moves for _, place, _ in places), default=0)
    waited = [now - one.moved_at for _, place, one in places if place.moves == furthest]
    if not waited or max(waited) <= limit:
        return []
    return [
        f"rank {rank} has stood at step {place} for {now - one.moved_at:.0f} s while others wait for it"
        for rank, place, one in places
        if place.moves < furthest and now - one.moved_at > limit and beats.answered_at - one.heard_at <= fresh
    ]


def _place(beats: Beats, rank: int) -> Place:
    return beats.place if rank == beats.rank else beats.heard[rank].beat.place


def find_stall(beats: Beats, now: float, limit: float) -> str | None:
    """Whether no rank has gone on for longer than the limit."""
    stood = now - max(one.moved_at for one in beats.heard)
    if stood <= limit:
        return None
    return f"no rank has gone on for {stood:.0f} s; all stand at step {beats.place}"


def find_trouble(beats: Beats, now: float, limit: float, patience: float, keeper: str) -> str | None:
    """What is wrong with the run, or None.

    Args:
        beats: what was heard.
        now: on the clock of `beats`, in seconds.
        limit: seconds of silence, or of others waiting, after which a rank is given up.
        patience: seconds after which the run is given up where all stand at the same place.
        keeper: `rank 0`, or whoever else keeps the store.
    """
    silence = store_silence(beats, now, limit, keeper)
    if silence is not None:
        return silence
    named = dead_ranks(beats, limit)
    if not named and now - beats.heard[beats.rank].moved_at > limit:
        named = failed_ranks(beats)
    named = named or slow_ranks(beats, now, limit)
    return name_all(named) if named else find_stall(beats, now, patience)
