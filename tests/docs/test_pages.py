"""The pages that a reader types from: every code block runs, and prints what the page says (page.py)."""

import os
import pathlib
import re
import socket
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from page import ADDRESSES, BIN, ROOT, Wrong, blocks_of, console, missing, run_page

GUIDES = sorted((ROOT / "docs/guides").glob("*.md"))
PAGES = [*GUIDES, *(ROOT / name for name in ("README.md", "docs/backends.md", "docs/plan.md", "docs/python.md", "docs/troubleshooting.md"))]
needs_program = pytest.mark.skipif(not BIN.exists(), reason="%s is not built" % BIN)
RUNNER = [sys.executable, str(ROOT / "tests/docs/page.py")]
# One host with the pages' addresses, and nobody else on its ports.
HOST = "; ".join(["set -e", "ip link set lo up", "ip link add eth0 type veth peer name cable",
                  *("ip addr add %s/24 dev eth0" % address for address in ADDRESSES),
                  "ip link set eth0 up", "ip link set cable up", 'exec "$@"'])


def host():
    """The words in front of a command that runs it on a host of its own; [] where there are none to be had."""
    for how in (["--net"], ["--user", "--map-root-user", "--net"]):
        words = ["unshare", *how, "sh", "-c", HOST, "sh"]
        try:
            if subprocess.run([*words, "true"], capture_output=True).returncode == 0:
                return words
        except FileNotFoundError:
            break
    return []


@pytest.fixture(scope="session")
def on_a_host():
    return host()


def name(path):
    return str(path.relative_to(ROOT))


def ports_in_use(page):
    for port in sorted({int(port) for port in re.findall(r"\b(8\d00|8\d01|13345|30000)\b", page.read_text())} | {8000}):
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("0.0.0.0", port))
            except OSError:
                return port
    return None


@pytest.fixture(scope="session")
def python_lacks():
    """Why the pages' Python cannot run here, or nothing."""
    done = subprocess.run([sys.executable, "-c", "import cadre, numpy, openai; cadre.LLM"], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(BIN.parent / "python")})
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


@needs_program
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_page(page, on_a_host, python_lacks):
    if python_lacks and re.search("^```python|torchrun", page.read_text(), re.M):
        pytest.skip(python_lacks)
    if not on_a_host and (port := ports_in_use(page)):
        pytest.skip("network namespaces are not to be had here, and port %d is in use" % port)
    runner = subprocess.Popen([*on_a_host, *RUNNER, str(page)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said, _ = runner.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        runner.terminate()  # it ends its servers
        said, _ = runner.communicate(timeout=60)
    assert runner.returncode == 0, said


def test_guides_leave_no_block_out():
    assert len(GUIDES) >= 5
    for page in GUIDES:
        blocks = blocks_of(page)
        assert blocks or page.name == "README.md", page
        assert not [block.where for block in blocks if "skip" in block.words]


@pytest.mark.parametrize("page", [*GUIDES, *sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=name)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            heads = re.findall(r"^#+ (.*)$", there.read_text(), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", head).lower()).replace(" ", "-") for head in heads}
            assert anchor in slugs, target


def rows(page):
    """The cells of all tables of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_numbers_of_the_back_ends_are_those_of_the_pages_they_come_from():
    measured = {cell for name in ("exchange", "performance") for row in rows(ROOT / ("docs/%s.md" % name)) for cell in row}
    on_the_wire = {(row[2], row[0]): round(float(row[5])) for row in rows(ROOT / "docs/scale.md") if re.fullmatch("[0-9.]+", row[-1])}
    times, hosts, checked = False, [], 0
    for row in rows(ROOT / "docs/backends.md"):
        if row[0] in ("rows a rank", "back end", "name"):
            times, hosts = row[0] == "rows a rank", [head.split()[0] for head in row[1:]]
        elif times and row[0][0].isdigit():
            assert set(row[1:]) <= measured, row
            checked += len(row) - 1
        elif row[0].startswith("`") and hosts[0] == "2":
            for back_end in row[0].split(", "):
                assert [on_the_wire[back_end, host] for host in hosts] == pytest.approx([int(cell) for cell in row[1:]], abs=1), row
                checked += len(hosts)
    assert checked == 4 * 6 + 7 * 3


# The runner itself.


def wrong(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    return run_page(page)


def test_output_is_compared_in_order():
    said = "one 1\ntwo 2.5 s\nthree\n"
    assert missing("one ...\n...\nthree\n", said) is None
    assert missing("two   ... s\n", said) is None
    assert missing("three\none\n", said) == "one"
    assert missing("two ... m\n", said) == "two ... m"


def test_a_console_block_is_commands_and_what_they_print():
    assert console("$ a \\\n  b\nx\ny\n$ c\n") == [["a \\\n  b\n", "x\ny\n"], ["c\n", ""]]


def test_blocks_and_their_words(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- run: file=a.toml -->\n```toml\nx = 1\n```\n\n<!-- check\ntrue\n-->\n\n<!-- run: skip=no time -->\n```\n$ ls\n```\n")
    assert [(b.kind, b.text, b.words) for b in blocks_of(page)] == [
        ("file", "x = 1\n", {"file": "a.toml"}), ("check", "true\n", {}), ("console", "$ ls\n", {"skip": "no time"})]
    page.write_text("<!-- run: sometimes -->\n```bash\ntrue\n```\n")
    with pytest.raises(Wrong, match="'sometimes' is no word"):
        blocks_of(page)


@pytest.mark.parametrize("block, says", [
    ("```bash\ncat nowhere.txt\n```\n", "status 1, not 0"),
    ("<!-- run: exit=3 -->\n```bash\nexit 2\n```\n", "status 2, not 3"),
    ("```bash\nfalse\ntrue\n```\n", "status 1, not 0"),
    ("```bash\necho one\n```\n\n```text\ntwo\n```\n", "no line like"),
    ("```python\nraise ValueError('x')\n```\n", "ValueError"),
    ("```yaml\nx: 1\n```\n", "neither run nor a file"),
    ("<!-- check\ntest -e nowhere.txt\n-->\n", "status 1"),
])
def test_what_is_wrong_with_a_block_is_said(tmp_path, block, says):
    assert any(says in one for one in wrong(tmp_path, block)), wrong(tmp_path, block)


def test_a_good_page_is_good(tmp_path):
    assert wrong(tmp_path, "<!-- run: file=a -->\n```ini\nx\n```\n\n```bash\ncat a; ls models/demo\n```\n\n"
                           "```text\nx\nconfig.json\n```\n\n```console\n$ echo a b\na ...\n```\n") == []


@needs_program
@pytest.mark.parametrize("words, says", [("--port 8000 --no-such-flag", "--no-such-flag"), ("--port 0 --max-model-len 0", "status 2")])
def test_a_server_that_does_not_start_is_a_fault(tmp_path, words, says):
    assert any(says in one for one in wrong(tmp_path, "```bash\ncadre serve models/demo %s\n```\n" % words))


@needs_program
def test_a_server_that_dies_is_a_fault(tmp_path):
    text = "```bash\ncadre serve models/demo --port 0\n```\n\n```bash\n%s; sleep 0.5\n```\n" % (
        r"""kill -9 $(sed 's/.*"pid": \([0-9]*\).*/\1/' "$CADRE_PAGE_STATE"/*.json)""")
    assert any("has ended with status -9" in one for one in wrong(tmp_path, text))
