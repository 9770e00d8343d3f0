"""What README, pages and cards name is there: links, tests, keys, commands; and both languages say one thing."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.engine import config
from tests.conftest import ROOT
from tools import documents

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("configs/*/*.md")])
IN_ENGLISH = [page for page in PAGES if not page.stem.endswith("_CN")]
LONGEST_README, LONGEST_PAGE = 200, 250  # lines


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def without_made_parts(text: str) -> str:
    return documents.KEYS.sub("", documents.TREE.sub("", text))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    plain = [re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_made_parts(read(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        aim = (page.parent / path) if path else page
        assert aim.exists(), f"{name(page)} links to {target}"
        if anchor:
            assert anchor in anchors(read(aim)), f"{name(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_are_short(page):
    longest = LONGEST_README if page.stem.startswith("README") and page.parent == ROOT else LONGEST_PAGE
    assert len(without_made_parts(read(page)).splitlines()) <= longest


@pytest.mark.parametrize("page", [page for page in PAGES if "<!-- " in read(page)], ids=name)
def test_made_parts_are_as_the_code_is(page):
    """Trees follow from the first sentence of every module, tables of keys from their declarations."""
    assert documents.renewed(read(page)) == read(page), "run python tools/documents.py"


def test_every_page_is_reached_from_the_readme():
    linked = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", read(ROOT / "README.md"))}
    assert {name(page) for page in ROOT.glob("docs/*.md")} <= linked


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_tests_that_are_named_are_there(page):
    """The table of what a run survives and SECURITY.md name the test of every promise."""
    names = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(re.findall(r"\btest_\w+\.py", read(page))) <= names
    for path in re.findall(r"`(tests/[\w/]+\.py)`", read(page)):
        assert (ROOT / path).is_file(), path


def commands(page: Path) -> Iterator[str]:
    text = read(page).replace("\\\n", " ")
    yield from re.findall(r"^ *(?:\$ )?(python (?:train|eval|infer|export)\.py .*)$", text, re.M)


def known_flags(line: str) -> set[str]:
    """The flags of the model whose configuration a command names."""
    given = re.search(r"--config_path[ =](\S+)", line)
    path = ROOT / given[1] if given else ROOT / "default_config.yaml"
    model = "segformer" if "segformer" in path.name else "mobilenetv2"
    if path.is_file():
        model = config.read_yaml(path).get("model", config.Value("mobilenetv2", "")).raw
    config_class = importlib.import_module(f"src.{model}.config").Config
    parser = config.flag_parser(config_class, {}, "", "")
    return {flag for action in parser._actions for flag in action.option_strings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_parse(page):
    """Flags of `python train.py|eval.py|infer.py|export.py ...` lines exist, and so do the files that are named."""
    for line in commands(page):
        unknown = set(re.findall(r"(?<!\S)--\w+", line.split("#")[0])) - known_flags(line)
        assert not unknown, line
    for path in re.findall(r"\b(?:scripts|configs|tools|examples)/[\w./]+\.(?:sh|yaml|py)\b", read(page)):
        assert (ROOT / path).is_file(), path


def test_there_are_commands():
    assert sum(1 for page in PAGES for _ in commands(page)) > 30


def test_job_parameters_are_keys():
    table = re.search(r"\| job \|.*?\n\n", read(ROOT / "docs" / "modelarts.md"), re.S)[0]
    named = set(re.findall(r"\b(\w+)=", table))
    assert len(named) > 10
    assert {f"--{key}" for key in named} <= known_flags("")


def test_errors_that_are_explained_can_occur():
    """The words of the table in docs/troubleshooting.md stand in the programs."""
    rows = re.findall(r"^\| `([^`]+)` \|", read(ROOT / "docs" / "troubleshooting.md"), re.M)
    assert len(rows) == 20
    sources = [*ROOT.glob("src/**/*.py"), *ROOT.glob("scripts/*.sh")]
    texts = [re.sub(r'"\s*\n\s*f?"', "", read(path)) for path in sources]
    for words in rows:
        assert any(words in text for text in texts), words


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem.endswith("_CN")], ids=name)
def test_both_languages_say_one_thing(page):
    """Code, numbers and links are the same, and there are as many headings; only words differ."""
    english = page.with_name(page.name.replace("_CN", ""))
    one, other = read(english), read(page)
    assert code_of(one) == code_of(other)
    assert numbers(one) == numbers(other)
    assert len(re.findall(r"^#", one, re.M)) == len(re.findall(r"^#", other, re.M))
    links = [set(re.findall(r"\]\(([^)\s]+)\)", text)) - {english.name, page.name} for text in (one, other)]
    assert links[0] == links[1]


def code_of(text: str) -> list[str]:
    """The lines of the code blocks that are no comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if not line.startswith("#")]


def numbers(text: str) -> list[str]:
    return sorted(re.findall(r"\d+(?:\.\d+)*", text.replace(",", "")))
