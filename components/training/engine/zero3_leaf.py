"""Makes a small model one unit ("leaf") of ZeRO-3.

ZeRO-3 hooks every module four times to gather and release its weights. In a model of a million parameters, these hooks
take longer than the arithmetic. DeepSpeed can gather, reduce and release a leaf module as a whole. But it reduces the
gradients in torch's full backward hook. That hook runs too early for a module whose inputs need no gradient, such as a
whole model, and gradients would be lost silently. So here the hook runs when the backward pass is over.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from deepspeed.utils.z3_leaf_module import set_z3_leaf_module
from torch import nn
from torch.autograd import Variable
from torch.utils.hooks import RemovableHandle

Hook = Callable[[nn.Module, Any, Any], Any]


def as_zero3_leaf(model: nn.Module) -> None:
    """Make `model`, whose output has `logits`, a leaf of ZeRO-3. Call it before deepspeed.initialize."""
    hooks: OrderedDict[int, Hook] = OrderedDict()  # a RemovableHandle takes no plain dict

    def register(hook: Hook, prepend: bool = False) -> RemovableHandle:
        handle = RemovableHandle(hooks)
        hooks[handle.id] = hook
        return handle

    def run_hooks() -> None:
        for hook in list(hooks.values()):
            hook(model, None, None)

    def watch(_: nn.Module, inputs: Any, output: Any) -> None:
        if output.logits.requires_grad:
            # A callback that is queued during a backward pass runs when all gradients exist.
            output.logits.register_hook(lambda _: Variable._execution_engine.queue_callback(run_hooks))

    set_z3_leaf_module(model, True)
    model.register_full_backward_hook = register  # type: ignore[method-assign]
    model.register_forward_hook(watch)
