"""Parameter names: ours, those of other libraries, and which variant some weights belong to. No MindSpore here.

Files of the authors hold the encoder alone (ImageNet) or everything with "backbone." in front of the encoder; files of
transformers may have "segformer." in front of it. Of mmsegmentation's files the encoder alone is read: its decode head
has a batch normalisation and a ReLU behind each projection, so it is another network than the paper's.
"""

from __future__ import annotations

import re

import numpy as np

from src.engine.errors import ZooError
from src.segformer.variants import VARIANTS

# One row per module; i counts stages from 0, n from 1, j blocks from 0.
# ours, authors', transformers until version 4 (and all of its files), transformers from version 5 on, mmsegmentation's
ENCODER = (
    ("patch_embed.proj", "patch_embed{n}.proj", "encoder.patch_embeddings.{i}.proj",
     "stages.{i}.patch_embeddings.proj", "layers.{i}.0.projection"),
    ("patch_embed.norm", "patch_embed{n}.norm", "encoder.patch_embeddings.{i}.layer_norm",
     "stages.{i}.patch_embeddings.layer_norm", "layers.{i}.0.norm"),
    ("norm", "norm{n}", "encoder.layer_norm.{i}", "stages.{i}.layer_norm", "layers.{i}.2"),
)  # fmt: skip
BLOCK_PREFIXES = (
    "blocks.{j}.", "block{n}.{j}.", "encoder.block.{i}.{j}.", "stages.{i}.blocks.{j}.", "layers.{i}.1.{j}.",
)  # fmt: skip
BLOCK = (
    ("norm1", "norm1", "layer_norm_1", "layernorm_before", "norm1"),
    ("attn.q", "attn.q", "attention.self.query", "attention.q_proj", ""),
    ("attn.kv", "attn.kv", "", "", ""),
    ("attn.k", "", "attention.self.key", "attention.k_proj", ""),
    ("attn.v", "", "attention.self.value", "attention.v_proj", ""),
    ("attn.qkv", "", "", "", "attn.attn.in_proj"),
    ("attn.proj", "attn.proj", "attention.output.dense", "attention.o_proj", "attn.attn.out_proj"),
    ("attn.sr", "attn.sr", "attention.self.sr", "attention.sequence_reduction.sequence_reduction", "attn.sr"),
    ("attn.norm", "attn.norm", "attention.self.layer_norm", "attention.sequence_reduction.layer_norm", "attn.norm"),
    ("norm2", "norm2", "layer_norm_2", "layernorm_after", "norm2"),
    ("mlp.fc1", "mlp.fc1", "mlp.dense1", "mlp.fc1", "ffn.layers.0"),
    ("mlp.dwconv", "mlp.dwconv.dwconv", "mlp.dwconv.dwconv", "mlp.dwconv.dwconv", "ffn.layers.1"),
    ("mlp.fc2", "mlp.fc2", "mlp.dense2", "mlp.fc2", "ffn.layers.4"),
)
HEAD = (
    ("linear_c.{i}", "linear_c{n}.proj", "linear_c.{i}.proj", "linear_projections.{i}.proj", ""),
    ("linear_fuse", "linear_fuse.conv", "linear_fuse", "linear_fuse", ""),
    ("bn", "linear_fuse.bn", "batch_norm", "batch_norm", ""),
    ("linear_pred", "linear_pred", "classifier", "classifier", ""),
)
AUTHORS, TRANSFORMERS_4, TRANSFORMERS_5, MMSEG = DIALECTS = (1, 2, 3, 4)  # columns of the tables
PREFIXES = {AUTHORS: "backbone.", TRANSFORMERS_4: "segformer.", TRANSFORMERS_5: "segformer.", MMSEG: "backbone."}
MMSEG_HEAD = "decode_head.convs."  # the beginning of names in mmsegmentation's decode head alone
JOINED_LEAF = "in_proj_"  # PyTorch's attention has no module for the joined projections, so their owner ends here
NORMS = ("norm", "norm1", "norm2", "bn")
NORM_LEAVES = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
COUNTER = "num_batches_tracked"  # of PyTorch's batch normalisation; nothing reads it with a fixed momentum
ENCODER_PREFIX, HEAD_PREFIX = "backbone.stages.", "decode_head."
FIRST = "backbone.stages.0.patch_embed.proj.weight"
PREDICTION = "decode_head.linear_pred.weight"


def owners(dialect: int) -> dict[str, str]:
    """Module names of a dialect -> ours, for as many blocks as any variant has."""
    found = {}
    most_blocks = max(max(variant.depths) for variant in VARIANTS.values())
    for i in range(4):
        stage = f"{ENCODER_PREFIX}{i}."
        for row in ENCODER:
            found[row[dialect].format(i=i, n=i + 1)] = stage + row[0]
        for j in range(most_blocks):
            prefixes = [prefix.format(i=i, n=i + 1, j=j) for prefix in BLOCK_PREFIXES]
            found.update(
                {prefixes[dialect] + row[dialect]: stage + prefixes[0] + row[0] for row in BLOCK if row[dialect]}
            )
        for row in HEAD:
            if row[dialect]:
                found[HEAD_PREFIX + row[dialect].format(i=i, n=i + 1)] = HEAD_PREFIX + row[0].format(i=i)
    return found


