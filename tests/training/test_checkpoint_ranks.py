"""Checkpoints of several ranks: sharded, agreed upon, and read by any other number of ranks."""

import contextlib
import re
import shutil

import pytest
import torch
from checkpoint_parts import PROGRESS, assert_equal, flip, make, names

from maskwright.core.errors import CheckpointError, StorageError
from maskwright.training.checkpoint_config import CheckpointConfig
from maskwright.training.checkpoints import Checkpoints
from maskwright.training.checkpoints import store as store_module
from ranks import run_ranks

pytestmark = pytest.mark.distributed

# Rows that divide evenly, that do not, and that do not reach all ranks.
SHAPES = {"even": (8, 4096), "uneven": (7, 3), "short": (2, 5), "vector": (9,)}


def whole(seed=0):
    """The tensors of a run as one process has them."""
    generator = torch.Generator().manual_seed(seed)
    model = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    optimizer = {
        name: {"step": torch.tensor(3.0 + seed), "exp_avg": torch.randn(shape, generator=generator)}
        for name, shape in SHAPES.items()
    }
    return {"model": model, "optimizer": optimizer, "count": torch.tensor(seed)}


def shard(tree, mesh, placements):
    """Spread the matrices and vectors of a tree; tensors without a dimension stay as they are."""
    from torch.distributed.tensor import distribute_tensor

    found = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found[name] = shard(value, mesh, placements)
        elif value.dim():
            found[name] = distribute_tensor(value, mesh, placements, src_data_rank=None)
        else:
            found[name] = value
    return found


def gather(tree):
    """The whole tensors again."""
    return {
        name: gather(value)
        if isinstance(value, dict)
        else value.full_tensor()
        if hasattr(value, "full_tensor")
        else value
        for name, value in tree.items()
    }


