#!/usr/bin/env python3
"""Writes small templates and what Jinja2 makes of them, for jinja_cases_test.cc to compare with.

  tools/make_jinja_cases.py                       writes src/text/testdata/jinja_cases.json
  tools/make_jinja_cases.py --random 20000 --seed 7 --out FILE
                                                  random expressions instead; then
  CADRE_JINJA_CASES=FILE text_test --gtest_filter=JinjaCases.*

Needs jinja2 (Debian: python3-jinja2), set up as the transformers library sets it up.
"""

import argparse
import datetime
import json
import pathlib
import random
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

NOW = datetime.datetime(2026, 3, 14, 15, 9, 26)

CONTEXT = {
    "s": "Hello, World",
    "empty": "",
    "u": "Größe 日本語 🎉 é",
    "lines": "one\ntwo\n\n  three\r\nfour",
    "n": 7,
    "neg": -7,
    "zero": 0,
    "f": 2.5,
    "big": 1e16,
    "yes": True,
    "no": False,
    "nil": None,
    "xs": [3, 1, 2],
    "names": ["bob", "Alice", "carol", "Bob"],
    "mixed": [1, "a", None, 2.5, [1], {"k": "v"}],
    "d": {"b": 1, "a": 2, "C": 3, "items": "shadow"},
    "nested": {"a": {"b": [10, {"c": "deep"}]}},
    "users": [
        {"name": "bob", "age": 30, "tags": ["x"]},
        {"name": "Alice", "age": 25, "tags": []},
        {"name": "carol", "age": 30},
    ],
    "messages": [
        {"role": "system", "content": " be nice "},
        {"role": "user", "content": "hi <b> & 'q' \"d\""},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1, "y": [True, None, 1.0]}}}]},
        {"role": "tool", "content": "42"},
    ],
    "html": "<a href='x'>T & \"q\"</a>",
}

