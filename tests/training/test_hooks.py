"""What watches a run: lines that survive a crash, a full disk, and numbers that JSON does not know."""

import errno
import json
import logging
import math

import pytest

from maskwright.core.errors import MissingDependencyError, StorageError
from maskwright.training.hooks import JsonLines, LogLines, TensorBoard

TRAIN = {
    "kind": "train",
    "step": 3,
    "loss": 5.25,
    "lr": 1e-3,
    "grad_norm": 1.5,
    "tokens_per_second": 1234.5,
    "seconds": 10.0,
    "step_seconds": 20.0,
}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_record_is_there_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    hook = JsonLines(path)
    hook.record({"kind": "event", "step": 1, "message": "größer"})
    assert lines(path) == [{"kind": "event", "step": 1, "message": "größer"}]
    hook.record({"kind": "train", "step": 2, "loss": math.nan, "rate": math.inf})
    assert lines(path)[1] == {"kind": "train", "step": 2, "loss": None, "rate": None}
    hook.close()


def test_lines_of_an_earlier_start_stay_and_a_torn_one_is_closed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    hook = JsonLines(path)
    hook.record({"step": 3})
    hook.close()
    assert path.read_text() == '{"step": 1}\n{"step": 2, "lo\n{"step": 3}\n'


class FullDisk:
    """A file that takes a few bytes and then refuses until there is room."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = min(self.room, len(data))
        self.room -= count
        return self.file.write(data[:count])

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def test_a_full_disk_does_not_end_a_run(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    hook = JsonLines(path)
    hook._file = disk = FullDisk(hook._file, room=5)
    with caplog.at_level(logging.WARNING, "maskwright"):
        hook.record({"step": 1})
        hook.record({"step": 2})
    assert "No space left on device; its lines wait until there is room" in caplog.text
    assert path.read_bytes() == b'{"ste'
    disk.room = 10**6
    hook.record({"step": 3})
    hook.close()
    assert [line["step"] for line in lines(path)] == [1, 2, 3]


def test_lines_that_never_found_room_are_told(tmp_path, caplog):
    hook = JsonLines(tmp_path / "metrics.jsonl")
    hook._file = FullDisk(hook._file, room=0)
    with caplog.at_level(logging.WARNING, "maskwright"):
        hook.record({"step": 1})
        hook.close()
    assert "the last 12 bytes could not be written" in caplog.text


def test_a_file_that_cannot_be_opened(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"metrics\.jsonl: Is a directory; a folder has this name"):
        JsonLines(tmp_path / "metrics.jsonl")


def test_tensorboard_gets_every_number(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    hook = TensorBoard(tmp_path)
    hook.record({"kind": "event", "step": 1, "message": "text is left out"})
    hook.record({"kind": "train", "step": 7, "loss": 2.5, "flag": True})
    hook.close()
    found = EventAccumulator(str(tmp_path)).Reload()
    assert found.Tags()["scalars"] == ["train/loss"]
    (event,) = found.Scalars("train/loss")
    assert (event.step, event.value) == (7, 2.5)


def test_tensorboard_on_a_full_disk_gives_up_with_one_warning(tmp_path, caplog, monkeypatch):
    hook = TensorBoard(tmp_path)

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hook._writer, "add_scalar", refuse)
    with caplog.at_level(logging.WARNING, "maskwright"):
        hook.record(TRAIN)
        hook.record(TRAIN)
        hook.close()
    assert caplog.messages == ["TensorBoard events: No space left on device; no more are written"]


def test_tensorboard_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(MissingDependencyError, match=r"tensorboard is not installed.*maskwright\[train\]"):
        TensorBoard(tmp_path)


def test_lines_for_people(caplog):
    hook = LogLines(total_steps=200)
    with caplog.at_level(logging.INFO, "maskwright"):
        hook.record(TRAIN)
        hook.record({**TRAIN, "seconds": 11.0})
        hook.record({**TRAIN, "seconds": 15.5, "step": 4})
        hook.record({**TRAIN, "seconds": 15.6, "step": 200})
        hook.record({"kind": "event", "step": 5, "message": "resumed"})
        hook.record({"kind": "evaluation", "step": 5, "loss": 2.0, "accuracy": 0.5})
        hook.close()
    assert caplog.messages == [
        "step 3/200  loss 5.2500  lr 1.00e-03  grad norm 1.50  1,234 tokens/s  1:05:40 left",
        "step 4/200  loss 5.2500  lr 1.00e-03  grad norm 1.50  1,234 tokens/s  1:05:20 left",
        "step 200/200  loss 5.2500  lr 1.00e-03  grad norm 1.50  1,234 tokens/s  0:00:00 left",
        "step 5: resumed",
        "step 5: validation loss 2.0000, accuracy 0.500",
    ]
