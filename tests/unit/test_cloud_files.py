"""From files to apps: Compose files with and without a Compose at hand, target documents, YAML, variables."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_sim import compose_file, yaml_file
from cloud_sim.connection import Broker, Misconfigured
from cloud_sim.source import check, combined, read_files
from cloud_sim.variables import substitute
from device_agent.model.errors import Refused

EXAMPLES = Path(__file__).parents[2] / "examples"

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> Path:
        file = tmp_path / "shop" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        return file

    return write


@pytest.fixture(autouse=True)
def no_compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    compose_file.find_compose.cache_clear()
    yield
    compose_file.find_compose.cache_clear()


@pytest.fixture
def compose(tmp_path: Path) -> Callable[..., Path]:
    """A `docker` or `docker-compose` of that version, whose `config` prints `output`. Returns where its call is.

    The file that it was given is beside that, with `.file`.
    """

    def install(name: str, version: str, output: str, code: int = 0, warning: str = "") -> Path:
        calls = tmp_path / "calls"
        script = tmp_path / "bin" / name
        (tmp_path / "output").write_text(output)
        script.write_text(
            "#!/bin/sh\nPATH=/usr/bin:/bin\n"
            f'case "$*" in *"version --short") echo {version}; exit 0;; esac\n'
            f"echo \"$*\" > {calls}; echo '{warning}' >&2\n"
            f'while [ "$1" != -f ]; do shift; done; cp "$2" {calls}.file\n'
            f"if [ {code} != 0 ]; then cat {tmp_path}/output >&2; exit {code}; fi\ncat {tmp_path}/output\n"
        )
        script.chmod(0o755)
        return calls

    return install


# What Docker Compose 2.32 prints for the file of `test_version_2_resolves`.
V2_OUTPUT = """\
name: shop
services:
  api:
    build: {context: /home/me/shop, dockerfile: Dockerfile}
    command: null
    depends_on: {db: {condition: service_healthy, required: true}}
    entrypoint: null
    environment: {COST: "5$$", DEBUG: null}
    image: registry.example/api:2
    networks: {default: null}
    ports:
      - {mode: ingress, target: 80, published: "8080", protocol: tcp}
    volumes:
      - {type: volume, source: data, target: /data, volume: {}}
      - {type: bind, source: /home/me/conf, target: /conf, bind: {create_host_path: true}}
  db:
    image: db:16
    networks: {back: null, default: null}
networks:
  default: {name: shop_default, ipam: {}}
  back: {name: shop_back, ipam: {}, internal: true}
  other: {name: other, external: true}
volumes:
  data: {name: shop_data}
  named: {name: my-own-name}
