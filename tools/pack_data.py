"""Pack a data set's folder into one .tar file, which training reads as it is: fewer files to copy and to open.

python tools/pack_data.py FOLDER OUT.tar

Hidden files and folders are left out, as training leaves them out; links are followed. The files lie in sorted order.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tarfile
from pathlib import Path

from src.engine.config import Parser
from src.engine.data.archive import open_archive
from src.engine.errors import UsageError, ZooError, reports_errors
from src.engine.io import files


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse and check the command line; raises UsageError."""
    parser = Parser(prog="python tools/pack_data.py", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what DATASET_PATH or data_path would name")
    parser.add_argument("out", type=Path, metavar="OUT.tar", help="file to write; one that is there is replaced")
    args = parser.parse_args(argv)
    args.folder, args.out = args.folder.expanduser(), args.out.expanduser()
    if not args.folder.is_dir():
        raise UsageError(f"{args.folder} is not a folder; give the one of the data set")
    if args.out.suffix != ".tar" or args.out.is_dir():
        raise UsageError(f"{args.out} cannot be the archive; give a file name that ends in .tar")
    if args.out.resolve().is_relative_to(args.folder.resolve()):
        raise UsageError(f"{args.out} lies in {args.folder}, which is packed; write the archive to another folder")
    return args


def write(folder: Path, names: list[str], out: Path) -> None:
    """Write the files `names` of `folder` into a new .tar file. Raises ZooError where one cannot be read."""
    from tqdm import tqdm

    options = {"format": tarfile.GNU_FORMAT, "encoding": "utf-8", "errors": "surrogateescape"}
    with tarfile.open(out, "w", dereference=True, **options) as tar:
        for name in tqdm(names, unit="file", leave=False, disable=not sys.stderr.isatty()):
            try:
                source = (folder / name).open("rb")
            except OSError as error:
                raise ZooError(f"cannot read {folder / name}: {error.strerror}; correct or remove it") from error
            with source:
                info = tar.gettarinfo(arcname=name, fileobj=source)
                info.type, info.linkname = tarfile.REGTYPE, ""  # of a file that is there under two names, twice
                info.uid, info.gid, info.uname, info.gname = 0, 0, "", ""
                tar.addfile(info, source)


@reports_errors
def main(argv: list[str]) -> int:
    args = arguments(argv)
    names = [file.relative_to(args.folder).as_posix() for file in files.files_below(args.folder)]
    if not names:
        raise UsageError(f"{args.folder} holds no files; give the folder of the data set")
    files.replace_file(args.out, functools.partial(write, args.folder, names))
    found = len(open_archive(args.out).names)
    if found != len(names):
        raise ZooError(f"{args.out} holds {found} of {len(names)} files; pack {args.folder} again")
    print(f"wrote {args.out}: {found} files, {args.out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
