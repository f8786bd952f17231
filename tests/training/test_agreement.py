"""What processes agree on: targets, how many micro-batches, sums, and a signal that one of them got."""

from dataclasses import dataclass

from maskwright.parallel.world import SOLO, World
from maskwright.training.agreement import agree_on_reason, agree_on_size, signal_name


@dataclass(frozen=True)
class Batch:
    targets: dict


class Others(World):
    """A world whose other ranks say what they are given to say."""

    def __init__(self, rows, **fields):
        super().__init__(rank=0, size=len(rows) + 1, **fields)
        object.__setattr__(self, "rows", rows)

    def exchange(self, values):
        return [list(map(float, values)), *self.rows]


FILLER = Batch({"loss": 0, "next_sentence_loss": 0})


def batch(loss, following):
    return Batch({"loss": loss, "next_sentence_loss": following})


def test_one_process_counts_its_own():
    found = agree_on_size(SOLO, [batch(3, 1), batch(4, 1)], None, equally_many=True)
    assert (found.totals, len(found.batches)) == ({"loss": 7, "next_sentence_loss": 2}, 2)


def test_a_step_without_targets_divides_by_one():
    assert agree_on_size(SOLO, [Batch({"loss": 0})], None, equally_many=False).totals == {"loss": 1}


def test_targets_of_all_and_fillers_where_others_have_more():
    world = Others([[3.0, 10.0, 5.0], [0.0, 0.0, 0.0]])
    mine = [batch(1, 1)]
    found = agree_on_size(world, mine, lambda: FILLER, equally_many=True)
    assert found.totals == {"loss": 11, "next_sentence_loss": 6}
    assert found.batches == [mine[0], FILLER, FILLER]
    assert agree_on_size(world, mine, None, equally_many=False).batches == mine
    assert agree_on_size(world, [], lambda: FILLER, equally_many=False).batches == [FILLER]


def test_ranks_that_share_layers_count_once():
    world = Others([[1.0, 4.0], [1.0, 6.0], [1.0, 6.0]], tensor=2)
    assert agree_on_size(world, [Batch({"loss": 4})], None, equally_many=True).totals == {"loss": 10}
    sums, reason = agree_on_reason(
        Others([[0.0, 2.0], [0.0, 5.0], [0.0, 5.0]], tensor=2), {"loss": 2.0}, None
    )
    assert (sums, reason) == ({"loss": 7.0}, None)


def test_a_signal_of_one_is_a_signal_for_all():
    sums, reason = agree_on_reason(Others([[15.0, 2.0, 8.0]]), {"tokens": 7, "loss": 1.5}, None)
    assert (sums, reason) == ({"loss": 3.5, "tokens": 15.0}, "SIGTERM")
    assert agree_on_reason(SOLO, {"loss": 1.0}, "SIGUSR1") == ({"loss": 1.0}, "SIGUSR1")
    assert signal_name(0) is None