x-release: {healthy_for: 5s}
"""


def test_version_2_resolves(write: Write, compose: Callable[..., Path]) -> None:
    calls = compose("docker", "2.32.1", V2_OUTPUT)
    file = write("compose.yaml", "services: {api: {image: '${IMAGE}'}}")
    source = read_files([file], profiles=["debug"])
    assert calls.read_text().split()[:3] == ["compose", "-p", "shop"]
    assert f"-f {file} --profile debug config" in calls.read_text()
    assert source.apps == {
        "shop": {
            "services": {
                "api": {
                    "depends_on": {"db": {"condition": "service_healthy"}},
                    "environment": {"COST": "5$"},
                    "image": "registry.example/api:2",
                    "ports": [{"target": 80, "published": "8080", "protocol": "tcp"}],
                    "volumes": [
                        {"type": "volume", "source": "data", "target": "/data"},
                        {
                            "type": "bind",
                            "source": "/home/me/conf",
                            "target": "/conf",
                            "bind": {"create_host_path": True},
                        },
                    ],
                },
                "db": {"image": "db:16", "networks": {"back": None, "default": None}},
            },
            "networks": {"default": {}, "back": {"internal": True}, "other": {"name": "other", "external": True}},
            "volumes": {"data": {}, "named": {"name": "my-own-name"}},
            "x-release": {"healthy_for": "5s"},
        }
    }


def test_version_1_is_not_told_the_name_and_its_profiles_are_left_out(
    write: Write, compose: Callable[..., Path]
) -> None:
    output = "version: '3.9'\nservices: {a: {image: a}, b: {image: b, profiles: [x]}, c: {image: c, profiles: [y]}}"
    calls = compose("docker-compose", "1.29.2", output)
    file = write("compose.yaml", "name: other\nservices: {a: {image: a, env_file: e}}\nx-release: {deadline: 1m}")
    source = read_files([file], profiles=["x"])
    assert source.apps == {
        "other": {"services": {"a": {"image": "a"}, "b": {"image": "b"}}, "x-release": {"deadline": "1m"}}
    }
    given = json.loads(Path(f"{calls}.file").read_text())
    assert "name" not in given
    assert given["services"] == {"a": {"image": "a", "env_file": "e"}}


def test_version_1_is_asked_only_for_what_cannot_be_done_here(write: Write, compose: Callable[..., Path]) -> None:
    calls = compose("docker-compose", "1.29.2", "it does not know `uts`", code=1)
    source = read_files([write("compose.yaml", "services: {a: {image: a, uts: host}}")])
    assert source.apps == {"shop": {"services": {"a": {"image": "a", "uts": "host"}}}}
    assert not calls.exists()


@pytest.mark.parametrize(
    ("name", "version", "line", "told"),
    [
        (
            "docker",
            "2.32.1",
            r'time="2026-11-22T10:00:00Z" level=warning msg="The \"A\" variable is not set."',
            'The "A" variable is not set.',
        ),
        ("docker-compose", "1.29.2", "The A variable is not set.", "The A variable is not set."),
    ],
)
def test_what_compose_warns_of_is_told(
    write: Write, compose: Callable[..., Path], name: str, version: str, line: str, told: str
) -> None:
    compose(name, version, "services: {a: {image: a}}", warning=line)
    source = read_files([write("compose.yaml", "services: {a: {image: a, env_file: e}}")])
    assert source.warnings == (f"Compose says: {told}",)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("apps: {1: {services: {api: {image: x}}}}", "1"),
        ("apps: {web: {services: {api: {image: x, environment: {true: y}}}}}", "True"),
        ("apps: {web: {services: {api: {image: x, x-list: [{2: 3}]}}}}", "2"),
    ],
)
def test_a_key_of_a_target_document_is_text(write: Write, text: str, key: str) -> None:
    with pytest.raises(Misconfigured, match=f"the key {key} must be text: put it between quotes"):
        read_files([write("target.yaml", text)])


def test_what_compose_refuses_is_told(write: Write, compose: Callable[..., Path]) -> None:
    compose("docker", "2.32.1", "services.api.imagee is not allowed", code=15)
    with pytest.raises(Refused, match=r"`docker compose config` refuses .*imagee is not allowed"):
        read_files([write("compose.yaml", "services: {}")])


def test_without_compose_variables_are_resolved(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAG", "3")
    monkeypatch.delenv("UNSET", raising=False)
    write(".env", "TAG=2\nexport NAME='from file' \n# A=b\n")
    text = """
        services:
          api:
            image: api:${TAG}
            command: echo $$HOME ${UNSET:-none} $NAME
            environment: [TAG, UNSET, A=b]
          db: {image: db, environment: {TAG: , UNSET: }}
    """
    assert read_files([write("docker-compose.yml", text)]).apps["shop"]["services"] == {
        "api": {"image": "api:3", "command": "echo $HOME none from file", "environment": ["TAG=3", "A=b"]},
        "db": {"image": "db", "environment": {"TAG": "3"}},
    }


def test_without_compose_profiles_are_chosen(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "services: {a: {image: a}, b: {image: b, profiles: [x, z]}, c: {image: c, profiles: [y]}}"
    file = write("compose.yaml", text)

    def services(*profiles: str) -> set[str]:
        return set(read_files([file], profiles=profiles).apps["shop"]["services"])

    assert (services(), services("x"), services("*")) == ({"a"}, {"a", "b"}, {"a", "b", "c"})
    monkeypatch.setenv("COMPOSE_PROFILES", "z,y")
    assert services() == {"a", "b", "c"}
    assert read_files([file]).apps["shop"]["services"]["b"] == {"image": "b"}


def test_without_compose_paths_are_told_from_the_folder(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    text = """
        services:
          a:
            image: x
            volumes:
              - ./conf:/conf:ro
              - ../other:/other
              - ~/mine:/mine
              - /etc/x:/x
              - data:/data
              - {type: bind, source: ./conf, target: /long}
    """
    file = write("compose.yaml", text)
    folder = file.parent
    assert read_files([file]).apps["shop"]["services"]["a"]["volumes"] == [
        f"{folder}/conf:/conf:ro",
        f"{folder.parent}/other:/other",
        "/home/me/mine:/mine",
        "/etc/x:/x",
        "data:/data",
        {"type": "bind", "source": f"{folder}/conf", "target": "/long"},
    ]


@pytest.mark.parametrize("key", ["extends", "env_file", "label_file"])
def test_without_compose_what_needs_it_is_refused(write: Write, key: str) -> None:
    with pytest.raises(Refused, match="needs Compose, and there is none here") as refused:
        read_files([write("compose.yaml", f"services: {{api: {{image: x, {key}: y}}}}")])
    assert [problem.pointer for problem in refused.value.problems] == [f"/services/api/{key}"]


def test_without_compose_a_variable_that_is_not_set_is_refused(write: Write) -> None:
    with pytest.raises(Refused, match="the variable NOT_SET_HERE is not set, and has no default"):
        read_files([write("compose.yaml", "services: {api: {image: 'x:$NOT_SET_HERE'}}")])


@pytest.mark.parametrize(
    ("name", "text", "app"),
    [
        ("compose.yaml", "", "shop"),
        ("docker-compose.yml", "", "shop"),
        ("Pump Control.compose.yaml", "", "pumpcontrol"),
        ("compose.yaml", "name: mine\n", "mine"),
        ("compose.yaml", "name: $NAME\n", "shop"),
        ("Ü.yaml", "", "app"),
    ],
)
def test_the_apps_name(write: Write, name: str, text: str, app: str) -> None:
    file = write(name, f"{text}services: {{a: {{image: x}}}}")
    content = yaml_file.load(file.read_text())
    assert compose_file._name(file, content) == app


def test_binds_of_this_machines_files_are_warned_of(write: Write) -> None:
    file = write("compose.yaml", "services: {a: {image: x, volumes: ['./conf:/conf', '/etc/x:/x', 'data:/data']}}")
    assert read_files([file]).warnings == (
        f"/services/a/volumes: {file.parent}/conf is bound from the device, not from this machine",
    )


def test_an_image_that_was_built_is_pulled(write: Write) -> None:
    file = write("compose.yaml", "services: {a: {image: x, build: .}, b: {build: .}}")
    assert read_files([file]).apps["shop"]["services"] == {"a": {"image": "x"}, "b": {"build": "."}}


def test_a_target_document_is_published_whole(write: Write) -> None:
    document = {
        "schema": 1, "scope": {"fleet": "f", "device": "d"}, "epoch": 1, "revision": 9, "release": "r",
        "allow_empty": True, "apps": {"a": {}}, "x-note": "n",
    }  # fmt: skip
    source = read_files([write("target.json", json.dumps(document))])
    assert (source.whole, source.release, source.allow_empty, source.more) == (True, "r", True, {"x-note": "n"})
    assert source.scope == {"fleet": "f", "device": "d"}
    assert combined(source, {"b": {}}, removed=[], replace=False) == {"a": {}}


def test_a_compose_file_is_one_app_among_the_others(write: Write) -> None:
    source = read_files([write("compose.yaml", "services: {a: {image: x}}")])
    new = {"shop": {"services": {"a": {"image": "x"}}}}
    assert combined(source, {"b": {}, "shop": {}}, removed=[], replace=False) == {"b": {}, **new}
    assert combined(source, {"b": {}, "c": {}}, removed=["b"], replace=False) == {"c": {}, **new}
    assert combined(source, {"b": {}}, removed=[], replace=True) == new
    with pytest.raises(Misconfigured, match="cannot remove z: the apps of the last target are b"):
        combined(source, {"b": {}}, removed=["z"], replace=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "neither a target .* nor a Compose file"),
        ("a: b: c", "neither JSON nor YAML"),
        ("services: {}\nservices: {}", "the key 'services' is there twice"),
    ],
)
def test_other_files_are_refused(write: Write, text: str, message: str) -> None:
    with pytest.raises(Misconfigured, match=message):
        read_files([write("x.yaml", text)])


def test_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="No such file"):
        read_files([tmp_path / "none.yaml"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("true", True), ("22:22", "22:22"),
        ("0755", 0o755), ("0o17", 15),
        ("1_000", 1000), ("0", 0), ("12", 12), ("-1.5e3", -1500.0), ("1.", 1.0), ("2026-01-01", "2026-01-01"),
        ("~", None),
        ("null", None), ("3.9.1", "3.9.1"), ('"12"', "12"), ("0x1F", 31), ("+5", 5),
    ],
)  # fmt: skip
def test_yaml_is_read_as_compose_reads_it(text: str, value: Any) -> None:
    found = yaml_file.load(f"x: {text}")["x"]
    assert (found, type(found)) == (value, type(value))


def test_yaml_merges() -> None:
    assert yaml_file.load("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}")["y"] == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A-${A}", "1-1"), ("$$A", "$A"), ("${NONE:-x}${EMPTY:-y}", "xy"), ("${NONE-x}${EMPTY-y}", "x"),
        ("${A:+set}${NONE:+set}${EMPTY:+set}", "set"), ("${EMPTY+set}", "set"), ("${A:?no}", "1"), ("a$$$A", "a$1"),
    ],
)  # fmt: skip
def test_variables(text: str, value: str) -> None:
    assert substitute({"x": [text]}, {"A": "1", "EMPTY": ""}) == {"x": [value]}


@pytest.mark.parametrize("text", ["$NONE", "${NONE:?must be}", "${EMPTY:?must be}", "${A", "${A:-${B}}", "$1"])
def test_variables_that_cannot_be(text: str) -> None:
    with pytest.raises(ValueError, match="variable"):
        substitute(text, {"A": "1", "EMPTY": ""})


@pytest.mark.parametrize("file", sorted(EXAMPLES.rglob("*.yaml")) + sorted(EXAMPLES.rglob("*.json")), ids=str)
def test_examples_are_valid_as_they_stand(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IMAGE", "PORT"):
        monkeypatch.delenv(name, raising=False)
    source = read_files([file])
    assert source.apps
    assert check(source.apps, fleet=None) == ()


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("mqtt://localhost", "localhost", 1883, False),
        ("mqtts://broker.example", "broker.example", 8883, True),
        ("mqtt://[::1]:18", "::1", 18, False),
    ],
)
def test_the_brokers_url(url: str, host: str, port: int, tls: bool) -> None:
    broker = Broker.of(url)
    assert (broker.host, broker.port, broker.tls) == (host, port, tls)


@pytest.mark.parametrize(
    "url", ["localhost", "http://x", "mqtt://", "mqtt://x:y", "mqtt://me:secret@x", "mqtt://x/path", "mqtt://x:99999"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(Misconfigured) as error:
        Broker.of(url)
    assert "secret" not in str(error.value)