# Expressions, printed as {{ ... }}.
EXPRESSIONS = r"""
1 + 2 * 3
(1 + 2) * 3
7 / 2
6 / 2
7 // 2
-7 // 2
7 // -2
-7 % 3
7 % -3
7.5 % 2
-7.5 % 2
-7.5 // 2
2 ** 10
2 ** -1
2 ** 3 ** 2
-2 ** 2
2.0 ** 0.5
1e16
1e15
123456789012345678
1.0
0.1 + 0.2
1e-5
0.0001
1e300 * 10
-0.0
1_000_000
0x1F + 0b101 + 0o17
1.5e3
true + true
true * 3
not true
+true
-true
1 / 0
1 // 0
1 % 0
1.0 / 0
2 ** 0.5 > 1
'a' 'b' "c"
'a' + 'b'
'a' + 1
1 + 'a'
'a' * 3
3 * 'ab'
'a' * -1
'a' * 2.0
[1] * 2
[1] + [2]
(1,) + (2,)
[1] + (2,)
'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'x']
1 ~ 2 + 3
'%s-%d' % ('a', 3)
'%5.2f|%-5s|%05d|%x|%X|%o|%e|%g|%%|%c|%r|%i|%+d' % (3.14159, 'ab', 42, 255, 255, 8, 12345.678, 0.0001, 'z', 'q', 7, 5)
'%(a)s %(b)05.1f' % {'a': 1, 'b': 2.25}
'%s' % 5
'%s' % [1, 2]
'%s %s' % (1,)
'%d' % 'x'
'%s' % (1, 2)
'abc' % 1
'%10.3s|' % 'abcdef'
'%#x %#o' % (255, 8)
'% d' % 5
'%*d' % (5, 3)
[1, 'a', none, true, 1.0, (1,), (), {}, {'k': 'v'}]
(1, 2)
(1,)
()
{'a': 1, "b": [1, 2], 3: none, none: true, 1.5: 'x'}
{'a': 1, 'a': 2}
{1: 'a', 1.0: 'b', true: 'c'}
{[1]: 2}
{(1, 2): 3}[(1, 2)]
'it\'s'
"say \"x\""
['it\'s', "say \"x\"", 'both \' and "']
['\n\t\r\\', '\x00\x1f\x7f', 'é', '\u200b', '\U0001F389', '\xa0']
'\x41\u00e9\101\q\a'|list
'line\
cont'
none
None
True
False
true
undefined_thing
undefined_thing.x
undefined_thing['x']
undefined_thing + 1
1 + undefined_thing
'a' + undefined_thing
'a' ~ undefined_thing
undefined_thing()
undefined_thing == undefined_other
undefined_thing == none
undefined_thing < 1
undefined_thing|length
undefined_thing|list
undefined_thing|upper
undefined_thing|int
undefined_thing|tojson
undefined_thing|join(',')
undefined_thing|first
undefined_thing|last
undefined_thing|sort
undefined_thing|items|list
undefined_thing|dictsort
undefined_thing|trim
undefined_thing|string
undefined_thing|replace('a', 'b')
undefined_thing|indent
undefined_thing|default('x')
undefined_thing|d
undefined_thing|abs
undefined_thing|round
undefined_thing|reverse|list
undefined_thing|map('upper')|list
undefined_thing is defined
undefined_thing is undefined
undefined_thing is none
undefined_thing is sequence
undefined_thing is iterable
undefined_thing is mapping
undefined_thing is string
undefined_thing is callable
undefined_thing in [1]
1 in undefined_thing
not undefined_thing
undefined_thing or 'x'
undefined_thing and 'x'
[undefined_thing]
-undefined_thing
nil.x
nil['x']
nil[0]
nil.x.y
n.x
n['x']
n[0]
s.nope
s['nope']
s[100]
s[-1]
s[0]
s[1.5]
xs[5]
xs[-1]
xs['a']
xs.foo
xs[none]
d.a
d['a']
d.items
d['items']
d.missing
d.missing.x
d['missing']
d[1]
d[1].x
xs[10].y
d[[1]]
nested.a.b[1].c
nested.a.b.0
nested['a']['b'][1]['c']
s.__class__
s.__class__.x
d.__class__
xs.append
xs.append(1)
xs.extend([1])
xs.sort()
xs.reverse()
xs.insert(0, 1)
xs.remove(1)
d.update({'x': 1})
d.pop('a')
d.setdefault('a', 1)
d.popitem()
d.clear()
xs.copy()
xs.count(1)
xs.index(2)
xs.index(9)
(1, 2, 1).count(1)
(1, 2, 1).index(2)
d.get('a')
d.get('zz')
d.get('zz', 5)
d.get('zz', default=5)
d.get()
d.keys()
d.values()
d.keys()|list
d.values()|list
nested.items()
nested.items()|list
d.keys()[0]
d.copy()
d.keys()|length
d.values() is sequence
d.keys() is iterable
s[1:3]
s[:5]
s[-5:]
s[::-1]
s[::2]
s[5:1:-1]
s[10:2]
s[100:]
s[:-100]
s[1:3:0]
u[6:9]
u[::-1]
u[0]
u[-1]
u|length
u[2:4]
u[::3]
xs[1:]
xs[::-1]
xs[:2]
xs[-2:]
xs[5:]
(1, 2, 3)[1:]
d[1:2]
n[1:]
nil[1:]
range(10)[2:8:2]
range(10)[::-1]|list
range(5)
range(5)|list
range(2, 8, 3)|list
range(5, 0, -2)|list
range(0)|list
range()
range(1, 2, 0)
range(1.5)
range(1000000)
range(3)[1]
range(3)[5]
range(3)|length
range(3) == range(3)
1 < 2
1 < 2 < 3
1 < 2 > 1
1 < 3 < 2
1 == 1.0
1 == true
'a' < 'b'
'a' < 1
[1, 2] < [1, 3]
[1, 2] < [1, 'a']
[1, 2] < [1, 2, 0]
(1, 2) == [1, 2]
[1, 2] == [1, 2]
{'a': 1} == {'a': 1.0}
{'a': 1} < {'b': 1}
none < 1
none == none
1 != 2
'a' != 'b'
1 in [1, 2]
1 not in [1, 2]
'a' in 'abc'
'' in 'abc'
1 in 'abc'
'a' in {'a': 1}
'a' not in {'a': 1}
[1] in {'a': 1}
1 in range(3)
1 in 5
1 in none
'a' in d.keys()
1 in d.values()
not 1 == 2
not (1 in [1])
1 and 2
0 and 2
0 or 'x'
'' or [] or none
1 if true else 2
1 if false else 2
1 if false
(1 if false) is defined
(1 if false).x
'a' if '' else 'b' if 0 else 'c'
1 if 0 if 1
n is odd
n is even
n is divisibleby 7
n is divisibleby(2)
n is number
f is number
yes is number
n is integer
yes is integer
f is float
n is float
yes is boolean
n is boolean
yes is true
no is false
n is true
s is string
n is string
nil is none
nil is not none
d is mapping
xs is mapping
xs is sequence
s is sequence
d is sequence
n is sequence
xs is iterable
n is iterable
nil is iterable
s is lower
'abc' is lower
'ABC' is upper
'Ab' is upper
'1' is lower
n is eq 7
n is == 7
n is sameas 7
nil is sameas none
n is gt 3
n is greaterthan(3)
n is lt 3
n is ge 7
n is le 7
n is ne 7
n is in [7, 8]
'a' is in 'abc'
s is callable
s.upper is callable
range is callable
n is defined
n is undefined
'upper' is filter
'nope' is filter
'odd' is test
s is odd
none is odd
n is not odd
n is nope
'x' is escaped
('x'|safe) is escaped
n is number and s is string
n is number or zz is defined
s.upper()
s.lower()
s.title()
"they're bill's friends".title()
s.capitalize()
s.swapcase()
'straße ŉ ﬁ'.upper()
'ΑΣ ΣΑΣ. İ'.lower()
'ǆ ﬁx'.title()
'Straße'.casefold()
' x '.strip()
'xxaxx'.strip('x')
'xyaxy'.strip('yx')
'xxaxx'.lstrip('x')
'xxaxx'.rstrip('x')
'\u3000a\u00a0'.strip()
'éaé'.strip('é')
' x '.strip(none)
'x'.strip(1)
'a,b,c'.split(',')
'a,b,c'.split(',', 1)
'a,b,c'.rsplit(',', 1)
'a,b,c'.split(',', maxsplit=1)
'a,b,c'.split(sep=',')
' a  b '.split()
' a  b  c '.split(none, 1)
' a  b  c '.rsplit(none, 1)
'abc'.split('')
''.split()
''.split(',')
'aXXbXXXc'.split('XX')
'aXXXb'.rsplit('XX')
'a b'.split(' ', 0)
lines.splitlines()
lines.splitlines(true)
'a\vb\fc\u2028d'.splitlines()
'a-b-c'.partition('-')
'a-b-c'.rpartition('-')
'abc'.partition('-')
'abc'.rpartition('-')
'hello'.replace('l', 'L')
'hello'.replace('l', 'L', 1)
'hello'.replace('', '-')
'hello'.replace('', '-', 2)
'hello'.replace('l', 1)
'hello'.find('l')
'hello'.find('z')
'hello'.rfind('l')
'hello'.find('l', 3)
'hello'.find('l', 0, 2)
'hello'.find('', 10)
u.find('本')
'hello'.index('l')
'hello'.index('z')
'hello'.count('l')
'hello'.count('')
'aaaa'.count('aa')
'hello'.startswith('he')
'hello'.startswith(('x', 'he'))
'hello'.startswith('l', 2)
'hello'.startswith(['he'])
'hello'.endswith('lo')
'hello'.endswith(('x', 'y'))
'hello'.endswith('l', 0, 4)
','.join(['a', 'b'])
','.join([1])
''.join([])
','.join('abc')
'a'.join(1)
'x'.center(5)
'ab'.center(5, '*')
'abc'.center(6, '*')
'x'.ljust(3, '.')
'x'.rjust(3, '.')
'-5'.zfill(5)
'5'.zfill(3)
'a\tb'.expandtabs(4)
'abc'.isalpha()
'ab1'.isalnum()
'123'.isdigit()
'²'.isdigit()
'½'.isnumeric()
'一'.isnumeric()
'１２'.isdecimal()
' \t'.isspace()
''.isspace()
'abc'.islower()
'aBc'.islower()
'ABC'.isupper()
'Ab Cd'.istitle()
'abc'.isidentifier()
'1bc'.isidentifier()
'é'.isascii()
'a\n'.isprintable()
'prefix-x'.removeprefix('prefix-')
'x.txt'.removesuffix('.txt')
'{} and {}'.format(1, 'b')
'{0} {1} {0}'.format('a', 'b')
'{x} {y}'.format(x=1, y='z')
'{:>5}|{:<5}|{:^5}|{:05d}|{:.2f}|{:,}|{:x}|{:%}|{:e}|{:+d}'.format('a', 'b', 'c', 42, 3.14159, 1234567, 255, 0.25, 12345.678, 5)
'{a[b]} {c.d}'.format(a={'b': 1}, c={'d': 2})
'{0[1]}'.format([1, 2])
'{!r} {!s}'.format('a', 'b')
'{{}}'.format()
'{}'.format()
'{x}'.format()
'{0.__class__}'.format('a')
'{:{}}|'.format('a', 5)
'{:d}'.format('a')
'{'.format()
'{:_}'.format(1234567)
'{:*^9}'.format('mid')
'{:g} {:g}'.format(0.00001, 1e20)
'{:b} {:#x} {:#b}'.format(5, 255, 5)
'{}'.format(1.0)
'{:.3}'.format('abcdef')
'{:.3}'.format(3.14159)
'{:n}'.format(5)
'{:.3} {:.3} {:.3} {:.1} {:.3}'.format(999.0, 900.0, 99.0, 0.0, 0.00001234)
'{:>6}|{:+}'.format(true, true)
(xs|reverse).foo.bar
'abc'.nope()
'abc'.upper
'abc'.upper(1)
s|upper
s|lower
s|title
"they're bill's-friends (x) [y] {z} <w>"|title
s|capitalize
42|upper
s|length
s|count
42|length
xs|length
d|length
none|length
'  x '|trim
'xxaxx'|trim('x')
42|trim
s|replace('l', 'L')
s|replace('l', 'L', 2)
s|replace('o', 0)
42|replace('4', '5')
xs|join
xs|join(', ')
xs|join('-', attribute='x')
users|join(', ', attribute='name')
users|join(attribute='tags')
s|join('.')
[1, none, true, 'x', 1.0]|join(',')
5|join
xs|first
xs|last
[]|first
[]|last
s|first
s|last
d|first
d|last
(x for x)
xs|sort
xs|sort(reverse=true)
xs|sort(true)
names|sort
names|sort(case_sensitive=true)
users|sort(attribute='name')|map(attribute='name')|list
users|sort(attribute='age,name')|map(attribute='name')|list
users|sort(attribute='age', reverse=true)|map(attribute='name')|list
mixed|sort
xs|reverse|list
s|reverse
(1, 2)|reverse|list
names|unique|list
names|unique(case_sensitive=true)|list
users|unique(attribute='age')|map(attribute='name')|list
[1, 1.0, true, 2]|unique|list
[[1]]|unique|list
xs|min
xs|max
[]|min
names|min
names|max(case_sensitive=true)
users|max(attribute='age')
[1, 'a']|max
xs|sum
[0.5, 1]|sum
users|sum(attribute='age')
xs|sum(start=10)
['a']|sum
[]|sum
[[1], [2]]|sum(start=[])
xs|batch(2)|list
xs|batch(2, 'x')|list
range(7)|slice(3)|list
range(7)|slice(3, 'x')|list
xs|slice(0)|list
users|groupby('age')
users|groupby('age')|map('first')|list
users|groupby('city', default='?')|list
names|groupby(0)
d|dictsort
d|dictsort(true)
d|dictsort(by='value')
d|dictsort(false, 'value', true)
d|dictsort(by='x')
xs|dictsort
d|items|list
xs|items|list
d|list
s|list
xs|list
5|list
none|list
xs|map('string')|list
xs|map('string')|join('+')
users|map(attribute='name')|list
users|map(attribute='nope')|list
users|map(attribute='nope', default='?')|list
users|map(attribute='tags.0')|list
names|map('upper')|list
names|map('replace', 'b', 'p')|list
names|map('nope')|list
xs|map|list
xs|map('string')|length
xs|map('string')
xs|select('odd')|list
xs|select('gt', 1)|list
[0, 1, '', 'a', none]|select|list
[0, 1, '', 'a', none]|reject|list
xs|reject('odd')|list
users|selectattr('tags')|map(attribute='name')|list
users|selectattr('age', 'equalto', 30)|map(attribute='name')|list
users|selectattr('age', '==', 30)|list|length
users|selectattr('tags', 'defined')|list|length
users|rejectattr('tags', 'defined')|map(attribute='name')|list
users|selectattr('age', 'in', [25])|list|length
users|selectattr|list
xs|select('nope')|list
messages|selectattr('role', 'equalto', 'user')|first
(messages|selectattr('role', 'equalto', 'nope')|first) is defined
messages|map(attribute='role')|join(',')
3.7|int
'42'|int
'42.9'|int
'x'|int
'x'|int(5)
' 42 '|int
'1_000'|int
'ff'|int(0, 16)
'0xff'|int(base=16)
'0x1f'|int(0, 0)
none|int
true|int
[]|int
'3.5'|float
'x'|float
'x'|float(1.5)
'1e5'|float
'inf'|float
'nan'|float
none|float
42.55|round
42.55|round(1)
42.55|round(1, 'floor')
42.55|round(1, 'ceil')
2.5|round
3.5|round
2.675|round(2)
7|round
17|round(-1)
25|round(-1)
-42.5|round
'a'|round
1.5|round(0, 'x')
-5|abs
5.5|abs
'a'|abs
s|string
42|string
none|string
xs|string
s|default('x')
empty|default('x')
empty|default('x', true)
nil|default('x')
nil|default('x', boolean=true)
zero|d('x', true)
html|escape
html|e
html|safe
html|forceescape
html|e|e
('<b>'|safe) + '<i>'
'<i>' + ('<b>'|safe)
('<b>'|safe) ~ '<i>'
('<b>'|safe)|upper
'<b>'|e|replace('&', '+')
[html|safe]
('<b>'|safe) * 2
('%s'|safe) % '<i>'
('<b>'|safe).replace('b', '<')
('<b>'|safe)[0]
html|striptags
'<!-- x --> a  <b>b</b>\n c &amp; d'|striptags
lines|indent
lines|indent(2)
lines|indent(2, true)
lines|indent(2, first=true, blank=true)
lines|indent('> ')
42|indent
''|indent(first=true)
'a b c'|wordcount
"it's a-b_c 日本 x"|wordcount
'foo bar baz qux'|truncate(9)
'foo bar baz qux'|truncate(9, true)
'foo bar baz qux'|truncate(11)
'foo bar baz qux'|truncate(9, false, '..', 0)
'foo'|truncate(2)
'foo'|center(9)
'foo'|center
'a b&c/d?é'|urlencode
{'a': 1, 'b c': 'x&y'}|urlencode
[('a', 1)]|urlencode
42|urlencode
{'class': 'a', 'id': 1, 'no': none, 'x': '<'}|xmlattr
{}|xmlattr
{'a b': 1}|xmlattr
'%s-%s'|format('a', 1)
'%(x)s'|format(x=3)
'%s'|format
1|filesizeformat
1000|filesizeformat
123456789|filesizeformat
123456789|filesizeformat(true)
s|pprint
s|attr('upper')
d|attr('a')
d|attr('keys')
s|nope
xs|tojson
d|tojson
mixed|tojson
s|tojson
u|tojson
html|tojson
1.0|tojson
1e16|tojson
none|tojson
true|tojson
(1, 2)|tojson
{}|tojson
[]|tojson
{1: 2, none: 3, true: 4, 1.5: 5}|tojson
{(1,): 2}|tojson
messages|tojson
messages|tojson(indent=2)
nested|tojson(indent=4)
nested|tojson(indent='\t')
nested|tojson(indent=0)
[[], {}, [1]]|tojson(indent=2)
d|tojson(separators=(',', ':'))
d|tojson(sort_keys=true)
d|tojson(sort_keys=true, indent=1)
{1: 1, 'a': 2}|tojson(sort_keys=true)
u|tojson(ensure_ascii=true)
'\x00\x1f\x7f\u2028/'|tojson
'\x00\x1f\x7f\u2028/'|tojson(true)
xs|map('string')|tojson
s.upper|tojson
d|tojson(nope=1)
'nan'|float|tojson
range(3)|tojson
html|safe|tojson
namespace(a=1)
namespace(a=1).a
namespace(a=1)['a']
namespace(a=1).b
namespace(a=1).b.c
namespace({'a': 1}, b=2)
namespace(a=1) is mapping
namespace() is defined
'a' in namespace(a=1)
dict(a=1, b=2)
dict({'a': 1}, a=2)
dict([('a', 1), ('b', 2)])
dict([1])
joiner(', ')
raise_exception('no ' ~ 'good')
raise_exception()
raise_exception(42)
strftime_now('%Y-%m-%d %H:%M:%S')
strftime_now('%d %b %Y|%B|%A|%a|%j|%y|%I|%p|%e|%%|%f|%-d')
strftime_now(5)
s()
5()
s.upper()()
loop
caller()
[1, 2, 3][1:]|first
'a,b'.split(',')[1].upper()
'a,b'.split(',')|last|upper
-5|abs
(-5)|abs
-xs|first
not s is string
s is string is true
'x' if s is string else 'y'
[x for x in xs]
{'a': 1}.a
{'a': {'b': 2}}.a.b
{'get': 1}.get
{'get': 1}['get']
[[1, 2], [3, 4]][1][0]
'abc'[1]
'abc'['upper']()
('a', 'b')[1]
n.real
xs is sameas xs
"a" == 'a'
[*xs]
range(*[1, 4])|list
dict(**{'a': 1})
'{}-{}'.format(*[1, 2])
'{a}'.format(**{'a': 5})
'a'.join(*[['x', 'y']])
s|replace(**{'old': 'l', 'new': 'x'})
1if true else 2
1 .real
1.
.5
5 5
(1
[1
{'a'
'abc
a b
1 +
foo.
x|
x is
a.b.c.d
4 and (5 or 0) and not none
"tab\there"
'\\'
'\N{DASH}'
'\ud83d'
""
''
((((1))))
[[[[[1]]]]]
{'a': [{'b': (1, {'c': none})}]}
d.a + d.b * d['C']
users[0].name ~ users[-1]['age']
users|length > 2 and users[0].tags|length == 1
messages[2].tool_calls[0].function.arguments|tojson
messages[-1]['role'] == 'tool'
messages[1:]|map(attribute='role')|list
(messages|first).content|trim
messages|selectattr('content', 'string')|map(attribute='content')|map('trim')|list
messages|rejectattr('content')|list|length
messages[::-1]|map(attribute='role')|join
loop.index
"%s" % none
"%d" % 3.9
"%d" % true
"%x" % 3.5
"%s and %s" % ["a", "b"]
9223372036854775807 + 0
1e3|int
1.5|string ~ 2
10 // 3 ~ 10 % 3
3.0 // 2
7 // 2.0
2 * 3.5
1 - 1.5
5 % 3.0
1e308 * 10 - 1e308 * 10
"a" < "B"
"Z" < "a"
"é" > "z"
[] == ()
none in [none]
true in [1]
"1" in [1]
1.0 in [1]
"日" in u
u.upper()
u|title
u.split(' ')
u.center(20, '·')
u|truncate(8, true, '…')
u|reverse
u|list|length
"İ"|lower|length
"a\r\nb"|replace("\r\n", "|")
""" + "\n"

