"""BatchNorm folded into the convolution before it: the same function, one pass less per layer."""

from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Pairs = tuple[tuple[str, str], ...]


@torch.no_grad()
def fold_batchnorm(network: nn.Module, pairs: Pairs) -> None:
    """Fold each BatchNorm of `pairs` into its convolution, in place; for inference alone.

    BatchNorm's running mean and variance are constants then, so that it is a factor and a summand
    a channel. What else its module does (an activation) stays.
    """
    for conv_name, norm_name in pairs:
        conv, norm = network.get_submodule(conv_name), network.get_submodule(norm_name)
        statistics = norm.running_mean, norm.running_var, norm.eps
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, *statistics, norm.weight, norm.bias
        )
        rest = [child for child in norm.children() if not isinstance(child, nn.Identity)]
        parent, _, name = norm_name.rpartition(".")
        setattr(network.get_submodule(parent), name, nn.Sequential(*rest))


@torch.no_grad()
def find_pairs(network: nn.Module, image: torch.Tensor) -> Pairs:
    """Names of each convolution and the BatchNorm that alone reads its output.

    network: in evaluation mode; it answers `image` once and is watched. Both may be on torch's
    meta device, where nothing is computed.
    """
    with _Watch() as watch:
        network(image)
    convs = {id(m.weight): name for name, m in network.named_modules() if type(m) is nn.Conv2d}
    norms = {id(m.weight): name for name, m in network.named_modules() if _foldable(m)}
    # What is used twice stays: its other use is not followed, or preceded, by the same module.
    pairs = []
    for weight, output in watch.convolutions:
        readers = watch.readers[id(output)]
        alone = weight in convs and len(readers) == 1 and readers[0] in norms
        if alone and watch.uses[weight] == watch.uses[readers[0]] == 1:
            pairs.append((convs[weight], norms[readers[0]]))
    return tuple(pairs)


def _foldable(module: nn.Module) -> bool:
    """BatchNorm, also timm's, which holds an activation (and dropout) that follows it."""
    return (
        isinstance(module, nn.BatchNorm2d)
        and module.affine
        and module.track_running_stats
        and type(module).__name__ in ("BatchNorm2d", "BatchNormAct2d")
    )


class _Watch(TorchDispatchMode):
    """Notes each convolution and, for every tensor, the weights of the BatchNorms that read it."""

    def __init__(self) -> None:
        super().__init__()
        # The outputs themselves: while they are kept, no other tensor gets their id.
        self.convolutions: list[tuple[int, torch.Tensor]] = []
        self.readers: dict[int, list[int | None]] = {}
        self.uses: Counter[int] = Counter()  # Of each weight.

    def __torch_dispatch__(self, function, types, given=(), named=None) -> Any:
        result = function(*given, **(named or {}))
        name = function.overloadpacket.__name__
        is_norm = "batch_norm" in name
        for tensor in tree_leaves((given, named)):
            if isinstance(tensor, torch.Tensor):
                reader = id(given[1]) if is_norm and tensor is given[0] else None
                self.readers.setdefault(id(tensor), []).append(reader)
        if is_norm or name == "convolution":
            self.uses[id(given[1])] += 1
        if name == "convolution":
            self.convolutions.append((id(given[1]), result))
            self.readers[id(result)] = []  # Another tensor may have had this id before.
        return result
