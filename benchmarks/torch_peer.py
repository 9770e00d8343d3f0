"""PyTorch's contenders: MobileNetV2 as in src/mobilenetv2/network.py, SegFormer by transformers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, interpolate

from benchmarks.jobs import (
    CITY_CLASSES,
    CLASSES,
    DECAY,
    MOMENTUM,
    RATE,
    STAGES,
    Job,
    class_targets,
    noise,
    scaled,
    since_start,
    time_calls,
)

SEGFORMERS = {  # blocks and channels of the four stages, channels of the decode head
    "mit_b0": ([2, 2, 2, 2], [32, 64, 160, 256], 256),
    "mit_b2": ([3, 4, 6, 3], [64, 128, 320, 512], 512),
}


def convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    ]


class Residual(nn.Module):
    """Inverted residual block."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int, activation: type[nn.Module]):
        super().__init__()
        hidden = in_channels * expansion
        layers = [*convolution(in_channels, hidden, 1), activation(inplace=True)] if expansion > 1 else []
        layers += [*convolution(hidden, hidden, 3, stride, hidden), activation(inplace=True)]
        self.layers = nn.Sequential(*layers, *convolution(hidden, out_channels, 1))
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.has_shortcut else self.layers(x)


class MobileNetV2(nn.Module):
    """(N, 3, H, W) -> logits (N, classes), without dropout."""

    def __init__(self, classes: int = CLASSES, multiplier: float = 1.0, activation: type[nn.Module] = nn.ReLU6):
        super().__init__()
        channels = scaled(32, multiplier)
        layers = [*convolution(3, channels, 3, 2), activation(inplace=True)]
        for expansion, base_channels, repeats, first_stride in STAGES:
            out_channels = scaled(base_channels, multiplier)
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                layers.append(Residual(channels, out_channels, stride, expansion, activation))
                channels = out_channels
        last = scaled(1280, max(1.0, multiplier))
        self.features = nn.Sequential(*layers, *convolution(channels, last, 1), activation(inplace=True))
        self.classifier = nn.Linear(last, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.normal_(self.classifier.weight, 0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def segformer(network: str) -> nn.Module:
    """Transformers' network; stochastic depth and dropout are off in all contenders."""
    import transformers

    depths, channels, width = SEGFORMERS[network]
    rates = {"drop_path_rate": 0.0, "classifier_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
    sizes = {"depths": depths, "hidden_sizes": channels, "decoder_hidden_size": width}
    return transformers.SegformerForSemanticSegmentation(
        transformers.SegformerConfig(num_labels=CITY_CLASSES, **sizes, **rates)
    )


def build(job: Job) -> nn.Module:
    torch.set_num_threads(job.threads)
    torch.manual_seed(1)
    return segformer(job.network) if job.network.startswith("mit") else MobileNetV2(multiplier=job.multiplier)


def layout(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


def precision(job: Job) -> AbstractContextManager:
    """PyTorch's mixed precision, where the row is about bfloat16."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=job.bfloat16)


def batch_of(job: Job, channels_last: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Images in the memory format of the network, at no cost, and their targets or labels."""
    image = torch.from_numpy(noise(job.shape)).contiguous(memory_format=layout(channels_last))
    if job.network.startswith("mit"):
        return image, torch.randint(CITY_CLASSES, (job.batch, job.height, job.width))
    return image, torch.from_numpy(class_targets(job.batch))


def optimizer_of(net: nn.Module, job: Job) -> torch.optim.Optimizer:
    """AdamW, or SGD with decay on matrices and filters only, as in src/engine/steps/step.py."""
    parameters = list(net.parameters())
    if job.network.startswith("mit"):
        return torch.optim.AdamW(parameters, 1e-4, weight_decay=0.01)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, RATE, MOMENTUM)


def timed_training(net: nn.Module, job: Job, channels_last: bool, compiled: bool) -> dict:
    """Steps of loss, gradients and update, the loss read back every time."""
    net = net.to(memory_format=layout(channels_last)).train()
    image, target = batch_of(job, channels_last)
    optimizer = optimizer_of(net, job)

    def loss_of(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        found = net(image)
        if job.network.startswith("mit"):
            found = interpolate(found.logits, (job.height, job.width), mode="bilinear", align_corners=False)
        return cross_entropy(found, target)

    compare = torch.compile(loss_of) if compiled else loss_of

    def step() -> float:
        with precision(job):
            loss = compare(image, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return time_calls(step, job)


def train(job: Job, channels_last: bool = False, compiled: bool = False) -> dict:
    return timed_training(build(job), job, channels_last, compiled)


def train_quantised(job: Job, compiled: bool = False) -> dict:
    """torch.ao's quantisation-aware training, its default for x86: weights per channel, BN folded into them.

    ReLU stands for ReLU6, as in torchvision's quantisable network: so it is fused, and its result quantised once.
    """
    from torch.ao.quantization import get_default_qat_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    torch.set_num_threads(job.threads)
    torch.manual_seed(1)
    net = MobileNetV2(multiplier=job.multiplier, activation=nn.ReLU).train()
    mapping = get_default_qat_qconfig_mapping("x86")
    return timed_training(prepare_qat_fx(net, mapping, (torch.zeros(job.shape),)), job, True, compiled)


def predictor(net: nn.Module, job: Job, channels_last: bool, compiled: bool) -> Callable[[torch.Tensor], np.ndarray]:
    net = net.to(memory_format=layout(channels_last)).eval()
    forward = torch.compile(net, options={"freezing": True}) if compiled else net  # folds BN, packs the weights

    def predict(image: torch.Tensor) -> np.ndarray:
        with torch.inference_mode(), precision(job):
            found = forward(image)
        return getattr(found, "logits", found).float().numpy()

    return predict


def infer(job: Job, channels_last: bool = False, compiled: bool = False) -> dict:
    predict, (image, _) = predictor(build(job), job, channels_last, compiled), batch_of(job, channels_last)
    return time_calls(lambda: predict(image), job)


def finetune(job: Job, channels_last: bool = False, compiled: bool = False) -> dict:
    """Features once, of images that PIL decodes in processes, then the classifier: from the start to the last epoch."""
    from benchmarks.pipelines import centre_batches, photos_in

    files = photos_in("photos")
    names = sorted({file.split("/")[-2] for file in files})
    label = torch.tensor([names.index(file.split("/")[-2]) for file in files])
    net = build(job)
    net.classifier = nn.Identity()
    predict, found = predictor(net, job, channels_last, compiled), []
    for images in centre_batches(files, job.batch, job.width, job.threads):
        image = torch.from_numpy(images).contiguous(memory_format=layout(channels_last))
        found.append(torch.from_numpy(predict(image).copy()))
    feature = torch.cat(found)
    head = nn.Linear(feature.shape[1], len(names))
    optimizer = torch.optim.SGD(head.parameters(), RATE, MOMENTUM)
    for _ in range(job.epochs):
        for rows in torch.randperm(len(label)).split(job.batch):
            loss = cross_entropy(head(feature[rows]), label[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return since_start(job)
