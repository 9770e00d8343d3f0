"""What README, pages and cards name is there: links, tests, keys, commands; and both languages say one thing."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.engine import config
from tests.conftest import ROOT
from tools import documents

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("configs/*/*.md")])
IN_CHINESE = [page for page in PAGES if page.stem.endswith("_CN")]
TRANSLATED = {  # what the original documents, three of four in Chinese, speak of
    "README.md",
    *(f"configs/{model}/README.md" for model in ("mobilenetv2", "mobilenetv2_quant", "segformer")),
    *(f"docs/{page}.md" for page in ("own_data", "training", "several_devices", "modelarts", "predicting")),
    *(f"docs/{page}.md" for page in ("export_and_int8", "ascend310", "performance", "platforms", "troubleshooting")),
}
MISPRINT = "python --platform Ascend train.py"  # of the original documents, which the card explains
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


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text)


def english_of(page: Path) -> Path:
    return page.with_name(page.name.replace("_CN", ""))


def chinese_of(page: Path) -> Path:
    """The page in Chinese, or the page where it is not."""
    found = page.with_name(f"{page.stem}_CN.md")
    return found if found.is_file() else page


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in links(without_made_parts(read(page))):
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


@pytest.mark.parametrize("readme", ["README.md", "README_CN.md"])
def test_every_page_is_reached_from_the_readme(readme):
    """In Chinese, where the page is there in Chinese."""
    english = {page for page in ROOT.glob("docs/*.md") if page not in IN_CHINESE}
    pages = english if readme == "README.md" else {chinese_of(page) for page in english}
    assert {name(page) for page in pages} <= {target.partition("#")[0] for target in links(read(ROOT / readme))}


def test_every_page_has_its_place_on_the_site():
    pages = {name(page) for page in PAGES}
    listed = re.findall(r": (\S+\.md)$", read(ROOT / "mkdocs.yml"), re.M)
    assert sorted(listed) == sorted(pages)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_tests_that_are_named_are_there(page):
    """The table of what a run survives and SECURITY.md name the test of every promise."""
    names = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(re.findall(r"\btest_\w+\.py", read(page))) <= names
    for path in re.findall(r"`(tests/[\w/]+\.py)`", read(page)):
        assert (ROOT / path).is_file(), path


def commands(page: Path) -> Iterator[str]:
    """What the page tells its reader to type: lines of code blocks, and commands between backticks."""
    text = read(page).replace("\\\n", " ")
    yield from re.findall(r"^ *(?:\$ )?((?:\w+=\S+ )*(?:python|bash) .*)$", text, re.M)
    for words in words_of_code(text):
        if re.match(r"(?:\w+=\S+ )*(?:python|bash) ", words):
            yield words


def recipes(page: Path) -> Iterator[str]:
    """The commands that start one of the four entries."""
    yield from (line for line in commands(page) if re.match(r"python (?:train|eval|infer|export)\.py ", line))


def flags_in(line: str) -> set[str]:
    """Without those after a comment, and those after -- of a launcher, which are another program's."""
    return set(re.findall(r"(?<!\S)--\w+", re.split(r" # | -- ", line)[0]))


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
    for line in recipes(page):
        assert flags_in(line) <= known_flags(line), line
    for path in re.findall(r"\b(?:scripts|configs|tools|examples)/[\w./]+\.(?:sh|yaml|py)\b", read(page)):
        assert (ROOT / path).is_file(), path


def test_there_are_commands():
    assert sum(1 for page in PAGES for _ in recipes(page)) > 60
    assert sum(1 for page in PAGES for _ in commands(page)) > 200


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_other_programs_know_their_flags(page):
    """Tools, benchmarks and scripts: the file is there, and each flag stands in it or in the program that it starts."""
    for line in (line for line in commands(page) if line != MISPRINT):
        named = re.search(r"(?:python|bash) (-m )?([\w./]+)", line)
        path = ROOT / (f"{named[2].replace('.', '/')}.py" if named[1] else named[2])
        if named[1] and path.with_suffix("").is_dir():
            path = path.with_suffix("") / "__main__.py"
        if ROOT / "scripts" not in path.parents and not path.is_file():  # an original's script, named without folder
            assert list((ROOT / "scripts").rglob(path.name)) or named[2] in ("pytest", "pip"), line
            continue
        assert path.is_file(), line
        text = read(path) + (read(ROOT / "benchmarks" / "cpu.py") if path.name == "benchmark.sh" else "")
        assert {flag for flag in flags_in(line) - known_flags(line) if flag not in text} == set(), line


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


def test_what_the_original_documents_speak_of_is_there_in_chinese():
    assert {name(english_of(page)) for page in IN_CHINESE} == TRANSLATED


@pytest.mark.parametrize("page", IN_CHINESE, ids=name)
def test_both_languages_say_one_thing(page):
    """Code, numbers, links and the levels of headings are the same; only words differ."""
    one, other = read(english_of(page)), read(page)
    assert code_of(one) == code_of(other)
    assert words_of_code(one) == words_of_code(other)
    more, fewer = numbers(one) - numbers(other), numbers(other) - numbers(one)
    assert not more and not fewer, f"in English only: {dict(more)}; in Chinese only: {dict(fewer)}"
    assert re.findall(r"^#+(?= )", without_code(one), re.M) == re.findall(r"^#+(?= )", without_code(other), re.M)
    assert rows(one) == rows(other)
    assert targets(one, page) == targets(other, page)


@pytest.mark.parametrize("page", IN_CHINESE, ids=name)
def test_chinese_pages_lead_to_chinese_pages(page):
    own = [english_of(page).name, page.name]
    for target in links(read(page)):
        path = page.parent / target.partition("#")[0]
        if path.suffix == ".md" and target not in own:
            assert chinese_of(path) == path, f"{name(page)} links to {target}"
    assert own[0] in links(read(page))
    assert own[1] in links(read(english_of(page)))


def code_of(text: str) -> list[str]:
    """The lines of the code blocks that are no comments, and what stands in them before a comment."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    return [line.partition(" # ")[0].rstrip() for block in blocks for line in block.splitlines() if line[:1] != "#"]


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def words_of_code(text: str) -> set[str]:
    """What stands between backticks in the text."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r" *\n *(?=\S)", " ", without_code(text))))


def rows(text: str) -> list[int]:
    """Columns of each line of each table."""
    return [line.count("|") for line in without_code(text).splitlines() if line.startswith("|")]


def targets(text: str, page: Path) -> set[str]:
    """What a page links to, apart from the page itself: without anchors, which are words, and without the language."""
    found = {target.partition("#")[0].replace("_CN.md", ".md") for target in links(text)}
    return found - {"", english_of(page).name}


def numbers(text: str) -> Counter[str]:
    return Counter(re.findall(r"\d+(?:\.\d+)*", re.sub(r"\]\([^)\s]*\)", "]", text).replace(",", "")))
