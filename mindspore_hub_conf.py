"""MindSpore Hub's entry: networks by name, with fresh weights."""

from __future__ import annotations

NAMES = ("mobilenetv2", "segformer")


def create_network(  # noqa: PLR0913 (a public interface: all but the name are given by keyword)
    name: str,
    *,
    num_classes: int | None = None,
    width_mult: float = 1.0,
    output_stride: int = 32,
    is_training: bool = False,
    include_top: bool = True,
    activation: str = "None",
    backbone: str = "mit_b0",
    decoder_dim: int = 0,
    seed: int = 1,
):
    """Return the network `name` ("mobilenetv2" or "segformer") as a MindSpore cell.

    Without `include_top` it is the encoder: image (N, 3, H, W) -> feature map (N, C, H / output_stride,
    W / output_stride) of MobileNetV2, or four maps at 1/4 to 1/32 of SegFormer. `num_classes` is 1000 or 19 unless
    given. `width_mult`, `output_stride` (32, 16 or 8) and `activation` ("None", "Sigmoid", "Softmax": logits or scores;
    in training the loss wants logits) are MobileNetV2's, `backbone` ("mit_b0" to "mit_b5") and `decoder_dim` (0: as
    wide as the encoder's last stage) SegFormer's. Load weights with `mindspore.load_checkpoint` and
    `mindspore.load_param_into_net`.
    """
    if name not in NAMES:
        raise ValueError(f"no network is called {name!r}; there are {' and '.join(map(repr, NAMES))}")
    if activation not in ("None", "Sigmoid", "Softmax"):
        raise ValueError(f"activation is {activation!r}; it has to be 'None', 'Sigmoid' or 'Softmax'")
    if name == "segformer":
        from src.segformer import network

        if backbone not in network.VARIANTS:
            raise ValueError(f"backbone is {backbone!r}; it has to be one of {', '.join(network.VARIANTS)}")
        net = network.build(backbone, num_classes or 19, decoder_dim, seed)
    else:
        from src.mobilenetv2 import network

        net = network.build(num_classes or 1000, width_mult, seed, "None" if is_training else activation, output_stride)
    net = net if include_top else net.backbone
    net.set_train(is_training)
    return net
