"""Run one rank as its plan says: `python rank.py PLAN.json [LOCAL_RANK]`. Standard library only.

src/launch/supervise.py starts it, directly or through msrun or mpirun, and reads what it leaves in the plan's folder:
rank<LOCAL>.pid while the rank runs and rank<LOCAL>.status when it has ended.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PATIENCE = 600  # seconds from asking a rank to stop to killing it; it finishes its step or evaluation and saves
POLL = 0.1  # seconds
STOP = (signal.SIGTERM, signal.SIGINT)


def die_with_parent():
    """Linux: get SIGTERM when the parent ends, however it ends, so that nobody is left behind."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def child_of(parent):
    """What a new process of process `parent` does first: end with it, and take signals as if started from a shell."""

    def prepare():
        die_with_parent()
        if os.getppid() != parent:  # it ended before the line above could have an effect
            os._exit(128 + signal.SIGTERM)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background processes start with it ignored
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)

    return prepare


def local_rank(argv):
    """Which of this node's ranks this process is: said on the command line, or by mpirun, or by msrun."""
    for text in (*argv[2:3], os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK"), os.environ.get("DEVICE_ID")):
        if text is not None:
            return int(text)
    raise SystemExit("error: no rank; start this through python -m src.launch")


def write(path, text):
    """The file appears with its content."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def environment_of(plan):
    env = {name: value for name, value in os.environ.items() if name not in plan["unset"]}
    return {**plan["defaults"], **env, **plan["env"]}


def run(plan, folder):
    """Run the rank with its output in its log; returns the exit status, 128 + n after signal n."""
    index = plan["local_rank"]
    if plan["cpus"]:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, plan["cpus"])
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)  # none may come between the child's start and its handlers
    with Path(plan["log"]).open("ab") as log:
        child = subprocess.Popen(
            plan["argv"],
            env=environment_of(plan),
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=child_of(os.getpid()),
        )
    write(folder / f"rank{index}.pid", str(child.pid))

    def pass_on(number, frame):
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)
        signal.alarm(PATIENCE)

    signal.signal(signal.SIGALRM, lambda number, frame: child.kill())
    for number in STOP:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
    code = child.wait()
    status = code if code >= 0 else 128 - code
    write(folder / f"rank{index}.status", f"{status} {time.time()}")
    return status


def wait_for_all(count, folder):
    """Wait until every rank of this node has ended, at most PATIENCE.

    msrun and mpirun kill the other ranks as soon as one has ended with an error, also after a signal that all of them
    got: one that still sends its results to a store would lose them. src/launch/supervise.py ends those that hang.
    """
    for number in STOP:
        signal.signal(number, signal.SIG_DFL)
    deadline = time.monotonic() + PATIENCE
    while len(list(folder.glob("rank*.status"))) < count and time.monotonic() < deadline:
        time.sleep(POLL)


def main(argv):
    path = Path(argv[1])
    plans = json.loads(path.read_text(encoding="utf-8"))
    die_with_parent()
    if os.environ.get("MS_ROLE") == "MS_SCHED":  # msrun's scheduler runs the same script and computes nothing
        plan = plans[0]
        env = {**environment_of(plan), "MS_ROLE": "MS_SCHED", "RANK_ID": "0"}
        os.execvpe(plan["argv"][0], plan["argv"], env)
    status = run(plans[local_rank(argv)], path.parent)
    if status and len(argv) < 3:  # the framework's launcher has started it
        wait_for_all(len(plans), path.parent)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv))
