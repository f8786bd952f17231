"""Checkpoints under faults at every write, flipped bits, and kills at any operation on files."""

import errno
import multiprocessing
import os
import random
import signal

import pytest
import torch
from faulty_disk import FaultyDisk, refuse

from maskwright.training.checkpoint_config import CheckpointConfig
from maskwright.training.checkpoints import Checkpoints
from maskwright.training.checkpoints.manifest import DamagedCheckpointError
from ranks import run_ranks

pytestmark = pytest.mark.fault
# Operations that may fail once without a consequence: torch flushes again when it lets a tensor's stream
# go, and a folder is made that is there.
HARMLESS = 3 + 1


def state(step):
    """Weights that tell which step they are of."""
    values = torch.arange(600.0) + 1000 * step
    return {
        "model": {"a": values.view(20, 30)},
        "optimizer": {"a": {"step": torch.tensor(float(step)), "exp_avg": -values.view(20, 30)}},
    }


def make(folder, world=None, **options):
    config = CheckpointConfig(every_steps=1, **options)
    return Checkpoints(folder, config, {}, *(() if world is None else (world,)))


def newest(checkpoints):
    """The step of the newest checkpoint, after a look at every value."""
    found, expected = checkpoints.load_newest(), None
    expected = state(found.step)
    assert torch.equal(found.tensors["model"]["a"], expected["model"]["a"])
    assert torch.equal(found.tensors["optimizer"]["a"]["exp_avg"], expected["optimizer"]["a"]["exp_avg"])
    assert found.tensors["optimizer"]["a"]["step"] == found.step
    return found.step


def leftovers(folder):
    return [path.name for path in folder.iterdir() if not path.name.startswith("step-")]


def save_with(checkpoints, step, act):
    """Save behind the training on a faulty disk; what was told, and the number of operations."""
    with FaultyDisk(act) as disk:
        checkpoints.save(step, state(step), {})
        told = checkpoints.finish()
    assert checkpoints.poll() == told
    return told, disk.count


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("stays", [False, True], ids=["once", "until the save is given up"])
def test_every_nth_write_fails(tmp_path, number, stays):
    checkpoints, step, safe = make(tmp_path), 2, 2
    checkpoints.save(1, state(1), {}, wait=True)
    told, operations = save_with(checkpoints, 2, lambda operation: None)
    assert (told, newest(checkpoints)) == ([], 2)
    assert operations > 40
    silent = 0
    for nth in range(1, operations + 1):
        step += 1
        told, _ = save_with(checkpoints, step, refuse(number, nth, until=10**9 if stays else None))
        assert leftovers(tmp_path) == [], nth
        if told:
            (message,) = told
            assert message.startswith("WARNING: no checkpoint was saved: ")
            assert os.strerror(number) in message
        else:
            silent += 1
        # The flush of the folder above comes after the publication.
        if nth == operations or not told:
            safe = step
        assert newest(checkpoints) == safe, nth
    assert silent == (0 if stays else HARMLESS)
    told, _ = save_with(checkpoints, step + 1, lambda operation: None)
    assert (told, newest(checkpoints)) == ([], step + 1)


def faults_on_one_rank(world, folder):
    """Every operation of each rank fails once; what all ranks were told."""
    torch.set_num_threads(1)
    checkpoints, step, safe = make(folder, world), 2, 2
    checkpoints.save(1, state(1), {}, wait=True)
    told, operations = save_with(checkpoints, 2, lambda operation: None)
    assert told == []
    counts, found = [int(row[0]) for row in world.exchange([operations])], []
    for rank, count in enumerate(counts):
        for nth in range(1, count + 1):
            step += 1
            act = refuse(errno.ENOSPC, nth) if rank == world.rank else lambda operation: None
            told, _ = save_with(checkpoints, step, act)
            world.wait()  # one rank may be quicker than the other with removing
            assert leftovers(folder) == [], (rank, nth)
            if not told or (rank == 0 and nth == count):
                safe = step
            assert newest(checkpoints) == safe, (rank, nth)
            found.append(told)
    told, _ = save_with(checkpoints, step + 1, lambda operation: None)
    assert (told, newest(checkpoints)) == ([], step + 1)
    checkpoints.close()
    return counts, found


@pytest.mark.slow
@pytest.mark.distributed
def test_every_nth_write_of_one_rank_fails(tmp_path):
    (counts, told), (_, other) = run_ranks(2, faults_on_one_rank, tmp_path)
    assert told == other
    assert min(counts) > 10
    messages = [message for one in told for message in one]
    assert len(messages) == len(told) - HARMLESS
    assert all("No space left on device; free some space" in message for message in messages)


def test_two_hundred_flipped_bits_are_noticed(tmp_path):
    checkpoints, chance = make(tmp_path), random.Random(0)
    checkpoints.save(1, state(1), {"seconds": 1.5, "stream": {"fingerprint": "0123"}}, wait=True)
    checkpoints.save(2, state(2), {"seconds": 2.5, "stream": {"fingerprint": "0123"}}, wait=True)
    files, undetected = sorted(checkpoints.path(2).iterdir()), []
    assert len(files) == 3
    for _ in range(200):
        path = chance.choice(files)
        data = path.read_bytes()
        place, bit = chance.randrange(len(data)), chance.randrange(8)
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        try:
            checkpoints.load(2)
            undetected.append((path.name, place, bit))
        except DamagedCheckpointError:
            pass
        path.write_bytes(data)
    assert undetected == []
    assert newest(checkpoints) == 2


def save_until_killed(folder, pipe, first, at):
    """Save one step after the other; the process ends at one operation on files."""

    def act(operation):
        if operation == at:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints = make(folder, keep=1, keep_every_steps=7)
    with FaultyDisk(act, removing=True):
        for step in range(first, first + 1000):
            for _ in range(1 + step % 2):  # every other step is saved again, over itself
                checkpoints.save(step, state(step), {})
            if step % 3 == 0:  # often the next save waits, sometimes the run does
                assert checkpoints.finish() == []
                os.write(pipe, step.to_bytes(4, "little"))


def kill_again_and_again(folder, times, told):
    """Start a process that saves, have it killed, and look at what it left; as often as asked."""
    torch.set_num_threads(1)
    chance, step, found = random.Random(0), 0, []
    for _ in range(times):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                save_until_killed(folder, writing, step + 1, chance.randrange(1, 800))
            finally:
                os._exit(1)
        chance.randrange(1, 800)  # the child drew it
        os.close(writing)
        _, status = os.waitpid(child, 0)
        with open(reading, "rb") as pipe:
            confirmed = pipe.read()
        promised = max([step, *(confirmed[at : at + 4] for at in range(0, len(confirmed), 4))], key=_number)
        checkpoints = make(folder)
        whole = newest(checkpoints) if checkpoints.steps() or leftovers(folder) else 0
        found.append((os.WTERMSIG(status), whole >= _number(promised)))
        step = whole
    told.put((found, step))


def _number(value):
    return value if isinstance(value, int) else int.from_bytes(value, "little")


@pytest.mark.parametrize("times", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_leave_a_whole_checkpoint(tmp_path, times):
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    process = context.Process(target=kill_again_and_again, args=(tmp_path / "run", times, told))
    process.start()
    found, step = told.get(timeout=200)
    process.join(30)
    assert found == [(signal.SIGKILL, True)] * times
    assert step > times / 2
