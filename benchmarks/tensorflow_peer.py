"""TensorFlow's contenders: Keras' MobileNetV2 in a training step of its own, and the files that LiteRT runs."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from benchmarks.jobs import CLASSES, DECAY, MOMENTUM, RATE, Job, class_targets, noise, time_calls

CALIBRATION = 4  # images of noise that LiteRT takes the ranges of INT8 from


def build(job: Job) -> tf.keras.Model:
    """Logits of (N, H, W, 3); without weights from elsewhere."""
    return tf.keras.applications.MobileNetV2(
        (job.height, job.width, 3), job.multiplier, weights=None, classes=CLASSES, classifier_activation=None
    )


def train(job: Job, xla: bool = False) -> dict:
    """One compiled function for loss, gradients and update, decay on matrices and filters only."""
    tf.config.threading.set_intra_op_parallelism_threads(job.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16" if job.bfloat16 else "float32")
    net = build(job)
    weights = net.trainable_variables
    optimizer = tf.keras.optimizers.SGD(RATE, MOMENTUM)
    optimizer.build(weights)
    image = tf.constant(noise(job.shape).transpose(0, 2, 3, 1))
    target = tf.constant(class_targets(job.batch))

    @tf.function(jit_compile=xla)
    def step(image: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = tf.cast(net(image, training=True), tf.float32)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(target, logits))
        gradients = tape.gradient(loss, weights)
        decayed = [g + DECAY * w if len(w.shape) > 1 else g for g, w in zip(gradients, weights)]
        optimizer.apply_gradients(zip(decayed, weights))
        return loss

    return time_calls(lambda: float(step(image, target)), job)


def write_litert(job: Job, file: str, int8: bool = False) -> None:
    """A .tflite file for exactly this batch; with whole numbers by post-training quantisation, if wanted."""
    inputs = tf.keras.Input((job.height, job.width, 3), batch_size=job.batch)
    converter = tf.lite.TFLiteConverter.from_keras_model(tf.keras.Model(inputs, build(job)(inputs)))
    if int8:
        shape = (job.batch, job.height, job.width, 3)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([noise(shape)] for _ in range(-(-CALIBRATION // job.batch)))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    Path(file).write_bytes(converter.convert())
