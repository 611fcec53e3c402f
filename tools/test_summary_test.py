#!/usr/bin/env python3
"""What ctest and pytest write, and what the summary makes of it."""
import contextlib
import io
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import test_summary

CTEST = """<testsuite name="x" tests="4">
<testcase name="a:One.Works" status="run"><system-out>fine</system-out></testcase>
<testcase name="a:One.Breaks" status="fail"><failure message="Failed"/><system-out>a.cc:3: Failure
expected 1</system-out></testcase>
<testcase name="a:One.Skips" status="notrun"><skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/><system-out>
[ RUN      ] One.Skips
/x/a.cc:9: Skipped
this CPU has no AMX

[  SKIPPED ] One.Skips (0 ms)</system-out></testcase>
<testcase name="a_NOT_BUILT" status="notrun"><skipped message="Unable to find executable: a"/></testcase>
</testsuite>"""

PYTEST = """<testsuites><testsuite><testcase classname="t.test_http" name="test_chat"/>
<testcase classname="t.test_http" name="test_tls"><skipped type="pytest.skip" message="no openssl">x</skipped></testcase>
</testsuite></testsuites>"""


class Summary(unittest.TestCase):
    def run_main(self, *texts, extra=()):
        with tempfile.TemporaryDirectory() as folder:
            args = list(extra)
            for i, (suite, text) in enumerate(texts):
                file = Path(folder) / f"{i}.xml"
                if text is not None:
                    file.write_text(text)
                args.append(f"{suite}={file}")
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                status = test_summary.main(args)
            return status, out.getvalue().splitlines()

    def test_counts_and_reasons(self):
        status, lines = self.run_main(("release", CTEST), ("python", PYTEST))
        self.assertEqual(status, 1)
        self.assertEqual(lines[-1], "2 passed, 2 failed, 2 skipped")
        self.assertIn("SKIPPED release a:One.Skips: this CPU has no AMX", lines)
        self.assertIn("SKIPPED python t.test_http.test_tls: no openssl", lines)
        self.assertIn("FAILED release a:One.Breaks", lines)
        self.assertIn("FAILED release a_NOT_BUILT", lines)

    def test_all_good(self):
        status, lines = self.run_main(("python", PYTEST), extra=["--skip", "tests/x.py", "no network"])
        self.assertEqual((status, lines[-1]), (0, "1 passed, 0 failed, 2 skipped"))
        self.assertIn("SKIPPED tests/x.py: no network", lines)

    def test_nothing_ran(self):
        status, lines = self.run_main(("release", "<testsuite/>"))
        self.assertEqual((status, lines[-1]), (1, "0 passed, 1 failed, 0 skipped"))

    def test_missing_file(self):
        self.assertEqual(self.run_main(("release", None))[0], 1)

    def test_broken_step(self):
        status, lines = self.run_main(("python", PYTEST), extra=["--fail", "build asan", "see the log"])
        self.assertEqual((status, lines[-1]), (1, "1 passed, 1 failed, 1 skipped"))


if __name__ == "__main__":
    unittest.main()
