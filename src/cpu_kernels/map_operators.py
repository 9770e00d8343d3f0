"""Operators on maps (N, C, H, W) for transformers: dense layers, normalisation, attention, loss. Platform CPU only.

Each function binds one kernel and its derivative. N images, C channels, H x W pixels; everything is float32.
"""

from pathlib import Path

from mindspore import ops

from src.cpu_kernels.custom import custom_operator


def dense(library: Path) -> ops.Custom:
    """x (N, C, H, W), weight (O, C), bias (O,) -> weight x + bias, (N, O, H, W)."""
    backward = custom_operator(library, "DenseBackward", lambda x, weight, dy: (x, weight, [weight[0]]), outputs=3)

    def bprop(x, weight, bias, out, dout):
        return backward(x, weight, dout)

    return custom_operator(library, "DenseForward", lambda x, weight, bias: [x[0], weight[0], x[2], x[3]], bprop=bprop)


def dense_residual(library: Path) -> ops.Custom:
    """x, weight (O, C), bias (O,), residual (N, O, H, W), keep (N,) -> residual + keep * (weight x + bias)."""
    backward = custom_operator(
        library, "DenseResidualBackward", lambda x, weight, keep, dy: (x, weight, [weight[0]]), outputs=3
    )

    def bprop(x, weight, bias, residual, keep, out, dout):
        dx, dweight, dbias = backward(x, weight, keep, dout)
        return dx, dweight, dbias, dout, ops.zeros_like(keep)

    return custom_operator(
        library, "DenseResidualForward", lambda x, weight, bias, residual, keep: residual, bprop=bprop
    )


def channel_norm(library: Path) -> ops.Custom:
    """x, gamma (C,), beta (C,), (eps,) -> each pixel normalised over its channels, mean, 1 / std (N, H, W)."""
    backward = custom_operator(
        library, "ChannelNormBackward", lambda x, gamma, mean, inverse_std, dy: (x, gamma, gamma), outputs=3
    )

    def bprop(x, gamma, beta, eps, out, dout):
        dx, dgamma, dbeta = backward(x, gamma, out[1], out[2], dout[0])
        return dx, dgamma, dbeta, ops.zeros_like(eps)

    def out_shapes(x, gamma, beta, eps):
        return x, [x[0], x[2], x[3]], [x[0], x[2], x[3]]

    return custom_operator(library, "ChannelNormForward", out_shapes, outputs=3, bprop=bprop)


def attention(library: Path, heads: int) -> ops.Custom:
    """q (N, C, H, W), kv (N, 2 C, h, w), (heads,) -> softmax attention (N, C, H, W), logarithms (N, heads, H * W)."""
    backward = custom_operator(library, "AttentionBackward", lambda q, kv, heads, out, logs, dy: (q, kv), outputs=2)

    def bprop(q, kv, heads, out, dout):
        dq, dkv = backward(q, kv, heads, out[0], out[1], dout[0])
        return dq, dkv, ops.zeros_like(heads)

    def out_shapes(q, kv, settings):
        return q, [q[0], heads, q[2] * q[3]]

    return custom_operator(library, "AttentionForward", out_shapes, outputs=2, bprop=bprop)


def depthwise_gelu(library: Path) -> ops.Custom:
    """x, weight (C, 1, 3, 3), bias (C,) -> GELU of the depthwise convolution, same shape as x."""
    backward = custom_operator(
        library, "DepthwiseGeluBackward", lambda x, weight, bias, dy: (x, weight, bias), outputs=3
    )

    def bprop(x, weight, bias, out, dout):
        return backward(x, weight, bias, dout)

    return custom_operator(library, "DepthwiseGeluForward", lambda x, weight, bias: x, bprop=bprop)


def conv(library: Path, kernel: int, stride: int, padding: int) -> ops.Custom:
    """x, weight (O, C, k, k), bias (O,), (stride, padding) -> (N, O, h, w)."""
    backward = custom_operator(
        library, "ConvBackward", lambda x, weight, settings, dy: (x, weight, [weight[0]]), outputs=3
    )

    def bprop(x, weight, bias, settings, out, dout):
        dx, dweight, dbias = backward(x, weight, settings, dout)
        return dx, dweight, dbias, ops.zeros_like(settings)

    def out_shape(x, weight, bias, settings):
        return [x[0], weight[0], *((side + 2 * padding - kernel) // stride + 1 for side in x[2:])]

    return custom_operator(library, "ConvForward", out_shape, bprop=bprop)


def resize_sum(library: Path) -> ops.Custom:
    """Four maps (N, C, h_i, w_i) -> their sum at the size of the first, resized bilinearly."""
    backward = custom_operator(library, "ResizeSumBackward", lambda a, b, c, d, dy: (b, c, d), outputs=3)

    def bprop(a, b, c, d, out, dout):
        db, dc, dd = backward(a, b, c, d, dout)
        return dout, db, dc, dd

    return custom_operator(library, "ResizeSumForward", lambda a, b, c, d: a, bprop=bprop)


def pixel_loss(library: Path) -> ops.Custom:
    """Logits (N, K, h, w), label (N, H, W) int32, weights (K,), (ignored label,) -> loss (1,), its gradient.

    The logits are resized to the label bilinearly; the mean of the pixels' cross entropies, weighted by class.
    """

    def bprop(logits, label, weights, ignore, out, dout):
        return out[1] * dout[0], ops.zeros_like(label), ops.zeros_like(weights), ops.zeros_like(ignore)

    return custom_operator(
        library, "PixelLoss", lambda logits, label, weights, ignore: ([1], logits), outputs=2, bprop=bprop
    )
