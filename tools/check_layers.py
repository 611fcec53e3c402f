#!/usr/bin/env python3
"""Holds the code to docs/architecture.md.

Reads the fenced lists `rooms` and `libraries` of that page, the cadre_room() lines of CMake and all #include lines, and
reports every place where they disagree. The room `python` stands beside src/ and its
files name it first, as all others name theirs. With a root as argument it checks that tree (check_layers_test.py does).
"""
import re
import sys
from pathlib import Path

FORBIDDEN_FOLDERS = {"utils", "util", "common", "core", "misc", "helpers", "helper"}
ENVIRONMENT = re.compile(r"\b(?:secure_)?getenv\s*\(|\benviron\b")
PASSES_ENVIRONMENT_ON = {"sys/process.cc"}  # a child inherits it; nothing is read from it
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
MAX_LINES = 600


def fenced(page, name):
    found = re.search(r"^```" + name + r"\n(.*?)^```", page, re.M | re.S)
    if not found:
        sys.exit(f"docs/architecture.md has no ```{name} list")
    return [line for line in found.group(1).splitlines() if line.strip()]


def read_rooms(page):
    """{room: (layer, rooms behind its name)}"""
    rooms = {}
    for line in fenced(page, "rooms"):
        match = re.fullmatch(r"L(\d+)\s+(\w+)\s*->\s*(.*)", line)
        if not match:
            sys.exit(f"docs/architecture.md: cannot read the room '{line}'")
        rooms[match[2]] = (int(match[1]), match[3].split())
    for room, (layer, deps) in rooms.items():
        if "below" in deps:
            lower = [other for other, (other_layer, _) in rooms.items() if other_layer < layer]
            rooms[room] = (layer, [dep for dep in deps if dep != "below"] + lower)
    return rooms


def room_errors(rooms):
    for room, (layer, deps) in rooms.items():
        for dep in deps:
            if dep not in rooms:
                yield f"docs/architecture.md: {room} lists {dep}, which is no room"
            elif rooms[dep][0] > layer:
                yield f"docs/architecture.md: {room} (L{layer}) lists {dep}, which lies higher"
    state = {}

    def cycle(room, path):
        if state.get(room) == "done":
            return None
        if room in path:
            return path[path.index(room):] + [room]
        for dep in rooms[room][1]:
            found = cycle(dep, path + [room]) if dep in rooms else None
            if found:
                return found
        state[room] = "done"
        return None

    for room in rooms:
        found = cycle(room, [])
        if found:
            yield "docs/architecture.md: a circle of rooms: " + " -> ".join(found)
            return


def cmake_deps(text):
    call = re.search(r"^\s*cadre_(?:room|python_module)\((.*?)\)", text, re.S | re.M)
    if not call:
        return None, []
    words = re.sub(r"#[^\n]*", "", call[1]).split()
    deps, inside = [], False
    for word in words[1:]:
        if word in ("DEPS", "LIBS", "TSAN", "HEAVY"):
            inside = word == "DEPS"
        elif inside:
            deps.append(word)
    return words[0], deps


def is_test(path):
    return bool(re.search(r"(_test|_bench|_fuzz|testing)\.(cc|h)$", path.name)) or "testing" in path.parts


def place(root, header):
    """The file that an include names."""
    return (root if header.startswith("python/") else root / "src") / header


def relative_of(root, path):
    """The path as an include names it."""
    inside = path.relative_to(root)
    return str(inside if inside.parts[0] == "python" else inside.relative_to("src"))


def room_folders(root):
    folders = sorted(p for p in (root / "src").iterdir() if p.is_dir())
    return folders + ([root / "python"] if (root / "python").is_dir() else [])


def library_errors(path, name, header, room, relative, libraries, private):
    matches = [(prefix, places) for prefix, places in libraries if header.startswith(prefix)]
    if not matches:
        return
    prefix, places = max(matches, key=lambda match: len(match[0]))
    if is_test(path):
        return  # tests compare with whatever they like
    if room not in places and relative not in places:
        yield f"{name}: <{header}> belongs to {' '.join(places)} only"
    elif path.suffix == ".h" and relative != "base/format.h" and not private:
        yield f"{name}: <{header}> must not be seen in a header that other rooms include"


def file_errors(root, path, room, deps, rooms, libraries, public):
    relative, name = relative_of(root, path), str(path.relative_to(root))
    raw = path.read_text(encoding="utf-8")
    if raw.count("\n") > MAX_LINES:
        yield f"{name}: {raw.count(chr(10))} lines; past {MAX_LINES} it wants to be two files"
    text = COMMENT.sub("", raw)
    if room != "config" and relative not in PASSES_ENVIRONMENT_ON and not is_test(path) and ENVIRONMENT.search(text):
        yield f"{name}: the environment is read in config only"
    for bracket, header in INCLUDE.findall(text):
        if bracket == "<":
            yield from library_errors(path, name, header, room, relative, libraries, relative not in public)
            continue
        seen = header.split("/")[0]
        if "/" not in header or (seen not in rooms and not place(root, seen).is_dir()):
            yield f'{name}: "{header}" does not name its room; src/ is the only include root'
        elif not place(root, header).is_file():
            yield f'{name}: "{header}" does not exist'
        elif seen not in (room, "base") and seen not in deps:
            yield f'{name}: "{header}" is of room {seen}, which is not among the DEPS of {room}'


def public_headers(root):
    """The headers that a room other than their own includes."""
    public = set()
    for path in (path for folder in room_folders(root) for path in folder.rglob("*")):
        if path.suffix not in (".cc", ".h", ".cu", ".inc") or not path.is_file():
            continue
        room = relative_of(root, path).split("/")[0]
        for bracket, header in INCLUDE.findall(COMMENT.sub("", path.read_text(encoding="utf-8"))):
            if bracket == '"' and header.split("/")[0] != room:
                public.add(header)
    return public


def check(root):
    page = (root / "docs/architecture.md").read_text(encoding="utf-8")
    rooms = read_rooms(page)
    libraries = []
    for line in fenced(page, "libraries"):
        prefix, _, places = line.partition("->")
        libraries.append((prefix.strip(), places.split()))
    errors = list(room_errors(rooms))
    inside = [p for folder in room_folders(root) for p in [folder, *folder.rglob("*")]]
    for folder in sorted(p for p in inside if p.is_dir()):
        if folder.name in FORBIDDEN_FOLDERS:
            errors.append(f"{folder.relative_to(root)}: the name says nothing; name the folder after what it does")
    public = public_headers(root)
    num_files = 0
    for folder in room_folders(root):
        room, name_of_folder = folder.name, folder.relative_to(root)
        if room not in rooms:
            errors.append(f"{name_of_folder} is not in the list of rooms in docs/architecture.md")
            continue
        lists = folder / "CMakeLists.txt"
        name, deps = cmake_deps(lists.read_text()) if lists.is_file() else (None, [])
        if name != room:
            errors.append(f"{name_of_folder}/CMakeLists.txt has no cadre_room({room} ...)")
        for dep in deps:
            if dep != "base" and dep not in rooms[room][1]:
                errors.append(f"{name_of_folder}/CMakeLists.txt: DEPS {dep} is not behind {room} in docs/architecture.md")
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".cc", ".h", ".cu", ".inc") and path.is_file():
                num_files += 1
                errors += file_errors(root, path, room, deps, rooms, libraries, public)
    if num_files == 0:
        errors.append("no source files found")
    return num_files, errors


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent)
    num_files, errors = check(root)
    for error in errors:
        print(error)
    print(f"check_layers: {num_files} files, {len(errors)} errors")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
