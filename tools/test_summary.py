#!/usr/bin/env python3
"""Adds up JUnit files of ctest and pytest and says what failed and what was skipped, each skip with its reason.

usage: test_summary.py [--skip NAME REASON]... [--fail NAME REASON]... NAME=FILE.xml...
A file that is missing counts as one failure, and so does a run without a single passed test.
The last line is exactly `N passed, N failed, N skipped`.
"""
import re
import sys
import xml.etree.ElementTree as ElementTree

SKIP_LINE = re.compile(r"^\[  SKIPPED \]")


def gtest_reason(output):
    """GoogleTest prints `file:line: Skipped`, then the text of GTEST_SKIP()."""
    lines = output.splitlines()
    for i, line in enumerate(lines):
        if re.search(r": Skipped$", line.strip()):
            text = []
            for more in lines[i + 1:]:
                if not more.strip() or more.startswith("["):
                    break
                text.append(more.strip())
            return " ".join(text) or "no reason given"
    return ""


def reason_of(case, skipped):
    output = "".join(case.itertext())
    reason = gtest_reason(output) or (skipped.get("message") or "")
    return " ".join(reason.split())[:300] or "no reason given"


def name_of(suite, case):
    name = case.get("name", "?")
    classname = case.get("classname", "")
    return f"{suite} {classname + '.' if suite == 'python' and classname else ''}{name}"


def failure_tail(case):
    output = "".join(case.itertext()).strip().splitlines()
    return [line[:200] for line in output[-25:]]


def read(suite, path):
    """(passed names, [(failed name, tail)], [(skipped name, reason)])"""
    passed, failed, skipped = [], [], []
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        return [], [(suite, [f"no results: {error}"])], []
    for case in root.iter("testcase"):
        name = name_of(suite, case)
        problem = next((case.find(tag) for tag in ("failure", "error") if case.find(tag) is not None), None)
        skip = case.find("skipped")
        status = case.get("status", "")
        if problem is not None or status == "fail":
            failed.append((name, failure_tail(case)))
        elif skip is not None or status in ("notrun", "disabled"):
            # ctest says notrun also for a program that could not be started; that is no skip.
            output = "".join(case.itertext())
            started = SKIP_LINE.search(output) or "Skipped" in output or suite == "python" or status == "disabled"
            message = (skip.get("message") or "") if skip is not None else ""
            if started or message.startswith("SKIP"):
                skipped.append((name, reason_of(case, skip if skip is not None else case)))
            else:
                failed.append((name, [message or "could not be run"]))
        else:
            passed.append(name)
    return passed, failed, skipped


def main(args):
    passed, failed, skipped, files = [], [], [], []
    while args:
        word = args.pop(0)
        if word in ("--skip", "--fail"):
            name, reason = args.pop(0), args.pop(0)
            (skipped if word == "--skip" else failed).append((name, reason if word == "--skip" else [reason]))
        else:
            files.append(word.partition("=")[::2])
    for suite, path in files:
        more = read(suite, path)
        print(f"  {suite:<10} {len(more[0])} passed, {len(more[1])} failed, {len(more[2])} skipped")
        passed += more[0]
        failed += more[1]
        skipped += more[2]
    if not passed and not failed:
        failed.append(("all", ["no test ran"]))
    for name, reason in skipped:
        print(f"SKIPPED {name}: {reason}")
    for name, tail in failed:
        print(f"FAILED {name}")
        for line in tail:
            print(f"    {line}")
    print(f"{len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
