"""The site as `make docs` builds it: complete, without a broken link, and without anything from elsewhere."""

import inspect
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urldefrag, urlparse

import pytest

import hardtack
from hardtack.cli.parser import fields
from hardtack.cli.verbs import VERBS
from hardtack.evaluation.attacks import ATTACKS
from hardtack.evaluation.flags import FLAGS
from hardtack.families import FAMILIES
from hardtack.methods import METHODS
from hardtack.stages import Common
from hardtack.training.adversarial import OBJECTIVES
from hardtack_docs.pages import MARK, help_of

pytestmark = pytest.mark.timeout(600)  # the build takes 10 s of one core, and minutes where that is crowded
ROOT = Path(__file__).parents[2]
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "object": "data"}
LINKED_ONLY = {"canonical", "next", "prev", "index", "search"}  # <link>s that are followed, not loaded


class Page(HTMLParser):
    """What a built page links to, loads, and says about itself."""

    def __init__(self, html: str):
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.title = self.description = self.text = ""
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        facts = dict(attrs)
        self.anchors |= {facts[name] for name in ("id", "name") if facts.get(name)}
        if tag == "a" and facts.get("href"):
            self.links.append(facts["href"])
        elif tag in LOADS and facts.get(LOADS[tag]) and facts.get("rel") not in LINKED_ONLY:
            self.loads.append(facts[LOADS[tag]])
        if tag == "meta" and facts.get("name") == "description":
            self.description = facts["content"]
        self._inside.append(tag)

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data):
        if "title" in self._inside and "svg" not in self._inside:
            self.title += data
        if "script" not in self._inside and "style" not in self._inside:
            self.text += data


class Site(NamedTuple):
    """The built site: its folder and its parsed pages by path."""

    folder: Path
    pages: dict[str, Page]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*build, "-d", str(folder / "trees"), str(ROOT / "docs"), str(folder / "html")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    html = folder / "html"
    pages = {
        str(path.relative_to(html)): Page(path.read_text(encoding="utf-8")) for path in html.rglob("*.html")
    }
    return Site(html, pages)


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_page_is_made_from_its_class(site, name):
    method, shown = METHODS[name], words(site.pages[f"methods/{name}.html"].text)
    for text in (method.gives, method.advice):
        assert words(text.replace("`", "")) in shown
    for setting in fields(method):
        assert f"--{setting.flag}" in shown
    index = words(site.pages["methods/index.html"].text)
    choosing = words(site.pages["choosing.html"].text)
    for table in (index, choosing):
        assert words(method.advice.replace("`", "")) in table
    module = sys.modules[method.__module__].__doc__ or ""
    for label in ("Source", "Claim", "Differs from the paper"):
        assert (f"{label}¶" in shown) == (f"{label}:" in module + (method.__doc__ or ""))


@pytest.mark.parametrize("name", VERBS)
def test_a_verbs_page_is_its_help(site, name):
    page = site.pages[f"verbs/{name}.html"]
    assert help_of(name) in page.text
    assert VERBS[name].EXAMPLE in words(page.text)
    assert VERBS[name].SUMMARY in words(site.pages["index.html"].text)


def test_every_other_registry_is_on_its_page(site):
    wanted = {
        "objectives.html": [f"--{name}.{s.flag}" for name, cls in OBJECTIVES.items() for s in fields(cls)],
        "attacks.html": [f"--{name}.{s.flag}" for name, cls in ATTACKS.items() for s in fields(cls)],
        "families.html": list(FAMILIES),
        "scorecard.html": [*FLAGS, *(part for text in FLAGS.values() for part in text.split(": ")[-1:])],
        "verbs/index.html": [f"--{s.flag}" for s in fields(Common)],
    }
    for page, parts in wanted.items():
        assert parts
        for part in parts:
            assert words(part) in words(site.pages[page].text), (page, part)


def test_every_public_name_is_documented(site):
    anchors = set().union(*(page.anchors for page in site.pages.values()))
    for name in hardtack.__all__:
        thing = getattr(hardtack, name)
        home = "hardtack" if inspect.isfunction(thing) else thing.__module__
        assert f"{home}.{name}" in anchors


def test_every_hand_written_page_and_every_guide_is_in_the_site(site):
    for path in (ROOT / "docs").rglob("*.md"):
        if "results" in path.parts:
            continue  # a command wrote it, and a page includes it
        if not path.read_text(encoding="utf-8").startswith(MARK):
            assert str(path.relative_to(ROOT / "docs").with_suffix(".html")) in site.pages


def test_every_internal_link_resolves(site):
    broken, checked = [], 0
    for name, page in site.pages.items():
        for link in page.links:
            address, anchor = urldefrag(link)
            if urlparse(address).scheme or address.startswith("//"):
                continue
            target = (site.folder / name).parent / unquote(address) if address else site.folder / name
            inside = str(target.resolve().relative_to(site.folder.resolve()))
            there = target.is_file() and (
                not anchor or inside not in site.pages or unquote(anchor) in site.pages[inside].anchors
            )
            checked += 1
            if not there and not (anchor == "" and address == ""):
                broken.append((name, link))
    assert checked > 1000
    assert not broken


def test_nothing_is_loaded_from_elsewhere(site):
    loaded = 0
    for name, page in site.pages.items():
        for address in page.loads:
            assert not urlparse(address).scheme or address.startswith("data:"), (name, address)
            assert not address.startswith("//"), (name, address)
            loaded += 1
    assert loaded > 100
    for path in site.folder.rglob("*.css"):
        for address in re.findall(
            r"url\(\s*['\"]?([^)'\"]+)|@import\s+['\"]([^'\"]+)", path.read_text("utf-8")
        ):
            assert not re.match(r"https?:|//", "".join(address)), (path, address)
    for path in site.folder.rglob("*.js"):
        code = path.read_text("utf-8")
        assert not re.search(r"(fetch|import|src\s*=|XMLHttpRequest)[^;\n]{0,40}https?://", code), path
    assert (site.folder / "searchindex.js").is_file()  # search needs no server


def test_every_page_has_a_title_and_a_description_of_its_own(site):
    generated = {"genindex.html", "search.html", "py-modindex.html"}
    titles = {name: page.title for name, page in site.pages.items()}
    assert len(set(titles.values())) == len(titles)
    for name, page in site.pages.items():
        assert page.title.strip()
        assert name in generated or len(page.description) > 20, name


def test_pages_hold_no_path_of_this_machine(site):
    for path in site.folder.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert str(ROOT) not in text
        assert str(Path.home()) + "/" not in text
