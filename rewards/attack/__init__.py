"""Attack bench: for each gold answer, completions that must not pass, and what a rule pays for them.

Nothing here reads answers with ``rewards.math``: a bench that asks the verifier what is wrong finds no
fault in it. Values are compared by ``fractions`` and by the small evaluator of ``value.py``.
"""

from rewards.attack.generate import attacks
from rewards.attack.gold import Attack
from rewards.attack.run import Paid, Report, attack

__all__ = ["Attack", "Paid", "Report", "attack", "attacks"]
