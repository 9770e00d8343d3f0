"""What the checks of both tasks say about the pictures of a data set: damage, sizes, duplicates. No MindSpore here."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from src.engine.data import images, stream
from src.inspection import page
from src.inspection.data import duplicates
from src.inspection.data.findings import FAILS, LEAK, NOTE, WARNING, Checked, Pictures, Table
from src.inspection.data.survey import Survey
from src.inspection.page import Picture

NAMED = 3  # files in a sentence
SHOWN = 24  # pictures of a finding
MOST_COMPARED = 20_000  # pairs with nearly equal hashes whose pictures are read again
Place = tuple[Survey, int]
Splits = dict[str, Survey]  # "train" and, where it is there, "val"


def few(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def counted(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def shown(places: Sequence[Place], captions: Sequence[str]) -> Pictures:
    """The pictures at the first places, read when a page is written."""
    return shown_all(places[:SHOWN], captions[:SHOWN])


def shown_all(places: Sequence[Place], captions: Sequence[str]) -> Pictures:
    """The pictures at all of the places."""
    return functools.partial(read_all, list(places), list(captions))


def read_all(places: list[Place], captions: list[str]) -> Iterator[Picture]:
    for (survey, index), caption in zip(places, captions):
        try:
            yield Picture(page.thumbnail(images.decode(survey.source.read(index))), caption)
        except images.BadImage:  # gone since it was surveyed
            continue


def check(splits: Splits, on_bad_image: str, name: Callable[[str, int], str], checked: Checked) -> None:
    """Add tables and findings about the pictures; `name(split, index)` is what to call one."""
    for split, survey in splits.items():
        check_readable(split, survey, on_bad_image, checked)
    checked.tables += [size_table(splits), kind_table(splits)]
    for split, survey in splits.items():
        check_repeated(split, survey, checked)
    if "val" in splits:
        check_leak(Both(splits["train"], splits["val"], name), checked)


def check_readable(split: str, survey: Survey, on_bad_image: str, checked: Checked) -> None:
    """Which files cannot be used, and whether training goes on without them (src/engine/data/stream.py: first_good)."""
    if not survey.bad:
        return
    told = [f"{survey.source.name(index)} ({reason})" for index, reason in sorted(survey.bad.items())]
    count = len(survey)
    limit = min(count, stream.MOST_IN_A_ROW)
    if longest_row(sorted(survey.bad), count) >= limit:
        what = f"none of the {count} files" if limit == count else f"none of {limit} files in a row"
        checked.say(FAILS, f"{split}: {what} is a usable image: {few(told)}; check the data folder")
    elif on_bad_image == "error":
        checked.say(FAILS, f"{split}: {few(told)} cannot be used; remove them or use --on_bad_image skip")
    else:
        checked.say(WARNING, f"{split}: {counted(len(told), 'file')} cannot be used and will be skipped: {few(told)}")


def longest_row(bad: Sequence[int], count: int) -> int:
    """The most indices of `bad` in a row; after the last of `count` comes the first again."""
    is_bad = np.zeros(count, bool)
    is_bad[list(bad)] = True
    if is_bad.all():
        return count
    gaps = np.flatnonzero(~np.concatenate([is_bad, is_bad]))
    return int(np.diff(gaps).max() - 1) if len(gaps) > 1 else 0


def size_table(splits: Splits) -> Table:
    """Smallest, median and largest sides, and the most frequent sizes."""
    rows: list[list[str | int | float]] = []
    for called, of in (("smallest", np.min), ("median", np.median), ("largest", np.max)):
        for side, column in (("height", 0), ("width", 1)):
            values = [survey.sizes[survey.good, column] for survey in splits.values()]
            rows.append([f"{called} {side}", *(int(of(found)) if len(found) else "" for found in values)])
    counts = {split: Counter(map(tuple, survey.sizes[survey.good].tolist())) for split, survey in splits.items()}
    total: Counter[tuple[int, ...]] = sum(counts.values(), Counter())
    for size, _ in total.most_common(5):
        rows.append([f"{size[1]} x {size[0]}", *(counts[split][size] for split in splits)])
    rows.append(["different sizes", *(len(found) for found in counts.values())])
    return Table("width x height, pixels", ["size", *splits], rows)


def kind_table(splits: Splits) -> Table:
    kinds = sorted({kind for survey in splits.values() for kind in survey.kinds})
    return Table(
        "format and mode", ["format", *splits], [[kind, *(s.kinds[kind] for s in splits.values())] for kind in kinds]
    )


def check_repeated(split: str, survey: Survey, checked: Checked) -> None:
    """Pictures that are there more than once in one split."""
    good = survey.good
    found = [[int(good[i]) for i in members] for members in duplicates.groups(survey.digests[good])]
    if found:
        names = [" = ".join(survey.source.name(index) for index in members[:NAMED]) for members in found]
        places = [(survey, index) for members in found for index in members]
        captions = [survey.source.name(index) for _, index in places]
        text = f"{split}: {counted(len(found), 'picture')} there more than once: {few(names)}"
        checked.say(NOTE, text, shown(places, captions))


@dataclass(frozen=True)
class Both:
    """Two splits, and what a picture of one is called."""

    train: Survey
    val: Survey
    name: Callable[[str, int], str]

    def grey(self, split: str, index: int) -> np.ndarray | None:
        """A picture for comparison; None where it cannot be read any more."""
        source = (self.train if split == "train" else self.val).source
        try:
            return duplicates.grey(images.decode(source.read(index)))
        except images.BadImage:
            return None


def check_leak(both: Both, checked: Checked) -> None:
    """Pictures of the validation data that training sees too."""
    good = both.train.good, both.val.good
    found = duplicates.equal_pairs(both.train.digests[good[0]], both.val.digests[good[1]])
    equal = [(int(good[0][i]), int(good[1][j])) for i, j in found]
    same, alike, left_out = near_leaks(both, {j for _, j in equal})
    told = (
        (LEAK, "of val with pixels that are in train too", equal),
        (LEAK, "of val nearly as one of train", same),
        (WARNING, "of val much like one of train, look at them", alike),
    )
    for kind, what, pairs in told:
        if pairs:
            text = f"{counted(len(pairs), 'picture')} {what}: "
            text += few([f"{both.name('val', j)} = {both.name('train', i)}" for i, j in pairs])
            checked.say(kind, text, shown_pairs(both, pairs))
    if left_out:
        checked.say(NOTE, f"{left_out} pairs with nearly equal hashes were not compared")


def shown_pairs(both: Both, pairs: list[tuple[int, int]]) -> Pictures:
    places = [place for i, j in pairs for place in ((both.train, i), (both.val, j))]
    names = [name for i, j in pairs for name in (f"train: {both.name('train', i)}", f"val: {both.name('val', j)}")]
    return shown(places, names)


def near_leaks(both: Both, known: set[int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]], int]:
    """Pairs (index in train, in val) that are the same picture, and that are alike; each picture of val in one pair.

    Those of val in `known` are left out. The number is that of pairs which were not compared, there being too many.
    """
    left = np.flatnonzero(both.train.is_hashed)
    right = np.array([j for j in np.flatnonzero(both.val.is_hashed) if j not in known], int)
    found = duplicates.near_pairs(both.train.hashes[left], both.val.hashes[right])
    grey = functools.lru_cache(maxsize=None)(both.grey)
    same: dict[int, int] = {}
    alike: dict[int, int] = {}
    for i, j, _ in found[:MOST_COMPARED]:
        one, other = grey("train", int(left[i])), grey("val", int(right[j]))
        if one is not None and other is not None:
            is_same = duplicates.correlation(one, other) >= duplicates.SAME
            (same if is_same else alike).setdefault(int(right[j]), int(left[i]))
    pairs = [[(i, j) for j, i in chosen.items()] for chosen in (same, alike)]
    return pairs[0], [(i, j) for i, j in pairs[1] if j not in same], max(0, len(found) - MOST_COMPARED)
