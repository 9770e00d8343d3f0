"""MindSpore Hub's entry: networks by name, with fresh weights."""

from __future__ import annotations


def create_network(
    name: str,
    *,
    num_classes: int = 1000,
    width_mult: float = 1.0,
    is_training: bool = False,
    include_top: bool = True,
    activation: str = "None",
    seed: int = 1,
):
    """Return the network `name` ("mobilenetv2") as a MindSpore cell.

    Without `include_top` it is the backbone, image (N, 3, H, W) -> feature map (N, C, H / 32, W / 32). `activation`
    ("None", "Sigmoid", "Softmax") turns logits into scores; in training the loss wants logits. Load weights with
    `mindspore.load_checkpoint` and `mindspore.load_param_into_net`.
    """
    if name != "mobilenetv2":
        raise ValueError(f"no network is called {name!r}; the only one is 'mobilenetv2'")
    if activation not in ("None", "Sigmoid", "Softmax"):
        raise ValueError(f"activation is {activation!r}; it has to be 'None', 'Sigmoid' or 'Softmax'")
    from src.mobilenetv2 import network

    net = network.build(num_classes, width_mult, seed, "None" if is_training else activation)
    net = net if include_top else net.backbone
    net.set_train(is_training)
    return net