def our_name(name: str, dialect: int, known: dict[str, str]) -> str | None:
    """Our name of an array of a dialect, None where it has no place in the network; `known` are `owners(dialect)`."""
    own = name.removeprefix(PREFIXES[dialect])
    owner, _, leaf = own.replace(JOINED_LEAF, JOINED_LEAF[:-1] + ".").rpartition(".")
    ours = known.get(owner)
    if ours is None:
        return None
    is_norm = ours.rsplit(".", 1)[-1] in NORMS
    return f"{ours}.{NORM_LEAVES.get(leaf, leaf) if is_norm else leaf}"


def from_model_zoo(name: str) -> str:
    """The authors' name of an entry of an original MindSpore checkpoint; only the projections are called otherwise."""
    return re.sub(r"\b(patch_embed\d|attn)\.conv\.", r"\1.proj.", name)


def is_segformer(state: dict[str, np.ndarray]) -> bool:
    """Whether the arrays have the names of a Mix Transformer in any dialect."""
    tables = [(dialect, owners(dialect)) for dialect in DIALECTS]
    return any(our_name(key, dialect, known) == FIRST for dialect, known in tables for key in state)


def translate(state: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Arrays under our names and in our shapes, and the keys that have no place in the network.

    Counters of batch normalisation are in neither. Raises ZooError where two keys stand for one array.
    """
    best: dict[str, str] = {}
    for dialect in DIALECTS:
        known = owners(dialect)
        named = {key: name for key in state if (name := our_name(key, dialect, known)) is not None}
        best = max(best, named, key=len)
    require_distinct(best)
    arrays = {name: in_our_shape(name, state[key]) for key, name in best.items() if not key.endswith(COUNTER)}
    unused = [key for key in state if key not in best]
    return with_joined_keys_and_values(with_queries_apart(arrays)), unused


def require_distinct(ours: dict[str, str]) -> None:
    """Raise ZooError where two of the keys of `ours` have one name, as with and without "backbone."."""
    first: dict[str, str] = {}
    for key, name in ours.items():
        if name in first:
            raise ZooError(f"the keys {first[name]} and {key} are both {name} here; remove one of them from the file")
        first[name] = key


def in_our_shape(name: str, array: np.ndarray) -> np.ndarray:
    """Dense layers on maps are 1x1 convolutions here, and the 1x1 convolution linear_fuse is a matrix."""
    if name.endswith(("mlp.fc1.weight", "mlp.fc2.weight")) and array.ndim == 2:
        return array[:, :, None, None]
    if name == "decode_head.linear_fuse.weight" and array.ndim == 4:
        return array[:, :, 0, 0]
    return array


def with_queries_apart(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """mmsegmentation keeps the matrices of queries, keys and values in one, in this order."""
    apart = {}
    for name, array in arrays.items():
        if ".attn.qkv." in name and array.ndim:
            queries, others = np.split(array, [len(array) // 3])
            apart[name.replace(".attn.qkv.", ".attn.q.")], apart[name.replace(".attn.qkv.", ".attn.kv.")] = (
                queries,
                others,
            )
        else:
            apart[name] = array
    return apart


def with_joined_keys_and_values(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Hugging Face keeps the matrices of keys and values apart; here, as in the paper's code, one follows the other."""
    joined = {}
    for name, array in arrays.items():
        partner = name.replace(".attn.k.", ".attn.v.")
        if partner != name and partner in arrays:
            joined[name.replace(".attn.k.", ".attn.kv.")] = np.concatenate([array, arrays[partner]])
        elif not (".attn.v." in name and name.replace(".attn.v.", ".attn.k.") in arrays):
            joined[name] = array
    return joined


def variant_of(arrays: dict[str, np.ndarray]) -> str | None:
    """The backbone whose channels and numbers of blocks the arrays (under our names) have, None if there is none."""
    channels, depths = [], []
    for stage in range(4):
        prefix = f"{ENCODER_PREFIX}{stage}."
        projection = arrays.get(f"{prefix}patch_embed.proj.weight")
        blocks = [int(name.split(".")[4]) for name in arrays if name.startswith(f"{prefix}blocks.")]
        channels.append(len(projection) if projection is not None and projection.ndim else 0)
        depths.append(max(blocks, default=-1) + 1)
    return next((name for name, v in VARIANTS.items() if [*v.channels] == channels and [*v.depths] == depths), None)


def encoder_names(backbone: str) -> list[str]:
    """All arrays of an encoder."""
    known = set(owners(AUTHORS).values())
    names = []
    for stage, depth in enumerate(VARIANTS[backbone].depths):
        prefix = f"{ENCODER_PREFIX}{stage}."
        for owner in sorted(name for name in known if name.startswith(prefix)):
            parts = owner.split(".")
            if parts[3] == "blocks" and int(parts[4]) >= depth:
                continue
            if stage == 3 and owner.endswith(("attn.sr", "attn.norm")):  # nothing is reduced in the last stage
                continue
            names += [f"{owner}.{leaf}" for leaf in (("gamma", "beta") if parts[-1] in NORMS else ("weight", "bias"))]
    return names


def head_names() -> list[str]:
    """All arrays of a decode head."""
    layers = [f"{HEAD_PREFIX}linear_c.{i}.{leaf}" for i in range(4) for leaf in ("weight", "bias")]
    norm = [f"{HEAD_PREFIX}bn.{leaf}" for leaf in NORM_LEAVES.values()]
    return [*layers, f"{HEAD_PREFIX}linear_fuse.weight", *norm, PREDICTION, PREDICTION.replace("weight", "bias")]
