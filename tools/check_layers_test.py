#!/usr/bin/env python3
"""Breaks a small tree in every way that check_layers.py must notice."""
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import check_layers

PAGE = """
```rooms
L2 top -> low
L1 low ->
L1 config ->
L0 base ->
```
```libraries
fmt/ -> base
boost/ -> low/wire.cc
```
"""

GOOD = {
    "docs/architecture.md": PAGE,
    "src/base/CMakeLists.txt": "cadre_room(base LIBS fmt::fmt)",
    "src/base/format.h": "#include <fmt/format.h>\n",
    "src/low/CMakeLists.txt": "cadre_room(low DEPS base)",
    "src/low/a.h": '#include <vector>\n#include "base/format.h"\n',
    "src/low/wire.cc": "#include <boost/asio.hpp>\n",
    "src/top/CMakeLists.txt": "cadre_room(top DEPS base low LIBS x)",
    "src/top/b.cc": '#include "low/a.h"\n// getenv("X") in a comment\n',
    "src/config/CMakeLists.txt": "cadre_room(config DEPS base)",
    "src/config/env.cc": 'extern char** environ;\n',
}


class CheckLayers(unittest.TestCase):
    def errors(self, **changes):
        files = dict(GOOD)
        for path, text in changes.get("files", {}).items():
            files[path] = text
        with tempfile.TemporaryDirectory() as folder:
            for path, text in files.items():
                file = Path(folder) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
            return check_layers.check(Path(folder))[1]

    def expect(self, files, text):
        errors = self.errors(files=files)
        self.assertEqual(len(errors), 1, errors)
        self.assertIn(text, errors[0])

    def test_good_tree(self):
        self.assertEqual(self.errors(), [])

    def python(self, engine, deps="low"):
        return {
            "docs/architecture.md": PAGE.replace("L2 top -> low\n", "L2 top -> low\nL2 python -> low\n").replace(
                "fmt/ -> base", "fmt/ -> base\npybind11/ -> python"
            ),
            "python/CMakeLists.txt": f"include(python)\ncadre_python_module(python DEPS base {deps})",
            "python/engine/m.h": "#include <pybind11/pybind11.h>\n",
            "python/engine/m.cc": '#include "python/engine/m.h"\n' + engine,
        }

    def test_python_beside_src(self):
        self.assertEqual(self.errors(files=self.python('#include "low/a.h"\n')), [])
        self.expect(self.python('#include "top/b.cc"\n'), "not among the DEPS of python")
        self.expect(self.python('#include "engine/m.h"\n'), "does not name its room")
        self.expect(self.python('#include "python/engine/n.h"\n'), "does not exist")
        self.expect(self.python("auto x = getenv(\"X\");\n"), "python/engine/m.cc: the environment")
        self.expect(self.python("", "low top"), "python/CMakeLists.txt: DEPS top")

    def test_include_upwards(self):
        self.expect({"src/low/c.cc": '#include "top/b.cc"\n'}, "not among the DEPS of low")

    def test_include_without_room(self):
        self.expect({"src/low/c.cc": '#include "a.h"\n'}, "does not name its room")

    def test_include_of_nothing(self):
        self.expect({"src/low/c.cc": '#include "low/none.h"\n'}, "does not exist")

    def test_deps_beyond_the_page(self):
        self.expect({"src/low/CMakeLists.txt": "cadre_room(low DEPS base top)"}, "not behind low")

    def test_unknown_room(self):
        self.expect({"src/attic/CMakeLists.txt": "cadre_room(attic)"}, "not in the list of rooms")

    def test_missing_cmake_line(self):
        self.expect({"src/low/CMakeLists.txt": "add_library(low)"}, "no cadre_room(low")

    def test_getenv(self):
        self.expect({"src/top/c.cc": 'int x = !getenv("X");\n'}, "environment is read in config only")

    def test_foreign_header_in_header(self):
        seen = {"src/base/other.h": "#include <fmt/core.h>\n"}
        self.assertEqual(self.errors(files=seen), [])  # a header of the room alone may
        seen["src/top/uses.cc"] = '#include "base/other.h"\n'
        self.expect(seen, "must not be seen in a header")

    def test_foreign_header_elsewhere(self):
        self.expect({"src/top/c.cc": "#include <boost/asio.hpp>\n"}, "belongs to low/wire.cc only")

    def test_tests_may_see_libraries(self):
        self.assertEqual(self.errors(files={"src/top/c_test.cc": "#include <boost/asio.hpp>\n"}), [])

    def test_forbidden_folder(self):
        self.expect({"src/top/utils/x.cc": "\n"}, "says nothing")

    def test_long_file(self):
        self.expect({"src/top/c.cc": "\n" * 601}, "601 lines")

    def test_page_upside_down(self):
        errors = self.errors(files={"docs/architecture.md": PAGE.replace("L1 low ->", "L1 low -> top")})
        self.assertTrue(any("lies higher" in error for error in errors), errors)
        self.assertTrue(any("a circle of rooms" in error for error in errors), errors)


if __name__ == "__main__":
    unittest.main()
