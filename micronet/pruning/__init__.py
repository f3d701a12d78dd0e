"""What every pruner shares: channels followed through a model, plans, the way to the smaller model.

`Channels` says which channels of which layers live and die together; a pruner decides which of
them go, and the plan of what stays makes the smaller model.
"""

from micronet.pruning.plan import Kept, PruningPlan, apply_plan
from micronet.pruning.sparsity import add_l1_gradient

__all__ = ["Kept", "PruningPlan", "add_l1_gradient", "apply_plan"]
