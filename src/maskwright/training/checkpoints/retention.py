"""Which checkpoints stay: the newest, every so many steps, the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..checkpoint_config import CheckpointConfig

__all__ = ["best_steps", "steps_that_stay"]


def steps_that_stay(
    steps: Sequence[int], newest: int, scores: Mapping[int, float | None], config: CheckpointConfig
) -> set[int]:
    """Choose among the checkpoints of a run.

    Args:
        steps: those that exist, in ascending order.
        newest: the one just saved. Later ones are damaged ones that were passed over; they stay until
            the run comes to them again.
        scores: validation loss by step; None where there was none.
        config: how many stay.

    Returns:
        The steps that stay.
    """
    earlier = [step for step in steps if step <= newest]
    stay = {step for step in steps if step > newest} | set(earlier[-config.keep :])
    if config.keep_every_steps is not None:
        stay |= {step for step in earlier if step % config.keep_every_steps == 0}
    return stay | set(best_steps(earlier, scores, config))


def best_steps(
    steps: Sequence[int], scores: Mapping[int, float | None], config: CheckpointConfig
) -> list[int]:
    """Those with the lowest validation loss, as many as stay for that, the best first.

    Args:
        steps: those that exist.
        scores: validation loss by step; None where there was none.
        config: how many stay.
    """
    # Of equal losses the first counts: those after it were saved before the next evaluation.
    scored = sorted((score, step) for step in steps if (score := scores.get(step)) is not None)
    return [step for _, step in scored[: config.keep_best]]
