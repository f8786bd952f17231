"""Which rank keeps the others waiting, and how often that is told."""

from maskwright.training.watching.stragglers import Stragglers


def test_a_slow_rank_is_told_of_once_and_again_when_it_is_over():
    stragglers = Stragglers()
    rows = [[1, 1, 2, 1]] * 5 + [[1, 1, 1.2, 1]] * 2
    told = [stragglers.look(row) for row in rows]
    assert told[0][0] == {"slowest_rank": 2, "straggler_ratio": 2.0}
    events = [event for _, event in told]
    assert events == [
        None,
        None,
        "rank 2 keeps the others waiting: it computes 2.00 times as long as the median rank, 3 records in a "
        "row; look at its host",
        None,
        None,
        "rank 2 no longer keeps the others waiting",
        None,
    ]


def test_another_slow_rank_is_told_of_too():
    stragglers = Stragglers()
    events = [stragglers.look(row)[1] for row in [[2, 1, 1]] * 3 + [[1, 2, 1]] * 3]
    assert [event and event[:6] for event in events] == [None, None, "rank 0", None, None, "rank 1"]


def test_slow_records_that_are_not_in_a_row_are_no_event():
    stragglers = Stragglers()
    rows = [[1, 2, 1], [1, 2, 1], [1, 1, 1]] * 3
    assert [stragglers.look(row)[1] for row in rows] == [None] * 9


def test_of_two_ranks_one_can_be_slow_and_one_rank_never_is():
    assert Stragglers().look([1.0, 1.5]) == ({"slowest_rank": 1, "straggler_ratio": 1.5}, None)
    assert Stragglers().look([3.0]) == ({}, None)
    assert Stragglers().look([0.0, 0.0])[0]["straggler_ratio"] == 1.0


def test_short_records_are_put_together():
    stragglers = Stragglers()
    found = [stragglers.look([0.25, 0.5]) for _ in range(12)]
    assert [event is not None for _, event in found] == [False] * 11 + [True]
    assert found[0][0] == {"slowest_rank": 1, "straggler_ratio": 2.0}
