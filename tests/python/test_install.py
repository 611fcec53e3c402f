"""What is installed: `cmake --install`, completions, the manual page, units, manifests, the container file."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from ranks import BIN, ROOT, environment, needs_program

pytestmark = needs_program
LAUNCH = ROOT / "examples/launch"
MODEL = "/models/Qwen3-30B-A3B"  # as the examples name it; it is not there


def run(*words, rc=0, **more):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60, cwd=ROOT, **more)
    assert rc is None or done.returncode == rc, (words, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done


def has(program):
    return shutil.which(program) is not None


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    if not has("cmake") or not (BIN.parent / "cmake_install.cmake").exists():
        pytest.skip(f"{BIN.parent} is no build folder of cmake's")
    folder = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", BIN.parent, "--prefix", folder)
    return folder


def test_everything_is_in_its_place(prefix):
    there = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_file()}
    for file in (
        "bin/cadre",
        "share/bash-completion/completions/cadre",
        "share/zsh/site-functions/_cadre",
        "share/fish/vendor_completions.d/cadre.fish",
        "share/man/man1/cadre.1",
        "lib/systemd/system/cadre.service",
        "lib/systemd/system/cadre-first.service",
        "lib/systemd/system/cadre-node.service",
        "share/doc/cadre/docs/install.md",
        "share/doc/cadre/docs/guides/expert-parallel.md",
        "share/doc/cadre/examples/launch/leader_worker_set.yaml",
        "share/doc/cadre/configs/debug/rl_ep.toml",
    ):
        assert file in there, file
    assert not [file for file in there if "gtest" in file or file.endswith((".cc", ".o", ".a"))]
    assert run(prefix / "bin/cadre", "version").stdout == run(BIN, "version").stdout


def test_links_between_installed_pages_lead_somewhere(prefix):
    root = prefix / "share/doc/cadre"
    pages = [page for page in root.rglob("*.md")]
    assert len(pages) > 20
    for page in pages:
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), (page.relative_to(root), link)


def test_the_shells_read_their_completions(prefix):
    data = prefix / "share"
    bash = data / "bash-completion/completions/cadre"
    run("bash", "-n", bash)

    def complete(*words):
        line = " ".join(shlex.quote(word) for word in words)
        code = f'source {bash}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _cadre; printf "%s\\n" "${{COMPREPLY[@]}}"'
        return run("bash", "-c", code).stdout.split()

    assert "serve" in complete("cadre", "s") and complete("cadre", "completion", "f") == ["fish"]
    assert complete("cadre", "bench", "lat") == ["latency"]
    assert complete("cadre", "serve", MODEL, "--all2all-backend", "pp") == ["pplx"]
    assert "--enable-expert-parallel" in complete("cadre", "serve", MODEL, "--enable-exp")
    assert complete("cadre", "bench", "serve", "--request-r") == ["--request-rate"]
    assert complete("cadre", "serve", "--speculative-c") == []  # not built
    if has("zsh"):
        run("zsh", "-n", data / "zsh/site-functions/_cadre")
    if has("fish"):
        run("fish", "-n", data / "fish/vendor_completions.d/cadre.fish")
        done = run(
            "fish", "-c", f"source {data}/fish/vendor_completions.d/cadre.fish; complete -C 'cadre serve --all2all-backend pp'"
        )
        assert done.stdout.startswith("pplx")


def test_the_manual_page_is_one():
    page = run(BIN, "man").stdout
    if not has("groff"):
        pytest.skip("groff is not installed")
    done = run("groff", "-man", "-ww", "-z", "-Tutf8", input=page)
    assert done.stderr == ""
    text = run("groff", "-man", "-Tutf8", "-P-c", input=page).stdout
    assert "--enable-expert-parallel" in text.replace("\x08", "") and "CADRE_ISA" in text


def words_of(text, values):
    """The words of a command line in which ${NAME} and $NAME stand for `values`."""
    text = re.sub(r"\$\{(\w+)\}|\$(\w+)", lambda found: values[found[1] or found[2]], text.replace("\\\n", " "))
    return shlex.split(text)


def accepts(words, **more):
    """Its flags are read and fit together: what is missing is the model."""
    assert words[:2] == ["cadre", "serve"], words
    done = run(BIN, *words[1:], rc=3, env=environment(**more))
    assert MODEL in done.stderr


def test_units_name_the_installed_program_and_their_flags_are_read(prefix):
    values = {
        "MODEL": MODEL,
        "FIRST": "127.0.0.1",
        "RANKS": "4",
        "LOCAL": "2",
        "START": "2",
        "FLAGS": "--enable-expert-parallel -dp 4",
    }
    for unit in sorted((prefix / "lib/systemd/system").iterdir()):
        text = unit.read_text()
        line = re.search(r"^ExecStart=((?:.*\\\n)*.*)", text, re.M).group(1)
        words = words_of(line, values)
        assert words[0] == str(prefix / "bin/cadre"), unit.name
        accepts(["cadre", *words[1:]])
        if has("systemd-analyze"):
            done = run("systemd-analyze", "verify", "--man=no", unit, rc=None)
            assert unit.name not in done.stderr, done.stderr


def test_the_manifest_is_read_and_its_commands_too():
    yaml = pytest.importorskip("yaml")
    leader_worker_set, service = yaml.safe_load_all((LAUNCH / "leader_worker_set.yaml").read_text())
    assert (leader_worker_set["apiVersion"], leader_worker_set["kind"]) == ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet")
    template = leader_worker_set["spec"]["leaderWorkerTemplate"]
    size = template["size"]
    for index, name in enumerate(["leaderTemplate", "workerTemplate"]):
        pod = template[name]["spec"]
        (container,) = pod["containers"]
        words = container["command"] + container["args"]
        accepts(words, LWS_LEADER_ADDRESS="127.0.0.1", LWS_GROUP_SIZE=size, LWS_WORKER_INDEX=index)
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        assert MODEL.startswith(container["volumeMounts"][0]["mountPath"])
    labels = template["leaderTemplate"]["metadata"]["labels"]
    assert service["spec"]["selector"]["role"] == labels["role"]
    assert str(service["spec"]["ports"][0]["targetPort"]) == words[words.index("--port") + 1]


def test_the_launchers_scripts_are_read():
    for script in ("mpirun.sh", "torchrun.sh", "slurm.sbatch"):
        run("bash", "-n", LAUNCH / script)
        if has("shellcheck"):
            run("shellcheck", LAUNCH / script)


# The container file.

CONTAINERFILE = (ROOT / "Containerfile").read_text()


def apt_lists():
    lists = re.findall(r"apt-get install -y --no-install-recommends \\\n(.*?)\n && rm", CONTAINERFILE, re.S)
    return [block.replace("\\", " ").split() for block in lists]


def test_the_container_is_built_from_the_projects_packages():
    code = '. scripts/setup.sh; printf "%s\\n" "${BUILD_PACKAGES[@]}"'
    assert apt_lists()[0] == sorted(run("bash", "-c", code).stdout.split())


def test_the_container_holds_what_the_program_is_linked_with():
    if not has("dpkg-query") or not has("ldd"):
        pytest.skip("this system has no dpkg")
    packages = set()
    needed = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", BIN).stdout) + ["libucp.so.0"]  # which is loaded when used
    for line in run("ldconfig", "-p").stdout.splitlines():
        name, _, path = line.strip().partition(" (")
        if name not in needed or "x86-64" not in path:
            continue
        path = pathlib.Path(path.rpartition("=> ")[2])
        done = subprocess.run(["dpkg-query", "-S", str(path.resolve())], capture_output=True, text=True)
        owner = done.stdout or run("dpkg-query", "-S", str(path.resolve()).replace("/usr/lib/", "/lib/")).stdout
        packages.add(owner.split(":")[0])
    missing = packages - set(apt_lists()[1]) - {"libc6", "libgcc-s1"}  # which every image of Debian has
    assert not missing and len(packages) > 5


def test_a_linter_finds_nothing():
    hadolint = shutil.which("hadolint", path=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    assert run(hadolint, ROOT / "Containerfile").stdout == ""
