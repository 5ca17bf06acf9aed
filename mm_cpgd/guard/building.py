"""From the config's ``guard`` section to the guard of a run."""

from __future__ import annotations

from accelerate import Accelerator
from accelerate.utils import DistributedType

from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.config import GuardConfig, RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.guard.guard import Guard
from mm_cpgd.guard.keeper import Keeper
from mm_cpgd.guard.signs import SIGNS, Sign
from mm_cpgd.guard.snapshots import Snapshots
from mm_cpgd.learning import Learner

_SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


def chosen_signs(ignore: list[str]) -> list[Sign]:
    """Return the signs that are looked for.

    Raises:
        UserError: there is no such sign.
    """
    names = [sign.name for sign in SIGNS]
    for name in ignore:
        if name not in names:
            raise UserError(f"guard.ignore: there is no sign {name!r}; known are {', '.join(names)}")
    return [sign for sign in SIGNS if sign.name not in ignore]


def check_guard(guard: GuardConfig, objective: Objective) -> None:
    """Say what cannot work before anything is loaded.

    Raises:
        UserError: an unknown sign, or alpha is to be raised where nothing has one.
    """
    chosen_signs(guard.ignore)
    if guard.alpha_factor != 1 and all(part.name != "policy_drift" for part in objective.regularizers):
        raise UserError(
            f"guard.alpha_factor={guard.alpha_factor:g} raises the alpha of policy_drift, and "
            "algorithm.regularizers has no policy_drift; add one, or leave guard.alpha_factor at 1"
        )


def build_keeper(config: RunConfig, accelerator: Accelerator, learner: Learner) -> Keeper:
    """Return the guard of a run, ready for its first iteration.

    Raises:
        UserError: as ``check_guard``, or weights are sharded, of which no whole copies are kept.
    """
    wanted = config.guard
    check_guard(wanted, learner.objective)
    if wanted.action == "rollback" and accelerator.distributed_type in _SHARDED:
        raise UserError(
            f"guard.action=rollback keeps whole copies, and {accelerator.distributed_type.value} shards the "
            "weights; choose guard.action=stop, and resume from a checkpoint with a smaller step"
        )
    guard = Guard(
        wanted.action,
        completions=config.rollout.completions,
        max_rollbacks=wanted.max_rollbacks,
        step_factor=wanted.step_factor,
        target_drift=wanted.target_drift,
        alpha_factor=wanted.alpha_factor,
        settle=wanted.settle,
        signs=chosen_signs(wanted.ignore),
    )
    folder = config.folder / "guard" if wanted.copies == "disk" else None
    return Keeper(accelerator, guard, Snapshots(accelerator, folder), learner, wanted.copy_every)
