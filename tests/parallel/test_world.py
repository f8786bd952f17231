"""Who a process is, and what processes tell each other."""

import pytest

from maskwright.core.errors import ConfigError, MaskwrightError
from maskwright.parallel.config import ParallelConfig, is_sharded
from maskwright.parallel.factory import EngineParts, make_engine
from maskwright.parallel.world import SOLO, World, describe_launch, require_one_process
from ranks import run_ranks

LAUNCH = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
}


def test_one_process_talks_to_itself():
    assert describe_launch({}) == SOLO
    assert SOLO.is_main
    assert SOLO.exchange([1, 2.5]) == [[1.0, 2.5]]
    assert SOLO.sums({"b": 2, "a": 1}) == {"a": 1.0, "b": 2.0}
    assert (SOLO.gather("x"), SOLO.from_main("y")) == (["x"], "y")
    SOLO.wait()


def test_the_variables_of_torchrun_tell_who_it_is():
    found = describe_launch(LAUNCH)
    assert (found.rank, found.size, found.local_rank, found.is_main) == (5, 8, 1, False)
    with pytest.raises(ConfigError, match=r"WORLD_SIZE is set .* but RANK, LOCAL_RANK is not; start"):
        describe_launch({name: LAUNCH[name] for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")})
    with pytest.raises(ConfigError, match=r"RANK, WORLD_SIZE or LOCAL_RANK in the environment is no number"):
        describe_launch({**LAUNCH, "RANK": "one"})


def test_what_is_made_for_one_process():
    require_one_process("fine-tuning", {})
    with pytest.raises(ConfigError, match=r"fine-tuning runs on one process, but 8 were started; start it"):
        require_one_process("fine-tuning", LAUNCH)


def test_ranks_that_share_layers_see_the_same_samples():
    world = World(5, 8).share_layers(2)
    assert (world.data_rank, world.data_size, list(world.leaders)) == (2, 4, [0, 2, 4, 6])
    with pytest.raises(ConfigError, match=r'"parallel.tensor" is 3, but 8 processes are no multiple of it'):
        World(5, 8).share_layers(3)


def talk(world):
    def fail():
        raise ConfigError("only rank 0 saw it")

    shared = world.share_layers(2)
    try:
        world.on_main(fail)
        failure = None
    except MaskwrightError as error:
        failure = (type(error).__name__, str(error))
    return {
        "rows": world.exchange([world.rank, 0.1]),
        "sums": world.sums({"b": world.rank, "a": 1}),
        "shared": shared.sums({"b": world.rank, "a": 1}),
        "gathered": world.gather({"rank": world.rank}),
        "main": world.from_main(world.rank),
        "failure": failure,
    }


@pytest.mark.distributed
def test_four_processes():
    expected = {
        "rows": [[float(rank), 0.1] for rank in range(4)],
        "sums": {"a": 4.0, "b": 6.0},
        "shared": {"a": 2.0, "b": 2.0},
        "gathered": [{"rank": rank} for rank in range(4)],
        "main": 0,
        "failure": ("ConfigError", "only rank 0 saw it"),
    }
    assert run_ranks(4, talk) == [expected] * 4


def test_options_belong_to_an_engine():
    assert ParallelConfig().resolve(1) == "single"
    assert ParallelConfig().resolve(2) == "ddp"
    assert ParallelConfig(engine="fsdp2").resolve(1) == "fsdp2"
    assert [is_sharded(ParallelConfig(engine=name)) for name in ("ddp", "fsdp2", "deepspeed")] == [
        False,
        True,
        True,
    ]
    with pytest.raises(ValueError, match=r"tensor is for engine fsdp2, but engine is ddp; set parallel"):
        ParallelConfig(engine="ddp", tensor=2)
    with pytest.raises(ValueError, match=r"zero_stage is for engine deepspeed, but engine is auto"):
        ParallelConfig(zero_stage=3)


def test_one_engine_for_one_process_only():
    parts = EngineParts(None, None, "cpu", "fp32", 0.0)
    with pytest.raises(ConfigError, match=r'"parallel.engine" is "single", but there are 2 processes'):
        make_engine(ParallelConfig(engine="single"), parts, World(0, 2))
