"""What this machine says about its Ascend cards: IP addresses from hccn_tool or /etc/hccn.conf. No MindSpore here."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path

from src.engine.errors import UsageError, ZooError

HCCN_CONF = Path("/etc/hccn.conf")
MAX_CARDS = 16  # on one server
TOOL_SECONDS = 30  # for hccn_tool to answer; a card that hangs makes it wait for ever


def device_range(text: str) -> range:
    """ "[0,8)" -> range(0, 8)."""
    match = re.fullmatch(r"\[\s*(\d+)\s*,\s*(\d+)\s*\)", text.strip())
    if not match:
        raise UsageError(
            f'device_num is {text!r}; it has to look like "[0,8)", the first card and the one after the last'
        )
    first, end = int(match[1]), int(match[2])
    if not first < end <= MAX_CARDS:
        raise UsageError(f"device_num is {text}; it has to name at least one card and none above {MAX_CARDS - 1}")
    return range(first, end)


def visible(text: str) -> list[int]:
    """ "4,5,6,7" -> [4, 5, 6, 7]."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UsageError(f"devices are {text!r}; they have to be card numbers with commas between, like 0,1,2,3")
    numbers = [int(part) for part in parts]
    if len(set(numbers)) != len(numbers):
        raise UsageError(f"devices are {text}; a card is named twice, name each once")
    return numbers


def read_conf(path: Path) -> dict[int, str]:
    """Card -> IP from the `address_<card>=<ip>` lines of hccn.conf."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    found = re.findall(r"^\s*address_(\d+)\s*=\s*(\S+)\s*$", text, re.M)
    return {int(number): ip for number, ip in found}


def ask_tool(card: int) -> str:
    """The IP that `hccn_tool -i CARD -ip -g` reports ("ipaddr:192.168.100.101"), empty without one."""
    if shutil.which("hccn_tool") is None:
        return ""
    command = ["hccn_tool", "-i", str(card), "-ip", "-g"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TOOL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ZooError(f"hccn_tool says nothing about card {card}; look at the card with npu-smi info") from error
    match = re.search(r"ipaddr\s*:\s*(\S+)", result.stdout)
    return match[1] if match and not result.returncode else ""


def device_ips(cards: list[int], conf: Path = HCCN_CONF) -> list[tuple[int, str]]:
    """(card, IP) of each card; the tool is asked first, the file fills in. ZooError names the cards without one."""
    from_file = read_conf(conf)
    found = [(card, ask_tool(card) or from_file.get(card, "")) for card in cards]
    without = [str(card) for card, ip in found if not ip]
    if without:
        raise ZooError(
            f"no IP address for card {', '.join(without)} from hccn_tool or {conf}; "
            "run this on the Ascend machine, as a user who may call hccn_tool"
        )
    return found


def server_ip() -> str:
    """This machine's address: the one that outgoing packets have, else that of the host name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address; nothing is sent
            return probe.getsockname()[0]
        except OSError:
            pass
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError as error:
        raise ZooError("this machine's IP address is unknown; give it with --server_ip") from error


def own_addresses() -> set[str]:
    """Addresses and names under which a rank table may know this machine."""
    names = {socket.gethostname(), "127.0.0.1"}
    try:
        names |= set(socket.gethostbyname_ex(socket.gethostname())[2])
        names.add(server_ip())
    except (OSError, ZooError):
        pass
    return names
