"""Who is blamed when a run stands still, and when nobody is."""

import pytest
import torch.distributed as dist
from watch_doubles import LIMIT, Clock, Fleet, Shelf

from maskwright.training.watching.beats import Beat, Beats, Place
from maskwright.training.watching.verdicts import find_trouble, name_all, slow_ranks


def test_a_beat_goes_through_the_store_as_text():
    beat = Beat(3, Place(7, 17, "saving"), "error", "out of memory")
    assert Beat.from_text(beat.to_text().encode()) == beat


def test_nothing_is_wrong_with_ranks_that_beat_and_move():
    fleet = Fleet(3)
    for step in range(1, 200):
        for rank in fleet.ranks:
            rank.move(step, "computing")
        fleet.pass_time(1, range(3))
        assert fleet.trouble() is None


def test_a_rank_that_no_longer_beats_is_dead():
    fleet = Fleet(3)
    for rank in fleet.ranks:
        rank.move(17, "computing")
    fleet.beat(range(3))
    fleet.pass_time(60, [0, 2])
    assert fleet.trouble() is None
    fleet.pass_time(1, [0, 2])
    assert (
        fleet.trouble()
        == "rank 1 has not been heard of for 61 s; its last step was 17 (computing)"
        == fleet.trouble(2)
    )


def test_a_rank_that_never_beat_is_dead_too():
    clock, shelf = Clock(), Shelf()
    beats = Beats(shelf, 0, 2, 1.0, clock)
    clock.now += 61
    beats.exchange()
    told = find_trouble(beats, clock(), LIMIT, LIMIT, "rank 0")
    assert told == "rank 1 has not been heard of for 61 s; it was still starting"


def test_a_rank_that_said_it_is_done_is_not_dead():
    fleet = Fleet(2)
    fleet.ranks[1].end("done")
    fleet.beat([1, 0])
    fleet.pass_time(100, [0])
    assert fleet.trouble() is None


def test_a_rank_that_others_wait_for_hangs():
    fleet = Fleet(3)
    for rank in fleet.ranks:
        rank.move(17, "reading data")
    for rank in (0, 2):
        fleet.ranks[rank].move(17, "computing")
    fleet.beat(range(3))
    fleet.pass_time(60, range(3))
    assert fleet.trouble() is None
    fleet.pass_time(2, range(3))
    expected = "rank 1 has stood at step 17 (reading data) for 62 s while others wait for it"
    assert [fleet.trouble(rank) for rank in range(3)] == [expected] * 3


def test_a_rank_that_is_silent_does_not_hang():
    fleet = Fleet(2)
    fleet.ranks[0].move(1, "computing")
    fleet.pass_time(10, [0])
    assert slow_ranks(fleet.ranks[0], fleet.clock(), 5.0) == []
    fleet.pass_time(1, [0, 1])
    assert len(slow_ranks(fleet.ranks[0], fleet.clock(), 5.0)) == 1


def test_a_rank_is_not_blamed_before_others_have_waited_for_the_whole_limit():
    fleet = Fleet(2)
    fleet.pass_time(100, range(2))
    fleet.ranks[0].move(1, "computing")
    fleet.pass_time(59, range(2))
    assert fleet.trouble() is None


def test_all_at_the_same_place_are_given_up_when_patience_ends():
    fleet = Fleet(2)
    for rank in fleet.ranks:
        rank.move(17, "losses")
    fleet.beat(range(2))
    fleet.pass_time(80, range(2))
    assert fleet.trouble(patience=90) is None
    assert fleet.trouble(patience=79) == "no rank has gone on for 80 s; all stand at step 17 (losses)"


def test_a_store_that_is_down_makes_no_other_rank_look_dead():
    fleet = Fleet(3)
    fleet.ranks[0].move(5, "computing")
    fleet.beat([0, 1])
    fleet.shelf.down = True
    fleet.clock.now += 61
    with pytest.raises(dist.DistNetworkError):
        fleet.ranks[1].exchange()
    told = "which keeps the store of the run, has not answered for 61 s"
    assert fleet.trouble(1) == f"rank 0, {told}; its last step was 5 (computing)"
    assert (
        fleet.trouble(1, keeper="the launcher on the first host") == f"the launcher on the first host, {told}"
    )


def test_a_rank_that_ended_with_an_error_is_named_when_this_one_waits():
    fleet = Fleet(2)
    fleet.ranks[1].move(3, "computing")
    fleet.ranks[1].end("error", "DataError: no text")
    fleet.beat([1, 0])
    assert fleet.trouble() is None
    fleet.pass_time(61, [0])
    assert fleet.trouble() == "rank 1 ended with an error at step 3 (computing): DataError: no text"


def test_time_in_which_this_process_was_stopped_is_forgiven():
    fleet = Fleet(2)
    fleet.clock.now += 500
    fleet.ranks[0].forgive(500)
    assert fleet.trouble() is None
    fleet.beat([0])
    assert fleet.trouble() is None


def test_many_ranks_read_each_other_more_rarely():
    clock, shelf = Clock(), Shelf()
    beats = Beats(shelf, 0, 256, 1.0, clock)
    reads = []
    shelf.check = lambda keys: bool(reads.append(keys))
    for _ in range(8):
        beats.exchange()
        clock.now += 1.0
    assert len(reads) == 2 * 255


def test_hundreds_of_ranks_are_counted_and_not_named():
    assert name_all([str(number) for number in range(9)]) == "0; 1; 2; 3; 4; and 4 more ranks"


def test_the_recorder_of_a_dead_rank_knows_more_than_its_last_beat():
    beats = Beats(Shelf(), 0, 2, 1.0, Clock(), recorded=lambda rank: Place(0, 9, "saving"))
    assert str(beats.last_place(1)) == "9 (saving)"