def forms(size):
    """Ways to hold the same tensors on so many ranks."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard

    flat = init_device_mesh("cpu", (size,))
    square = init_device_mesh("cpu", (2, size // 2))
    return {
        "plain": lambda tree: tree,
        "sharded": lambda tree: shard(tree, flat, [Shard(0)]),
        "hybrid": lambda tree: shard(tree, square, [Replicate(), Shard(0)]),
        "two ways": lambda tree: shard(tree, square, [Shard(0), Shard(0)]),
    }


def clear(tree):
    """The same tree with other values."""
    return {name: clear(value) if isinstance(value, dict) else value * 0 - 1 for name, value in tree.items()}


def checkpoints_of(folder, world, **options):
    config = CheckpointConfig(**{"every_steps": 1, **options})
    return Checkpoints(folder / "checkpoints", config, {"config": "x: 1\n"}, world)


def bytes_of(path):
    return sum(file.stat().st_size for file in path.glob("__*"))


def tensor_parallel(world, folder):
    """Weights that share their rows between tensor parallel and sharding are read as whole ones."""
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.Linear(16, 6))
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    parallelize_module(model, mesh["tensor"], {"0": ColwiseParallel(), "1": RowwiseParallel()})
    fully_shard(model, mesh=mesh["data"])
    tensors = {"model": dict(model.named_parameters())}
    checkpoints = checkpoints_of(folder / "tensor parallel", world)
    checkpoints.save(1, tensors, PROGRESS, wait=True)
    assert_equal(checkpoints.load(1).tensors["model"], expected)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    checkpoints.load_newest(tensors)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.full_tensor(), expected[name])


def save_every_form(world, folder):
    """All forms are saved behind the training; each is read back in every other form."""
    makers, sizes = forms(world.size), {}
    for number, (name, make_form) in enumerate(makers.items(), start=1):
        checkpoints = checkpoints_of(folder / name, world, keep=3)
        for step in (1, 2):
            tensors = make_form(whole(10 * number + step))
            checkpoints.save(step, tensors, {"rank": world.rank})
            for tensor in (*tensors["model"].values(), tensors["optimizer"]["even"]["step"]):
                tensor.zero_()
        assert checkpoints.finish() == []
        checkpoints.close()
        sizes[name] = bytes_of(checkpoints.path(2))
        for other in makers.values():
            template = other(clear(whole()))
            found = checkpoints.load_newest(template)
            assert (found.step, found.progress) == (2, {"rank": 0})
            assert_equal(gather(found.tensors), whole(10 * number + 2))
            assert_equal(gather(template), whole(10 * number + 2))
        written = sum(
            any(path.stat().st_size for path in checkpoints.path(2).glob(f"__{rank}_*"))
            for rank in range(world.size)
        )
        assert written == world.size
    tensor_parallel(world, folder)
    return sizes


def read_every_form(world, folder):
    for number, name in enumerate(("plain", "sharded", "hybrid", "two ways"), start=1):
        for make_form in forms(world.size).values():
            template = make_form(clear(whole()))
            checkpoints_of(folder / name, world).load_newest(template)
            assert_equal(gather(template), whole(10 * number + 2))


@pytest.mark.slow
def test_any_form_is_read_in_any_other_by_any_number_of_ranks(tmp_path):
    sizes, *_ = run_ranks(4, save_every_form, tmp_path)
    # No tensor is written twice, however many ranks hold it.
    assert max(sizes.values()) < 1.5 * min(sizes.values())
    for number, name in enumerate(sizes, start=1):
        alone = make(tmp_path / name)
        assert_equal(alone.load(2).tensors, whole(10 * number + 2))
        template = clear(whole())
        alone.load_newest(template)
        assert_equal(template, whole(10 * number + 2))
        assert names(alone.folder) == ["step-00000001", "step-00000002"]
    make(tmp_path / "one").save(2, whole(12), PROGRESS)
    shutil.rmtree(tmp_path / "plain")
    (tmp_path / "one").rename(tmp_path / "plain")
    run_ranks(2, read_every_form, tmp_path)


def spreader(world):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard

    mesh = init_device_mesh("cpu", (world.size,))
    return lambda seed: shard(whole(seed), mesh, [Shard(0)])


@contextlib.contextmanager
def writing(world, act):
    """On rank 1 something else is done in place of writing."""
    honest = store_module.write_tensors
    if world.rank == 1:
        store_module.write_tensors = act
    yield
    store_module.write_tensors = honest


def refuse(*arguments):
    raise OSError(28, "No space left on device")


def stumble(*arguments):
    error = RuntimeError("stumbled")
    error.cause = lambda: None  # it cannot be sent to another process
    raise error


def said_by(action, kind):
    try:
        action()
    except kind as error:
        return str(error)
    raise AssertionError("nothing was refused")


def full_disk(world, checkpoints, spread):
    """The disk of rank 1 is full, then there is room again."""
    told = {}
    checkpoints.save(1, spread(1), PROGRESS, wait=True)
    with writing(world, refuse):
        checkpoints.save(2, spread(2), PROGRESS)
        told["finish"] = checkpoints.finish()
        told["poll"] = checkpoints.poll()
        told["wait"] = said_by(lambda: checkpoints.save(2, spread(2), PROGRESS, wait=True), StorageError)
        world.wait()
        told["left"] = names(checkpoints.folder)
        world.wait()
    checkpoints.save(2, spread(2), PROGRESS)
    told["better"] = checkpoints.finish()
    with writing(world, stumble):
        told["stumbled"] = said_by(lambda: checkpoints.save(3, spread(3), PROGRESS, wait=True), RuntimeError)
    checkpoints.save(3, spread(3), PROGRESS, wait=True)
    return told


def damage(world, checkpoints, spread):
    """The newest is damaged where rank 1 looks, the one before misses a file; then another model."""
    if world.is_main:
        flip(checkpoints.path(3) / "__1_0.distcp")
        (checkpoints.path(2) / "__0_0.distcp").unlink()
    world.wait()
    template = spread(0)
    found = checkpoints.load_newest(template)
    assert_equal(gather(template), whole(1))
    template["model"]["even"] = template["model"]["uneven"]
    return {
        "found": found.step,
        "misfit": said_by(lambda: checkpoints.load_newest(template), CheckpointError),
    }


def own_disks(world, folder, spread):
    """Every rank has a disk of its own."""
    own = folder / f"disk of rank {world.rank}"
    lonely = checkpoints_of(own, world)
    said = said_by(lambda: lonely.save(1, spread(1), PROGRESS, wait=True), StorageError)
    return {"lonely": said, "lonely left": [path.name for path in own.rglob("*")]}


def copies(world, folder, spread):
    """Copies are made by the ranks that wrote the files, and fetched for all."""
    copied, told = checkpoints_of(folder / "spot", world, upload=f"file://{folder}/copies"), {}
    copied.save(5, spread(5), PROGRESS)
    told["copied"] = copied.finish()
    copied._uploads.wait()
    told["copied"] += copied.poll()
    if world.is_main:
        shutil.rmtree(copied.folder)
    world.wait()
    template = spread(0)
    assert copied.load_newest(template).step == 5
    assert_equal(gather(template), whole(5))
    if world.rank == 1:
        copied._uploads.copies.put = refuse_copy
    copied.save(6, spread(6), PROGRESS, wait=True)
    copied._uploads.wait()
    return told | {"uncopied": copied.poll()}


def failing(world, folder):
    """What happens to all ranks when something happens to one."""
    checkpoints, spread = checkpoints_of(folder / "disk", world, keep=3), spreader(world)
    return {
        **full_disk(world, checkpoints, spread),
        **damage(world, checkpoints, spread),
        **own_disks(world, folder, spread),
        **copies(world, folder, spread),
    }


def refuse_copy(*arguments):
    raise StorageError("copies: Forbidden")


def test_what_happens_to_one_rank_happens_to_all(tmp_path):
    told, other = run_ranks(2, failing, tmp_path)
    full = f"{tmp_path / 'disk/checkpoints/step-00000002'}: No space left on device; free some space"
    for one in (told, other):
        assert one["finish"] == one["poll"]
        assert re.match(f"WARNING: no checkpoint was saved: {full}", one["finish"][0])
        assert one["wait"].startswith(full)
        assert one["left"] == ["step-00000001"]
        assert (one["better"], one["found"], one["copied"]) == ([], 1, [])
        assert "stumbled" in one["stumbled"]
        assert "model/even is of shape (8, 4096) in the checkpoint, expected (7, 3)" in one["misfit"]
        assert re.search(
            r"\.partial-step-00000001-\w+: is not there for rank 1; all ranks must see the same folder: put",
            one["lonely"],
        )
        assert one["uncopied"] == [
            "WARNING: the checkpoint of step 6 was saved, but not copied: copies: Forbidden"
        ]
    assert (told["lonely left"], other["lonely left"]) == (["checkpoints"], [])
    assert_equal(make(tmp_path / "disk").load(1).tensors, whole(1))
    assert names(tmp_path / "copies") == ["step-00000005", "step-00000006"]
    assert (tmp_path / "copies/step-00000005/__1_0.distcp").exists()
    assert not (tmp_path / "copies/step-00000006/manifest.json").exists()


def leaving(world, folder):
    """Rank 1 goes away in the middle of a save, without a word."""
    checkpoints = checkpoints_of(folder, world)
    checkpoints.save(1, whole(1), PROGRESS, wait=True)
    if world.rank == 1:

        def leave(*arguments):
            raise SystemExit

        store_module.consult = leave
    checkpoints.save(2, whole(2), PROGRESS)
    try:
        checkpoints.finish()
    except (RuntimeError, SystemExit) as error:
        return type(error).__name__
    finally:
        checkpoints.close()


def test_a_rank_that_leaves_while_saving_does_not_hold_the_others(tmp_path):
    told = run_ranks(2, leaving, tmp_path)
    assert told[1] == "SystemExit"
    assert told[0] in ("RuntimeError", "DistBackendError", "DistNetworkError")
    alone = make(tmp_path)
    assert alone.load_newest().step == 1
    alone.save(2, whole(2), PROGRESS)
    assert names(alone.folder) == ["step-00000001", "step-00000002"]


def fetch_together(world, folder):
    """Files that each rank brought back, and the step that was found."""
    config = CheckpointConfig(upload=str(folder / "copies"), asynchronous=False, every_steps=1)
    checkpoints = Checkpoints(folder / "checkpoints", config, {}, world)
    checkpoints.save(4, whole(1), PROGRESS)
    checkpoints.close()
    world.wait()
    if world.is_main:
        shutil.rmtree(folder / "checkpoints")
    world.wait()
    copies, got = checkpoints._uploads.copies, []
    fetch = copies._get

    def get(step, folder, name, moved):
        got.append(name)
        fetch(step, folder, name, moved)

    copies._get = get
    found = checkpoints.load_newest()
    same = all(torch.equal(value, found.tensors["model"][name]) for name, value in whole(1)["model"].items())
    return found.step, same, got


def test_ranks_fetch_copies_in_shares(tmp_path):
    results = run_ranks(3, fetch_together, tmp_path)
    assert [result[:2] for result in results] == [(4, True)] * 3
    got = [name for *_, names in results for name in names]
    assert sorted(got) == [".metadata", "__0_0.distcp", "__1_0.distcp", "__2_0.distcp"]
    assert all(names for *_, names in results)
    assert names(tmp_path / "checkpoints") == ["step-00000004"]
