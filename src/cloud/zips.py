"""Unpack a data set's zip file: checked before anything is written, compared with what is there, whole in the end."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from src.cloud.copies import Progress, require_room, size
from src.cloud.storage import CHUNK, require_inside
from src.engine.data.archive_index import ENCRYPTED, NOT_DATA
from src.engine.errors import ZooError

MOST_GROWTH = 100  # times the size of the zip file; pictures hardly grow, label files ten- or twentyfold
ALWAYS_FINE = 2**20  # bytes that any zip file may expand to
BLOCK = 4096  # bytes of disk that even a small file takes


def extract(archive: Path, folder: Path, name: str, say: Callable[[str], None], heartbeat: Callable[[], None]) -> Path:
    """Unpack into folder/name and return that path; a folder `name` at the top of the zip file is not repeated.

    Members that are there with the right size and checksum stay, so an extraction that was interrupted is completed.
    Raises ZooError for a damaged or dangerous zip file, where the disk is too small, and where the folder holds files
    that are not in the zip file.
    """
    root, done = folder / require_inside(name), folder / f".{name}.unzipped"
    try:
        with zipfile.ZipFile(archive) as opened:
            members = checked(archive, opened, name)
            seal = seal_of(members)
            if (
                done.is_file()
                and done.read_text() == seal
                and all(is_there(root / path, of) for path, of in members.items())
            ):
                say(f"{root} holds all {len(members)} files of {archive.name}")
                return root
            unpack(opened, members, root, say, heartbeat)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ZooError(f"{archive} is damaged or no zip file ({error}); upload it again") from error
    except OSError as error:
        raise ZooError(f"cannot unpack {archive} into {folder}: {error.strerror or error}; make room") from error
    require_nothing_else(root, members, archive)
    done.write_text(seal)
    return root


def checked(archive: Path, opened: zipfile.ZipFile, name: str) -> dict[str, zipfile.ZipInfo]:
    """The files of a zip file by the path they get below the target folder. Raises ZooError for what is dangerous."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in opened.infolist():
        path = require_inside(info.filename)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ZooError(f"{archive} holds {info.filename!r}, which is a link or a device; zip plain files only")
        if info.flag_bits & ENCRYPTED:
            raise ZooError(f"{archive} holds {info.filename!r} with a password; zip the files without one")
        if info.is_dir() or path.parts[0] == NOT_DATA:
            continue
        if str(path) in members:
            raise ZooError(f"{archive} holds {info.filename!r} twice; zip the files again")
        members[str(path)] = info
    if not members:
        raise ZooError(f"{archive} holds no files; zip the data set again")
    folders = {str(parent) for path in members for parent in Path(path).parents}
    both = folders & members.keys()
    if both:
        raise ZooError(f"{archive} holds {min(both)!r} as a file and as a folder; zip the files again")
    require_sane(archive, members)
    prefix = f"{name}/"
    if all(path.startswith(prefix) for path in members):
        return {path[len(prefix) :]: info for path, info in members.items()}
    return members


def require_sane(archive: Path, members: dict[str, zipfile.ZipInfo]) -> None:
    """Refuse decompression bombs: members that grow absurdly, or that share their compressed bytes."""
    whole = archive.stat().st_size
    unpacked = sum(info.file_size for info in members.values())
    packed = sum(info.compress_size for info in members.values())
    if packed > whole or unpacked > max(MOST_GROWTH * whole, ALWAYS_FINE):
        raise ZooError(
            f"{archive} has {size(whole)} and would unpack to {size(unpacked)}, which no data set does; "
            "check where it comes from"
        )


def seal_of(members: dict[str, zipfile.ZipInfo]) -> str:
    """A checksum of all names, sizes and checksums."""
    digest = hashlib.sha256()
    for path, info in sorted(members.items()):
        digest.update(f"{path}\0{info.file_size}\0{info.CRC}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def is_there(path: Path, info: zipfile.ZipInfo) -> bool:
    return path.is_file() and path.stat().st_size == info.file_size


def is_same(path: Path, info: zipfile.ZipInfo) -> bool:
    """Whether the file has the member's size and checksum."""
    if path.is_symlink() or not is_there(path, info):
        return False
    found = 0
    with path.open("rb") as handle:
        while data := handle.read(CHUNK):
            found = zlib.crc32(data, found)
    return found == info.CRC


def unpack(
    opened: zipfile.ZipFile,
    members: dict[str, zipfile.ZipInfo],
    root: Path,
    say: Callable[[str], None],
    heartbeat: Callable[[], None],
) -> None:
    """Write the members that are missing or different; each gets its name when it is whole and its checksum right."""
    root.mkdir(parents=True, exist_ok=True)
    missing = {}
    for path, info in members.items():
        if not is_same(root / path, info):
            missing[path] = info
        heartbeat()
    total = sum(info.file_size for info in missing.values())
    on_disk = sum(-(-info.file_size // BLOCK) * BLOCK for info in missing.values())
    require_room(root, on_disk, f"unpacking into {root}")
    if missing and len(missing) < len(members):
        say(f"{root} holds {len(members) - len(missing)} of {len(members)} files; unpacking the rest")
    progress = Progress(f"unpacking into {root}", total, say)
    plain = {root}
    for path, info in missing.items():
        target = root / path
        make_parents(target.parent, root, plain)
        part = target.with_name(f".{target.name}.part")
        part.unlink(missing_ok=True)
        with opened.open(info) as source, part.open("xb") as handle:
            shutil.copyfileobj(source, handle, CHUNK)  # raises BadZipFile where the checksum is wrong
        part.replace(target)
        progress.add(info.file_size)
        heartbeat()
    say(f"unpacked {len(missing)} of {len(members)} files ({size(total)}) into {root}")


def make_parents(folder: Path, root: Path, plain: set[Path]) -> None:
    """Make a folder below `root`; one on the way that is a link would lead out of it. `plain` are known to be fine."""
    if folder in plain:
        return
    make_parents(folder.parent, root, plain)
    if folder.is_symlink():
        raise ZooError(f"{folder} is a link, so files would be written elsewhere; remove it")
    folder.mkdir(exist_ok=True)
    plain.add(folder)


def require_nothing_else(root: Path, members: dict[str, zipfile.ZipInfo], archive: Path) -> None:
    """Other files in the folder would silently become part of the data set."""
    for where, _, names in os.walk(root):
        for file in names:
            path = Path(where, file).relative_to(root).as_posix()
            if not file.startswith(".") and path not in members:
                raise ZooError(f"{root} holds {path}, which is not in {archive.name}; remove it or the whole folder")