# Whole templates.
TEMPLATES = [
    "plain text", "", "\n", "a\n", "a\n\n", "\r\na\r\n", "{", "{ {", "}}", "%}", "{ % x %}", "a{#c#}b", "a{# multi\nline #}\nb",
    "a {#- c -#} b", "a\n  {#- c #}\n b", "{#", "{{", "{%", "{{ 1", "{% if", "{% if 1 %}", "{% endif %}", "{% nope %}",
    "{% if 1 %}a{% endfor %}", "{{ 1 }}\n{{ 2 }}\n", "{{ 1 -}}\n  {{- 2 }}", "a\n{%- if 1 %}\nb\n{%- endif %}\nc",
    "  {% if 1 %}\n  a\n  {% endif %}\n  b", "  {%+ if 1 %}\n  a\n  {%+ endif +%}\n  b", "x  {% if 1 %}y{% endif %}  \nz",
    "a {%- if 1 -%} b {%- endif -%} c", "{% if 1 -%}\n\n  a\n{%- endif %}", "\t{% set x = 1 %}\n{{ x }}", "{{+ 1 }}", "{{- 1 -}}",
    "{% raw %}{{ x }}{% y %}{% endraw %}", "{%- raw -%}  {{ x }}  {%- endraw -%}  z", "a\n  {% raw %}\n b\n  {% endraw %}\nc", "{% raw %}", "{% raw %}{% endraw",
    "{% if no %}a{% elif n == 7 %}b{% else %}c{% endif %}", "{% if no %}a{% elif nil %}b{% else %}c{% endif %}", "{% if not xs %}a{% endif %}-",
    "{% for x in xs %}{{ x }}{% endfor %}", "{% for x in [] %}{{ x }}{% else %}none{% endfor %}", "{% for x in xs %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in xs %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.depth }}|{% endfor %}",
    "{% for x in xs %}{{ loop.previtem }}<{{ x }}<{{ loop.nextitem }};{% endfor %}", "{% for x in xs %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }};{% endfor %}",
    "{% for x in xs %}{{ loop.nextitem.foo }}{% endfor %}", "{% for x in xs %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for x in [1,1,2] %}{{ loop.changed(x) }}{% endfor %}",
    "{% for x in xs %}{{ loop.nope }}{% endfor %}", "{% for x in xs %}{{ loop.nope.x }}{% endfor %}", "{% for x in xs if x > 1 %}{{ loop.index }}{{ x }}{{ loop.length }}{{ loop.last }};{% endfor %}",
    "{% for x in xs if x > 5 %}{{ x }}{% else %}none{% endfor %}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in d|items %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in d %}{{ k }}{% endfor %}", "{% for k, v in [(1, 2), (3, 4)] %}{{ k + v }};{% endfor %}", "{% for a, b in [[1, 2, 3]] %}{% endfor %}", "{% for a, b in [1] %}{% endfor %}", "{% for a, b in [[1]] %}{% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for c in u %}{{ c }}|{% endfor %}", "{% for x in 5 %}{% endfor %}", "{% for x in nil %}{% endfor %}", "{% for x in zz %}a{% else %}b{% endfor %}",
    "{% for x in zz.y %}a{% endfor %}", "{% for x in range(10) %}{% if x == 3 %}{% continue %}{% endif %}{% if x == 6 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in xs %}{% for y in xs %}{% if y == 1 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{% endfor %}", "{% break %}", "{% for x in xs %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
    "{% for x in xs %}{{ loop.length }}{% for y in xs %}{{ loop.index }}{% endfor %}{{ loop.index }};{% endfor %}", "{% for x in xs %}{% set outer = loop %}{% for y in xs %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for x in xs|map('string') %}{{ x }}{{ loop.last }}{{ loop.length }};{% endfor %}", "{% for x in xs|select('odd') %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% endfor %}",
    "{% for item in [{'n': 1, 'c': [{'n': 2, 'c': []}]}] recursive %}{{ item.n }}{{ loop.depth }}[{{ loop(item.c) }}]{% endfor %}", "{% for x in xs %}{{ loop(xs) }}{% endfor %}",
    "{% for x in xs %}{% if loop.first %}first{% else %}, {% endif %}{{ x }}{% endfor %}", "{{ loop }}{% for x in [1] %}{% endfor %}{{ x }}", "{% for loop in xs %}{% endfor %}",
    "{% set x = 1 %}{% for i in xs %}{% set x = x + i %}{{ x }};{% endfor %}{{ x }}", "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}", "{% for i in xs %}{% set seen = true %}{% endfor %}{{ seen is defined }}",
    "{% for i in xs %}{% if seen is defined %}S{% endif %}{% set seen = true %}{% endfor %}", "{% set ns = namespace(x=0) %}{% for i in xs %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace() %}{% set ns.a = 1 %}{% set ns.b = ns.a + 1 %}{{ ns.a }}{{ ns.b }}{{ ns }}", "{% set d.x = 1 %}", "{% set zz.x = 1 %}", "{% set ns = namespace(l=[]) %}{% for i in xs %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.l }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a, b = b, a %}{{ a is defined }}", "{% set (a, b) = (1, 2) %}{{ a }}{{ b }}", "{% set a = 1, %}{{ a }}", "{% set a, b = 1 %}", "{% set a = %}", "{% set 5 = 1 %}", "{% set true = 1 %}",
    "{% set s = 'shadow' %}{{ s }}", "{{ s }}{% set s = s ~ '!' %}{{ s }}", "{% set x %}a{{ n }}b{% endset %}[{{ x }}]", "{% set x | upper %}a{{ n }}b{% endset %}[{{ x }}]", "{% set x | replace('a', 'b') | upper %}aa{% endset %}{{ x }}",
    "{% set x %}{% set y = 1 %}{% endset %}{{ y is defined }}", "{% set x %}\n  a\n{% endset %}[{{ x }}]", "{% set x -%}\n  a\n{%- endset %}[{{ x }}]", "{% set ns = namespace() %}{% set ns.x %}block{% endset %}{{ ns.x }}", "{% set x %}a{% endset %}{{ x is string }}{{ x + '<' }}",
    "{% filter upper %}a{{ s }}b{% endfilter %}", "{% filter replace('a', 'b') | upper %}aXa{% endfilter %}", "{% filter trim %}\n a \n{% endfilter %}|", "{% filter nope %}{% endfilter %}",
    "{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}", "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}", "{% set a = 5 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% macro m(a, b=2) %}{{ a }}-{{ b }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=5, a=4) }}{{ m() }}", "{% macro m(a) %}{{ a.x }}{% endmacro %}{{ m() }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(z=2) }}",
    "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}", "{% macro m(a=1, b) %}{% endmacro %}", "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}", "{% macro m(a) %}{{ a }}{{ varargs }}{% endmacro %}{{ m(1, 2, 3) }}",
    "{% macro m() %}{{ s }}{% endmacro %}{{ m() }}", "{% macro m() %}{{ later }}{% endmacro %}{% set later = 'L' %}{{ m() }}", "{% macro m() %}{% set inner = 1 %}{% endmacro %}{{ m() }}{{ inner is defined }}", "{% macro m(x) %}{% if x > 0 %}{{ x }}{{ m(x - 1) }}{% endif %}{% endmacro %}{{ m(3) }}",
    "{% macro m() %}  a  {% endmacro %}[{{ m() }}][{{ m()|trim }}]", "{{ m() }}{% macro m() %}x{% endmacro %}", "{% macro m(a) %}{% endmacro %}{{ m.name }}{{ m.arguments }}{{ m.catch_kwargs }}{{ m.catch_varargs }}{{ m.caller }}", "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}body{{ n }}{% endcall %}", "{% macro m() %}{% for x in xs %}{{ caller(x, 1) }}{% endfor %}{% endmacro %}{% call(a, b) m() %}[{{ a }}{{ b }}]{% endcall %}", "{% macro m() %}x{% endmacro %}{% call m() %}body{% endcall %}", "{% call 5 %}{% endcall %}",
    "{% if false %}{% macro m() %}x{% endmacro %}{% endif %}{{ m is defined }}", "{% for x in xs %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}", "{% macro m(l) %}{% for x in l %}{{ loop.index }}{{ x }}{% endfor %}{% endmacro %}{% for y in xs %}{{ m([y]) }}{{ loop.index }}{% endfor %}",
    "{% set x = 1 %}{% macro m() %}{{ x }}{% set x = 2 %}{{ x }}{% endmacro %}{{ m() }}{{ x }}", "{% macro m(*args) %}{% endmacro %}", "{% macro m(a, a) %}{% endmacro %}",
    "{% generation %}a{{ s }}{% endgeneration %}", "  {% generation %}\n a\n  {% endgeneration %}\nb", "{% generation %}{% set q = 1 %}{% endgeneration %}{{ q is defined }}", "{% for m in messages %}{% generation %}{{ m.role }}{{ loop.index }}{% endgeneration %}{% endfor %}",
    "{% block a %}x{{ s }}{% endblock %}", "{% block a %}x{% endblock a %}", "{% include 'x' %}", "{% extends 'x' %}", "{% import 'x' as y %}", "{% from 'x' import y %}", "{% print 1, 2 %}", "{% autoescape false %}{{ html }}{% endautoescape %}", "{% do xs.append(1) %}",
    "{% if x is defined and x %}a{% endif %}b", "{{ x|nope }}", "{% if false %}{{ x|nope }}{% endif %}ok", "{% if true %}{{ x|nope }}{% endif %}ok", "{{ (x|nope) if false else 1 }}", "{% if false %}{% for i in xs %}{{ i|nope }}{% endfor %}{% endif %}ok", "{% if x is nope %}a{% endif %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}", "{% set j = joiner(', ') %}{% for x in xs %}{{ j() }}{{ x }}{% endfor %}", "{% set g = xs|map('string') %}{{ g|list }}{{ g|list }}", "{% set g = xs|map('string') %}{{ g|first }}{{ g|list }}",
    "{% set g = xs|select('odd') %}{% if g %}yes{% endif %}", "{{ [1, 2\n, 3] }}{{ 1\n+ 2 }}", "{{ {'a': {'b': {}}}}}", "{{ '}}' }}{{ '%}' }}", "{% if '%}' %}a{% endif %}", "{# {{ x }} #}a", "a{#-#}b", "{{'a'}}{{\"b\"}}",
    "{% set x = [\n  1,\n  2,\n] %}{{ x }}", "{% set x = {\n  'a': 1,\n} %}{{ x }}", "{%if n==7%}a{%endif%}", "{%-if n==7-%} a {%-endif-%}", "{% for m in messages -%}\n{{ m.role }}: {{ m.content }}\n{% endfor %}end",
    "{%- for m in messages %}\n  {%- if m.role == 'system' %}\n    {{- 'S' + m.content }}\n  {%- elif m.tool_calls %}\n    {%- for t in m.tool_calls %}\n      {{- t.function.name ~ t.function.arguments|tojson }}\n    {%- endfor %}\n  {%- else %}\n    {{- m.content }}\n  {%- endif %}\n{%- endfor %}",
    "{% set ns = namespace(found=false) %}{% for m in messages[::-1] %}{% if not ns.found and m.role == 'user' %}{% set ns.found = true %}{{ loop.index0 }}{% endif %}{% endfor %}", "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 1) %}{{ raise_exception('roles must alternate: ' + m.role) }}{% endif %}{% endfor %}",
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% else %}{% set loop_messages = messages %}{% endif %}{{ loop_messages|length }}", "{{ '\\n' }}{{ \"\\n\" }}|", "a\n\n{% if 1 %}\n\nb\n\n{% endif %}\n\nc", "{{ 1 }}\n\n", "a  \n  {{- 1 }}", "a  \n  {{ 1 }}", "{% if 1 %}  \na{% endif %}",
    "{% set x = 'a' %}{% set x = x ~ 'b' %}{{ x }}", "{% set ns = namespace(a=namespace(b=1)) %}{{ ns.a.b }}", "{% set ns.a.b = 1 %}", "{% for i in range(3) %}{{ i }}{{ ',' if not loop.last }}{% endfor %}", "{% for i in range(3) recursive %}{{ i }}{% endfor %}",
    "{% if 1 %}{% elif %}{% endif %}", "{% if %}{% endif %}", "{% for %}{% endfor %}", "{% for x in %}{% endfor %}", "{% for x xs %}{% endfor %}", "{% set x = 1 %", "{{ 1 }", "{{ } }}", "{{ ) }}", "{{ (] }}", "{{ a ? b }}", "{{ a $ b }}", "{{ ünïcode|default('ü') }}", "{% else %}", "{% endfor %}{% for x in xs %}",
    "{% if n == 7: %}a{% endif %}", "{% for x in xs: %}{{ x }}{% endfor %}", "{{ messages|map(attribute='content')|select('string')|map('length')|list }}", "{{ 'a' if n > 5 else 'b' ~ 'c' }}", "{{ xs|map('string')|map('upper')|join }}", "{{ (xs|map('string')|list)[0] }}", "{% set t = (1, [2, {'a': (3,)}]) %}{{ t }}",
    "{% set _x = 1 %}{{ _x }}", "{% set ns = namespace(_p=1) %}{{ ns._p }}", "{{ d.a.b.c }}", "{{ d.zz.b }}", "{{ messages[0].zz }}|{{ messages[9] }}|{{ messages[9].role }}", "{{ messages.zz }}|{{ messages.zz.y }}", "{% for x in xs %}{{ x }}{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}",
    "{%- macro render(x, depth=0) -%}\n{%- if x is mapping -%}{{ '{' }}{%- for k, v in x|dictsort -%}{{ k }}:{{ render(v, depth + 1) }}{{ ',' if not loop.last }}{%- endfor -%}{{ '}' }}{%- elif x is string -%}{{ x }}{%- elif x is iterable -%}[{%- for v in x -%}{{ render(v, depth + 1) }};{%- endfor -%}]{%- else -%}{{ x }}@{{ depth }}{%- endif -%}\n{%- endmacro -%}\n{{ render(nested) }}{{ render(mixed) }}",
]


class Generation(jinja2.ext.Extension):
    """The `generation` tag: a call block that returns its body."""

    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(lineno)

    def _body(self, caller):
        return caller()


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: NOW.strftime(format)
    return env


def outcome(env, template):
    try:
        text = env.from_string(template).render(**json.loads(json.dumps(CONTEXT)))
        text.encode()  # lone surrogates are no text
        return {"text": text}
    except jinja2.exceptions.TemplateSyntaxError as e:
        return {"error": f"syntax: {e.message}"}
    except jinja2.exceptions.TemplateError as e:
        return {"error": f"template: {e}"}
    except RecursionError:
        return None
    except Exception as e:  # noqa: BLE001: whatever Python raises is the answer
        return {"error": f"evaluation: {type(e).__name__}"}


class Random:
    """Random expressions that are mostly well typed."""

    def __init__(self, seed):
        self.r = random.Random(seed)

    def pick(self, *choices):
        return self.r.choice(choices)

    def any(self, depth):
        return self.pick(self.text, self.text, self.number, self.sequence, self.mapping, self.atom, self.boolean)(depth)

    def atom(self, _):
        return self.pick("none", "zz", "nil", "users[0].zz", "n", "f", "s", "d", "xs", "1.5", "''", "u")

    def text(self, depth):
        if depth <= 0:
            return self.pick("s", "u", "'a b,c'", "''", "lines", "html", "'Ab'", "names[0]", "'x'", "'  pad '", "messages[1].content")
        t = lambda: self.text(depth - 1)
        i = lambda: self.index()
        return self.pick(
            lambda: f"({t()} + {t()})", lambda: f"({t()} ~ {self.any(depth - 1)})", lambda: f"{t()}|{self.pick('upper', 'lower', 'title', 'capitalize', 'trim', 'string', 'reverse', 'e', 'safe', 'tojson', 'urlencode', 'striptags')}",
            lambda: f"({t()}).{self.pick('upper', 'lower', 'title', 'capitalize', 'strip', 'lstrip', 'rstrip', 'swapcase', 'casefold')}()",
            lambda: f"({t()}).{self.pick('strip', 'lstrip', 'rstrip')}({self.pick(t(), repr('aHx '), 'none')})", lambda: f"({t()})[{self.slice()}]", lambda: f"({t()})[{i()}]",
            lambda: f"({t()}).replace({t()}, {t()}{self.pick('', ', 1', ', 2', ', 0', ', -1')})", lambda: f"({t()})|replace({t()}, {t()})", lambda: f"({t()} * {self.pick('0', '1', '2', '-1', '3')})",
            lambda: f"({self.sequence(depth - 1)})|join({self.pick('', repr(', '), t())})", lambda: f"({t()} if {self.boolean(depth - 1)} else {t()})", lambda: f"({t()}).{self.pick('center', 'ljust', 'rjust')}({self.pick('3', '12', '20')}{self.pick('', ', ' + repr('*'))})",
            lambda: f"({t()})|indent({self.pick('', '2', '2, true', '1, true, true', repr('> '))})", lambda: f"{self.any(depth - 1)}|tojson({self.pick('', 'indent=2', 'true', 'sort_keys=true', 'separators=' + repr((',', ':')))})",
            lambda: f"{self.any(depth - 1)}|string", lambda: f"'%s|%r'|format({self.any(depth - 1)}, {self.any(depth - 1)})", lambda: f"'{{}}:{{!r}}'.format({self.any(depth - 1)}, {self.any(depth - 1)})",
            lambda: f"'{self.pick('{:>8}', '{:^7}', '{:.3}', '{:*<6}')}'.format({t()})", lambda: f"'{self.pick('%5d', '%-6d|', '%x', '%05.1f', '%+.2e', '%g', '%s', '%6.2f')}' % ({self.number(depth - 1)})", lambda: f"'{self.pick('{:,}', '{:.2f}', '{:+}', '{:e}', '{:08.3f}', '{:g}', '{:.3}', '{}')}'.format({self.number(depth - 1)})",
            lambda: f"({t()})|truncate({self.pick('3', '5, true', '8, false, ' + repr('.') + ', 0')})", lambda: f"({t()}).split({self.pick('', repr(','), repr(' '), t())})|first", lambda: f"({t()}).partition({self.pick(repr(','), repr(' '))})[{self.pick('0', '1', '2')}]",
            lambda: f"{self.any(depth - 1)}|default({t()}{self.pick('', ', true')})",
        )()

    def index(self):
        return self.pick("0", "1", "-1", "2", "5", "-3", "100")

    def slice(self):
        part = lambda: self.pick("", "", "0", "1", "2", "-1", "-2", "5", "100", "-100")
        step = self.pick("", "", "", ":", ":2", ":-1", ":-2", ":1")
        return f"{part()}:{part()}{step}"

    def number(self, depth):
        if depth <= 0:
            return self.pick("n", "f", "0", "1", "2", "-3", "2.5", "10", "1e3", "neg", "zero", "1e16", "0.1", "true", "12345678", "1e-7")
        m = lambda: self.number(depth - 1)
        return self.pick(
            lambda: f"({m()} {self.pick('+', '-', '*', '/', '//', '%')} {m()})", lambda: f"({m()} ** {self.pick('2', '0', '-1', '0.5', '3')})", lambda: f"(-{m()})", lambda: f"({m()})|{self.pick('abs', 'int', 'float', 'round', 'round(1)', 'round(2)', 'round(-1)')}",
            lambda: f"({self.text(depth - 1)})|length", lambda: f"({self.sequence(depth - 1)})|length", lambda: f"({self.text(depth - 1)}).{self.pick('find', 'rfind', 'count')}({self.text(depth - 1)})", lambda: f"({self.text(depth - 1)})|{self.pick('int', 'float', 'wordcount', 'int(7)')}",
            lambda: f"[{m()}, {m()}, {m()}]|{self.pick('sum', 'min', 'max', 'first', 'last')}",
        )()

    def sequence(self, depth):
        if depth <= 0:
            return self.pick("xs", "names", "[]", "[1, 2, 1]", "mixed", "('a', 'b')", "range(4)", "['b', 'a', 'B']", "users", "(1,)", "d.keys()", "d.items()", "d.values()")
        q = lambda: self.sequence(depth - 1)
        return self.pick(
            lambda: f"({q()} + {q()})", lambda: f"({q()})[{self.slice()}]", lambda: f"({q()})|{self.pick('list', 'sort', 'reverse|list', 'unique|list', 'sort(reverse=true)', 'batch(2)|list', 'slice(2)|list', 'batch(3, 0)|list')}",
            lambda: f"({q()})|map('{self.pick('string', 'upper', 'length', 'tojson', 'int', 'trim', 'first')}')|list", lambda: f"({q()})|{self.pick('select', 'reject')}({self.pick('', repr('string'), repr('odd'), repr('defined'), repr('number'), repr('mapping'), repr('in') + ', xs')})|list",
            lambda: f"({self.text(depth - 1)}).{self.pick('split', 'rsplit')}({self.pick('', repr(','), repr(' ') + ', 1', 'none, 1')})", lambda: f"({self.text(depth - 1)}).splitlines()", lambda: f"({self.text(depth - 1)})|list", lambda: f"[{self.any(depth - 1)}, {self.any(depth - 1)}]",
            lambda: f"({self.any(depth - 1)}, {self.any(depth - 1)})", lambda: f"users|{self.pick('selectattr', 'rejectattr')}('{self.pick('name', 'tags', 'age', 'zz')}'{self.pick('', ', ' + repr('defined'), ', ' + repr('eq') + ', 30')})|list", lambda: f"users|map(attribute='{self.pick('name', 'age', 'tags', 'zz')}')|list",
            lambda: f"({self.mapping(depth - 1)})|{self.pick('dictsort', 'items|list', 'list', 'dictsort(true)', 'dictsort(by=' + repr('value') + ')')}", lambda: f"users|groupby('age')|list", lambda: f"({q()} * {self.pick('2', '0')})",
        )()

    def mapping(self, depth):
        if depth <= 0:
            return self.pick("d", "nested", "{}", "{'a': 1}", "users[0]", "{1: 2, 'x': none}", "messages[0]")
        return self.pick(
            lambda: f"{{{self.text(depth - 1)}: {self.any(depth - 1)}, 'k': {self.any(depth - 1)}}}", lambda: f"dict({self.mapping(depth - 1)}, z={self.any(depth - 1)})", lambda: f"({self.mapping(depth - 1)}).copy()", lambda: f"{{{self.any(depth - 1)}: 1}}",
        )()

    def boolean(self, depth):
        if depth <= 0:
            return self.pick("yes", "no", "true", "zz", "nil", "xs", "empty")
        a = lambda: self.any(depth - 1)
        return self.pick(
            lambda: f"({self.number(depth - 1)} {self.pick('<', '<=', '>', '>=', '==', '!=')} {self.number(depth - 1)})", lambda: f"({self.text(depth - 1)} {self.pick('<', '==', '!=', 'in', 'not in', '>')} {self.text(depth - 1)})", lambda: f"({a()} {self.pick('==', '!=', 'in', 'not in', '<')} {a()})",
            lambda: f"({a()} is {self.pick('', 'not ')}{self.pick('defined', 'string', 'number', 'mapping', 'sequence', 'iterable', 'none', 'true', 'boolean', 'integer', 'float', 'odd', 'lower', 'upper', 'callable', 'undefined')})",
            lambda: f"(not {a()})", lambda: f"({a()} {self.pick('and', 'or')} {a()})", lambda: f"({self.text(depth - 1)}).{self.pick('isalpha', 'isdigit', 'isspace', 'islower', 'isupper', 'istitle', 'isalnum', 'isascii', 'isprintable', 'isidentifier')}()",
            lambda: f"({self.text(depth - 1)}).{self.pick('startswith', 'endswith')}({self.text(depth - 1)})", lambda: f"({a()} in {self.sequence(depth - 1)})",
        )()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--random", type=int, default=0, help="so many random expressions instead of the table")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path,
                        default=pathlib.Path(__file__).parent.parent / "src/text/testdata/jinja_cases.json")
    args = parser.parse_args()
    env = environment()
    if args.random:
        r = Random(args.seed)
        templates = ["{{ " + r.any(r.r.randint(1, 4)) + " }}" for _ in range(args.random)]
    else:
        lines = [line for line in EXPRESSIONS.replace("\\\ncont", "\\\0cont").split("\n") if line]
        templates = ["{{ " + line.replace("\0", "\n") + " }}" for line in lines] + TEMPLATES
    cases = []
    for template in templates:
        result = outcome(env, template)
        # Addresses of objects are no answer.
        if result is None or " at 0x" in result.get("text", ""):
            continue
        cases.append({"template": template, **result})
    document = {"jinja2": jinja2.__version__, "context": CONTEXT, "cases": cases}
    with open(args.out, "w", encoding="utf-8") as f:
        f.write('{"jinja2": %s,\n"context": %s,\n"cases": [\n' % (
            json.dumps(document["jinja2"]), json.dumps(document["context"], ensure_ascii=False)))
        f.write(",\n".join(json.dumps(c, ensure_ascii=False) for c in cases))
        f.write("\n]}\n")
    print(f"{len(cases)} cases in {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
