"""What processes agree on: targets, how many micro-batches, sums, and a signal that one of them got."""

import re
from dataclasses import dataclass

import pytest

from maskwright.core.errors import StorageError
from maskwright.parallel.world import SOLO, World
from maskwright.training.agreement import (
    DataAwayError,
    agree_on_folder,
    agree_on_reason,
    agree_on_size,
    report_missing_data,
    signal_name,
)
from ranks import run_ranks


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


def test_a_process_without_data_ends_the_step_of_all():
    with pytest.raises(DataAwayError, match=r"^rank 2 could not read its data$") as found:
        agree_on_size(Others([[1.0, 4.0], [-1.0, 0.0]]), [Batch({"loss": 4})], None, equally_many=True)
    assert found.value.rank == 2
    with pytest.raises(DataAwayError, match="rank 0 could"):
        report_missing_data(Others([[1.0, 4.0, 1.0], [-1.0, 0.0, 0.0]]), 2)
    with pytest.raises(DataAwayError, match="rank 0 could"):
        report_missing_data(SOLO, 1)


def test_a_signal_of_one_is_a_signal_for_all():
    sums, reason = agree_on_reason(Others([[15.0, 2.0, 8.0]]), {"tokens": 7, "loss": 1.5}, None)
    assert (sums, reason) == ({"loss": 3.5, "tokens": 15.0}, "SIGTERM")
    assert agree_on_reason(SOLO, {"loss": 1.0}, "SIGUSR1") == ({"loss": 1.0}, "SIGUSR1")
    assert signal_name(0) is None


def test_one_process_has_its_folder_to_itself(tmp_path):
    agree_on_folder(SOLO, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def folders(world, folder):
    """All see the folder; some see it late; some have another one; it cannot be written."""
    own, said, pauses = folder / f"own-{world.rank}", [], []
    (folder / "late").mkdir(exist_ok=True)
    shared = folder / "late" / "shared"

    def appear(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            shared.symlink_to(folder / "run")

    agree_on_folder(world, folder / "run")
    agree_on_folder(world, folder / "run" if world.is_main else shared, appear)
    for place in (own, folder / "file"):
        host = f"node-{world.rank // 2}"
        with pytest.raises(StorageError) as caught:
            agree_on_folder(world, place, lambda seconds: None, host)
        said.append(str(caught.value).replace(str(folder), ""))
    world.wait()
    return said, pauses, [path.name for path in (folder / "run").iterdir()]


@pytest.mark.distributed
def test_processes_that_have_another_folder_are_named(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "own-0").mkdir()
    (tmp_path / "file").write_text("in the way")
    first, second = run_ranks(2, folders, tmp_path)
    assert first[1:] == ([], [])
    assert second[1:] == ([0.5] * 3, [])
    for rank, (told, _, _) in enumerate((first, second)):
        assert told[0] == (
            f"/own-{rank}: is another folder on node-0 (rank 1) than on node-0 (rank 0); put the output on "
            "storage that all machines share, and name it by the same path on each"
        )
        assert "/file" in told[1]
    assert not list((tmp_path / "own-0").iterdir())


def test_many_ranks_are_named_in_short(tmp_path):
    class Cluster(Others):
        def gather(self, value):
            return [value, *((f"node-{rank // 4}", rank in (1, 6)) for rank in range(1, 12))]

        def from_main(self, value):
            return value

        def on_main(self, work):
            work()

    with pytest.raises(
        StorageError,
        match=re.escape(
            "is another folder on node-0 (ranks 2 to 3); node-1 (ranks 4 to 5, 7); node-2 (ranks 8 to 11) "
            "than on first (rank 0); put the output on storage that all machines share"
        ),
    ):
        agree_on_folder(Cluster([[0.0]] * 11), tmp_path, host="first")
    assert not list(tmp_path.iterdir())
