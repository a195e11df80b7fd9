"""The worst that a message within the size limits can be: by name, as it would travel on a target topic.

`benchmarks hostile` prints what each costs; tests hold the memory, which does not depend on how busy a machine is.
"""

import gzip
from base64 import b64encode
from collections.abc import Iterator

import zstandard

MIB = 1024 * 1024
TRAVELS, INFLATED = MIB, 8 * MIB


def documents(size: int) -> Iterator[tuple[str, bytes]]:
    """Of 1 MiB as they are, or of 8 MiB compressed; one after the other, because some are large."""
    for name, document in (*_json(size), *_targets(size)):
        raw = document if size == TRAVELS else gzip.compress(document, 1)
        if len(raw) <= TRAVELS:
            yield f"{name}, {size // MIB} MiB", raw
    yield "gzip bomb", gzip.compress(bytes(200 * MIB), 1)
    yield "zstd bomb", zstandard.compress(bytes(200 * MIB))
    yield "zstd of spaces", zstandard.compress(b" " * (INFLATED - 1) + b"1")
    yield "zstd that asks for a window of 2 GiB", b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\x00\x00"


def _json(size: int) -> Iterator[tuple[str, bytes]]:
    yield "empty lists", _list(b"[]", size)
    yield "empty objects", _list(b"{}", size)
    yield "objects of one key", _list(b'{"a":1}', size)
    yield "numbers", _list(b"1", size)
    yield "fractions", _list(b"1.5", size)
    yield "nested to the limit", _list(b"[" * 60 + b"]" * 60, size)
    yield "nested without end", b"[" * size
    yield "one key again and again", b"{" + b",".join([b'"a":1'] * (size // 6)) + b"}"
    yield "many keys", _object(size).encode()
    yield "a number of digits", b"9" * size
    yield "a fraction of digits", b"9" * (size - 2) + b".0"
    yield "one string", b'"' + b"a" * (size - 2) + b'"'
    yield "one string with an emoji", b'"' + b"a" * (size - 6) + "😀".encode() + b'"'
    yield "one string with an emoji in escapes", b'"' + b"a" * (size - 14) + b'\\ud83d\\ude00"'
    yield "one string with a letter in Greek", b'"' + b"a" * (size - 4) + "λ".encode() + b'"'
    yield "one string of escapes", b'"' + b"\\u0041" * (size // 6 - 1) + b'"'
    yield "a lone surrogate at the end", b'"' + b"a" * (size - 8) + b'\\ud800"'
    yield "one string of escapes of Hangul", b'"' + b"\\ud7ff" * (min(size, 6 * MIB) // 6 - 1) + b'"'
    yield "strings of marks and escaped quotes", _list(b'"' + b'[\\",\\\\' * 30 + b'"', size)
    # As many escapes as there may be.
    escaped = _list(b'"' + b'[\\",\\\\' * 30 + b'"', min(size, 2 * MIB))
    yield "marks and escaped quotes, padded", escaped + b" " * (size - len(escaped))
    # As many as there may be, so that everything after the count is done.
    yield "the most objects of one key", _list(b'{"a":{}}', 9 * 9_000) + b" " * (size - 9 * 9_000)
    yield "the most keys, padded", _object(12 * 24_000).encode() + b" " * (size - 12 * 24_000)


def _targets(size: int) -> Iterator[tuple[str, bytes]]:
    small = min(size, 320_000)
    for name, apps in (
        ("apps that are null", _names("a", "null", small)),
        ("apps that are empty", _names("a", "{}", small)),
        ("services that are empty", _services(_names("s", "{}", 15 * 1_900))),
        ("services", _services(_names("s", '{"image":"a:1"}', 28 * 1_900))),
        ("keys that no service has", _services('{"s":' + _object(12 * 24_000) + "}")),
        ("variables", _service("environment", _object(12 * 20_000))),
        ("variables that are wrong", _service("environment", "[" + "1," * 45_000 + "1]")),
        ("ranges of ports", _service("ports", "[" + '"1-65535",' * 45_000 + '"1"]')),
        ("a thousand services", _services(_names("s", '{"image":"a:1"}', 25 * 1_000))),
        ("a thousand services of many keys", _services(_names("s", _MANY_KEYS, (len(_MANY_KEYS) + 10) * 1_000))),
        ("fractions that are written in another way", _service("command", "[" + "1.5e-5," * 45_000 + "1]")),
        ("fractions beside an emoji", _service("command", '["😀",' + "1.0," * 45_000 + "1]")),
        ("keys with an emoji", _service("environment", _names("😀", "1", 11 * 20_000))),
        ("lists of a list", _service("command", "[" + "[[]]," * 22_000 + "1]")),
        ("volumes", _service("volumes", "[" + ",".join(f'"v{n}:/x{n}"' for n in range(45_000)) + "]")),
        ("capabilities", _service("cap_add", "[" + ",".join(f'"C{n}"' for n in range(45_000)) + "]")),
        ("a chain of services", _services(_chain(1_900, closed=False))),
        ("a circle of services", _services(_chain(1_900, closed=True))),
        ("everybody waits for everybody", _services(_mesh(200))),
        ("unresolved variables", _service("command", '"' + "${a}" * (size // 5) + '"')),
        ("a long text of umlauts", _service("hostname", '"' + "ä" * (size // 2 - 200) + '"')),
        ("a long inline file", '{"web":{"configs":{"c":{"content":"' + "x," * (size // 2 - 200) + '"}}}}'),
    ):
        head = '{"schema":1,"scope":{"fleet":"plant7","device":null},"epoch":1,"revision":1,"apps":'
        yield f"a target: {name}", f"{head}{apps}}}".encode()
    yield (
        "a target: keys that no target has",
        (b'{"schema":1,"scope":{"fleet":"plant7"},"epoch":1,"revision":1,' + _object(12 * 24_000).encode()[1:]),
    )
    envelope = '{"payloadType":"application/vnd.device-agent.target.v1+json","signatures":[],"payload":"'
    yield "an envelope", (envelope + "A" * (size - len(envelope) - 10) + '"}').encode()
    envelope = envelope.replace("target", "command")
    yield "an envelope of a command", (envelope + "A" * (size - len(envelope) - 10) + '"}').encode()
    small = b64encode(b'{"schema":1,"args":' + _list(b"[" * 60 + b"]" * 60, 40_000) + b"}").decode()
    yield "an envelope of a command: nested to the limit", f'{envelope}{small}"}}'.encode()
    signatures = '{"sig":"' + "A" * 86 + '"}'
    many = ",".join([signatures] * 5_000)
    yield "an envelope of a command: signatures", envelope.replace("[]", f"[{many}]").encode() + b'e30="}'


_MANY_KEYS = (
    '{"image":"registry.example.com/a/b:1","command":["a","b"],"environment":{"A":"1","B":"2","C":"3"},'
    '"volumes":["/x","/y"],"labels":{"a":"1","b":"2"},"restart":"always","mem_limit":"64m",'
    '"healthcheck":{"test":["CMD","a"],"interval":"10s"},"cpus":0.5,"init":true}'
)


def _list(item: bytes, size: int) -> bytes:
    return b"[" + b",".join([item] * (size // (len(item) + 1) - 1)) + b"]"


def _object(size: int) -> str:
    return "{" + ",".join(f'"k{number:06d}":1' for number in range(size // 12 - 1)) + "}"


def _names(prefix: str, value: str, size: int) -> str:
    count = size // (len(value) + 10)
    return "{" + ",".join(f'"{prefix}{number:05d}":{value}' for number in range(count)) + "}"


def _services(services: str) -> str:
    return '{"web":{"services":' + services + "}}"


def _service(key: str, value: str) -> str:
    return _services('{"s":{"image":"a:1","' + key + '":' + value + "}}")


def _chain(count: int, *, closed: bool) -> str:
    following = [(number + 1) % count if closed else min(number + 1, count - 1) for number in range(count)]
    links = [
        f'"s{number}":{{"image":"a:1","depends_on":[{f"""{chr(34)}s{to}{chr(34)}""" if to != number else ""}]}}'
        for number, to in enumerate(following)
    ]
    return "{" + ",".join(links) + "}"


def _mesh(count: int) -> str:
    names = [f'"s{number}"' for number in range(count)]
    return (
        "{"
        + ",".join(
            f'{name}:{{"image":"a:1","depends_on":[{",".join(other for other in names if other != name)}]}}'
            for name in names
        )
        + "}"
    )
